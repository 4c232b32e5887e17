# Tests without a machine: what the module refuses, and that each preset renders and is accepted by the program.
{
  self,
  nixpkgs,
  pkgs,
}:

let
  inherit (nixpkgs) lib;
  inherit (pkgs.stdenv.hostPlatform) system;

  machine =
    modules:
    (lib.nixosSystem {
      inherit system;
      modules = [
        {
          boot.isContainer = true;
          system.stateVersion = "26.05";
        }
      ]
      ++ modules;
    }).config;
  host =
    settings:
    machine [
      self.nixosModules.default
      {
        services.plexus = {
          enable = true;
          serverName = "example.org";
        };
      }
      settings
    ];
  failuresOf = config: map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
  failures = settings: failuresOf (host settings);

  # Two hosts; what is given goes over it.
  cluster = settings: {
    imports = [ settings ];
    networking.hostName = lib.mkDefault "one";
    services.plexus.cluster = {
      secretFile = lib.mkDefault "/run/keys/plexus-cluster";
      tls = lib.mkDefault {
        certificateFile = "/var/lib/cluster-tls/certificate.pem";
        keyFile = "/var/lib/cluster-tls/key.pem";
        caFile = "/etc/cluster-ca.pem";
      };
      hosts.one = {
        address = lib.mkDefault "10.0.0.1";
        main = lib.mkDefault true;
        database = lib.mkDefault true;
        redis = lib.mkDefault true;
        proxy = true;
      };
      hosts.two = {
        address = "10.0.0.2";
        workers.sync.count = 1;
        workers.events = 2;
      };
    };
  };

  # An existing Synapse with a worker; what is given goes over it.
  synapse =
    settings:
    machine [
      self.nixosModules.from-synapse
      {
        services.matrix-synapse = {
          enable = true;
          settings = {
            server_name = "example.org";
            report_stats = false;
            database = {
              name = "psycopg2";
              args.database = "matrix-synapse";
            };
            redis.enabled = true;
            signing_key_path = "/var/lib/matrix-synapse/homeserver.signing.key";
            instance_map.main.path = "/run/matrix-synapse/main_replication.sock";
            instance_map.writer.path = "/run/matrix-synapse/writer.sock";
            stream_writers.events = "writer";
            macaroon_secret_key = "in the store, as the old configuration had it";
            media_store_path = "/var/lib/matrix-synapse/media_store";
            listeners = [
              {
                port = 8008;
                bind_addresses = [ "127.0.0.1" ];
                type = "http";
                tls = false;
                resources = [
                  {
                    names = [
                      "client"
                      "federation"
                    ];
                    compress = false;
                  }
                ];
              }
              {
                path = "/run/matrix-synapse/main_replication.sock";
                type = "http";
                resources = [ { names = [ "replication" ]; } ];
              }
            ];
          };
          workers.writer = {
            worker_app = "synapse.app.generic_worker";
            worker_listeners = [
              {
                path = "/run/matrix-synapse/writer.sock";
                type = "http";
                resources = [ { names = [ "replication" ]; } ];
              }
            ];
          };
        };
        services.plexus.fromSynapse.enable = true;
      }
      settings
    ];
  takenOver = synapse { };

  # What only the program can tell fails the build, so it never gets as far as a switch. By what is said then, the
  # package that can't be built.
  unbuildable =
    lib.mapAttrs (_: settings: (host settings).services.plexus.rendered) {
      "cluster.toml: workers.synk: there is no such role; allowed: events, sync, " = {
        services.plexus.workers.synk = 1;
      };
      "cluster.toml: workers.sync: found 100; allowed: 0 to 20" = {
        services.plexus.workers.sync = 100;
      };
      "cluster.toml: resources.sink: there is no such role" = {
        services.plexus.resources.sink.pool = 5;
      };
      "cluster.toml: hosts.one.address: invalid IP address" = cluster {
        services.plexus.cluster.hosts.one.address = "one.example.org";
      };
      "cluster.toml: hosts.two.workers.synk: there is no such role; allowed: events, sync, " = cluster {
        services.plexus.cluster.hosts.two.workers.synk = 1;
      };
      "cluster.toml: hosts.two.workers.sync: found 100; allowed: 0 to 20" = cluster {
        services.plexus.cluster.hosts.two.workers.sync.count = lib.mkForce 100;
      };
      "homeserver.yaml:[0-9]+: max_upload_size: found the string \"lots\"; allowed: a number of bytes" = {
        services.plexus.settings.max_upload_size = "lots";
      };
      "live.yaml:[0-9]+: rc_message.per_second: found the string \"fast\"" = cluster {
        services.plexus.settings.rc_message.per_second = "fast";
      };
      "services.postgresql.settings.max_connections: the processes need [0-9]+" = {
        services.postgresql.settings.max_connections = 20;
      };
    }
    // {
      "homeserver.yaml:[0-9]+: database.args.cp_max: found" = lib.findFirst (
        check: check.name == "plexus-from-synapse"
      ) null (synapse { services.matrix-synapse.settings.database.args.cp_max = "many"; }).system.checks;
    };

  # Each assertion of the module, by words of its message, with a configuration that breaks it.
  refused = {
    "registration_shared_secret" = {
      services.plexus.settings.registration_shared_secret = "x";
    };
    "form_secret" = {
      services.plexus.settings.form_secret = "x";
    };
    "email.smtp_pass" = {
      services.plexus.settings.email.smtp_pass = "x";
    };
    "oidc_providers.0.client_secret" = {
      services.plexus.settings.oidc_providers = [ { client_secret = "x"; } ];
    };
    "ends in _path" = {
      services.plexus.secrets.files.turn_shared_secret = "/run/keys/turn";
    };
    "services.plexus.secrets, database.passFile" = {
      services.plexus.secrets.files.turn_shared_secret_path = "${builtins.storeDir}/0-turn";
    };
    "services.plexus.redis.host must be set" = {
      services.plexus.redis.createLocally = false;
    };
    "services.plexus.database.host" = {
      services.plexus.database.host = "db.example.org";
    };
    "database.passFile" = {
      services.plexus.database.createLocally = false;
      services.plexus.database.passFile = "${builtins.storeDir}/0-pass";
    };
    "services.matrix-synapse and services.plexus" = {
      services.matrix-synapse.enable = true;
    };
    "services.plexus.database.user must be plexus" = {
      services.plexus.database.user = "synapse";
    };
    "services.plexus.database.tls.mode is not used" = {
      services.plexus.database.tls.mode = "verify-full";
    };
    "services.plexus.redis.tls.enable is not used" = {
      services.plexus.redis.tls.enable = true;
    };
    "services.plexus.redis.username needs" = {
      services.plexus.redis.username = "plexus";
    };
    "ports that are taken twice: nginx.port (8008), metrics.port (8008)" = {
      services.plexus.metrics.scrape = true;
      services.plexus.metrics.port = 8008;
    };
    "redis.port (8100, one of the processes': 8018 to 8418)" = cluster {
      services.plexus.redis.port = 8100;
    };
    "services.plexus.nginx.wellKnown needs" = {
      services.plexus.nginx.wellKnown = "example.org";
    };
    "services.plexus.cluster.tls must be set" = cluster { services.plexus.cluster.tls = null; };
    "services.plexus.cluster.tls is for" = cluster { services.plexus.cluster.privateNetwork = true; };
    "cluster.tls.keyFile: ${builtins.storeDir}/0-key" = cluster {
      services.plexus.cluster.tls = {
        certificateFile = "/var/lib/cluster-tls/certificate.pem";
        keyFile = "${builtins.storeDir}/0-key";
        caFile = "/etc/cluster-ca.pem";
      };
    };
    "services.plexus.metrics.scrape needs" = {
      services.plexus.metrics.scrape = true;
      services.plexus.nginx.enable = false;
    };
    "networking.hostName = three, is not among" = cluster { networking.hostName = "three"; };
    "two hosts have the same address" = cluster {
      services.plexus.cluster.hosts.one.address = "10.0.0.2";
    };
    "services.plexus.cluster.secretFile must be set" = cluster {
      services.plexus.cluster.secretFile = null;
    };
    "services.plexus.cluster.secretFile: a secret" = cluster {
      services.plexus.cluster.secretFile = "${builtins.storeDir}/0-secret";
    };
    "services.plexus.workers: where" = cluster { services.plexus.workers.sync = 1; };
    "exactly one host must have main = true; found: ." = cluster {
      services.plexus.cluster.hosts.one.main = false;
    };
    "exactly one host must have database = true; found: one two" = cluster {
      services.plexus.cluster.hosts.two.database = true;
    };
    "exactly one host must have redis = true; found: one two" = cluster {
      services.plexus.cluster.hosts.two.redis = true;
    };
  };
  refusedSynapse = {
    "settings.modules" = {
      services.matrix-synapse.settings.modules = [ { module = "x"; } ];
    };
    "settings.password_providers" = {
      services.matrix-synapse.settings.password_providers = [ { module = "x"; } ];
    };
    "plugins" = {
      services.matrix-synapse.plugins = [ pkgs.hello or pkgs.coreutils ];
    };
    "settings.database.name" = {
      services.matrix-synapse.settings.database.name = lib.mkForce "sqlite3";
    };
    "which is not enabled" = {
      services.matrix-synapse.enable = lib.mkForce false;
    };
  };
  notRefusedSynapse = lib.filterAttrs (
    words: settings:
    !lib.any (lib.hasInfix words) (
      lib.filter (lib.hasInfix "services.plexus.fromSynapse") (failuresOf (synapse settings))
    )
  ) refusedSynapse;

  notRefused = lib.filterAttrs (
    words: settings: !lib.any (lib.hasInfix words) (failures settings)
  ) refused;
  ours = lib.filter (lib.hasInfix "services.plexus") (
    failures { } ++ failures (cluster { }) ++ failuresOf takenOver
  );

  # Each host of the two has its part of the units, the firewall and the services below.
  one = host (cluster { });
  two = host (cluster {
    networking.hostName = "two";
    networking.nftables.enable = true;
  });
  parts = {
    "only one has PostgreSQL" = one.services.postgresql.enable && !two.services.postgresql.enable;
    "pg_hba has every host" = lib.all (line: lib.hasInfix line one.services.postgresql.authentication) [
      "hostssl plexus plexus 10.0.0.1/32 scram-sha-256"
      "hostssl plexus plexus 10.0.0.2/32 scram-sha-256"
    ];
    "PostgreSQL and Redis speak TLS" =
      one.services.postgresql.settings.ssl
      && one.services.redis.servers.plexus.port == 0
      && one.services.redis.servers.plexus.settings.tls-port == 6379
      && lib.elem "tls_key:/var/lib/cluster-tls/key.pem" one.systemd.services.postgresql.serviceConfig.LoadCredential;
    "only one has Redis, with a password" =
      one.services.redis.servers.plexus.requirePassFile == "/var/lib/plexus/secrets/redis"
      && !(two.services.redis.servers ? plexus);
    "only one has nginx" = one.services.nginx.enable && !two.services.nginx.enable;
    "the firewall of one lets two through" =
      lib.hasInfix "iptables -A nixos-fw -p tcp -s 10.0.0.2 --dport 5432 -j nixos-fw-accept" one.networking.firewall.extraCommands;
    "the firewall of two lets one to the processes only" =
      two.networking.firewall.extraInputRules == "ip saddr 10.0.0.1 tcp dport { 8018-8418 } accept\n";
    "nothing is open to all" =
      one.networking.firewall.allowedTCPPorts == [ ] && two.networking.firewall.allowedTCPPorts == [ ];
    "the units of Synapse run plexus" =
      lib.hasInfix "bin/plexus homeserver --config-path" takenOver.systemd.services.matrix-synapse.serviceConfig.ExecStart
      && lib.hasInfix "bin/plexus worker --config-path" takenOver.systemd.services.matrix-synapse-worker-writer.serviceConfig.ExecStart;
  };
  wrongParts = lib.attrNames (lib.filterAttrs (_: holds: !holds) parts);

  presets = lib.genAttrs [ "single" "small" "medium" "large" ] (
    preset: (host { services.plexus.preset = preset; }).services.plexus.rendered
  );
  # Each process speaks to other servers itself, and asks identity servers.
  unrestricted =
    (host {
      services.plexus = {
        preset = "large";
        settings = {
          enable_3pid_lookup = true;
          outbound_federation_restricted_to = [ ];
        };
      };
    }).services.plexus.rendered;
  units = {
    single = "canary main rolling schema";
    small = "canary events1 main rolling schema sync1";
    medium = "canary client1 events1 events2 federation1 main rolling schema streams1 sync1 sync2";
    large = "background1 canary client1 client2 client3 events1 events2 events3 events4 federation1 federation2 main media1 pusher1 pusher2 rolling schema sender1 sender2 streams1 streams2 sync1 sync2 sync3 sync4";
  };

  undescribed = lib.filter (
    # An option without a default must be set, so it has an example to go by.
    o:
    !(o ? description)
    || !(o ? example || lib.hasSuffix ".enable" o.name || lib.hasSuffix ".package" o.name)
  ) (import ../../nixos-module/doc.nix { inherit lib pkgs; }).options;
in
{
  assertions =
    pkgs.runCommand "plexus-assertions"
      {
        wrong = lib.concatLines (
          lib.mapAttrsToList (words: _: "not refused: ${words}") (notRefused // notRefusedSynapse)
          ++ map (message: "a plain configuration is refused: ${message}") ours
          ++ map (o: "no description or example: ${o.name}") undescribed
          ++ map (part: "does not hold: ${part}") wrongParts
        );
      }
      ''
        if [ -n "$wrong" ]; then
          echo "$wrong"
          exit 1
        fi
        touch $out
      '';

  unbuildable = pkgs.runCommand "plexus-unbuildable" { } (
    lib.concatStrings (
      lib.mapAttrsToList (words: package: ''
        grep -E ${lib.escapeShellArg words} ${pkgs.testers.testBuildFailure package}/testBuildFailure.log
      '') unbuildable
    )
    + ''
      touch $out
    ''
  );

  # Building it runs check-config on what the units of services.matrix-synapse will read.
  from-synapse = pkgs.runCommand "plexus-taken-over" { checks = takenOver.system.checks; } ''
    touch $out
  '';

  # Both hosts of a cluster render, and each has its own units.
  hosts = pkgs.runCommand "plexus-hosts" { } ''
    processes() {
      (cd "$1/lib/systemd/system" && ls | grep -E '^plexus-(main|.*[0-9])\.service$')
    }
    diff <(processes ${one.services.plexus.rendered}) - <<EOF
    plexus-main.service
    EOF
    diff <(processes ${two.services.plexus.rendered}) - <<EOF
    plexus-two-events1.service
    plexus-two-events2.service
    plexus-two-sync1.service
    EOF
    # But for where they lie.
    same() {
      sed "s|$1|/etc/plexus|" "$1/homeserver.yaml"
    }
    diff <(same ${one.services.plexus.rendered}) <(same ${two.services.plexus.rendered})
    touch $out
  '';

  # Units are well-formed and confined: 3.0 of 10 is the most systemd may find exposed. What each has is printed.
  units = pkgs.runCommand "plexus-units" { nativeBuildInputs = [ pkgs.systemd ]; } ''
    for folder in ${presets.single} ${presets.large} ${one.services.plexus.rendered} ${two.services.plexus.rendered}; do
      cd "$folder/lib/systemd/system"
      # Units of others, such as postgresql.service, are not here: verify's status says nothing, its lines about ours do.
      # Keys for NixOS mean nothing to systemd.
      SYSTEMD_UNIT_PATH="$PWD:" systemd-analyze --man=no --recursive-errors=no verify ./plexus* > "$TMPDIR/found" 2>&1 || true
      if grep -v "X-[A-Za-z]*" "$TMPDIR/found" | grep -E "(^|/)plexus"; then
        exit 1
      fi
      for unit in *.service; do
        systemd-analyze security --offline=yes --no-pager --threshold=30 "./$unit" > "$TMPDIR/exposed" || { cat "$TMPDIR/exposed"; exit 1; }
        tail -n 1 "$TMPDIR/exposed" | tee -a $out
      done
    done
  '';

  # Roles that ask nobody outside reach nobody outside.
  network = pkgs.runCommand "plexus-network" { } ''
    closed() {
      (cd "$1/lib/systemd/system" && grep -l '^IPAddressDeny=any$' plexus-*[0-9].service | sed 's/^plexus-//; s/\.service$//' | tr '\n' ' ')
    }
    expect() {
      if [ "$(closed "$1")" != "$2 " ]; then
        echo "closed: $(closed "$1"); expected: $2"
        exit 1
      fi
    }
    expect ${presets.medium} "events1 events2 federation1 streams1 sync1 sync2"
    expect ${presets.large} "events1 events2 events3 events4 federation1 federation2 streams1 streams2 sync1 sync2 sync3 sync4"
    expect ${two.services.plexus.rendered} "two-events1 two-events2 two-sync1"
    expect ${unrestricted} "sync1 sync2 sync3 sync4"
    touch $out
  '';

  # Building them runs check-config and nginx -t on what was rendered.
  rendered = pkgs.runCommand "plexus-rendered" { } (
    lib.concatStrings (
      lib.mapAttrsToList (preset: dir: ''
        found=$(cd ${dir}/lib/systemd/system && ls plexus-*.service | sed 's/^plexus-//; s/\.service$//' | LC_ALL=C sort | tr '\n' ' ')
        if [ "$found" != "${units.${preset}} " ]; then
          echo "preset ${preset}: units are: $found"
          exit 1
        fi
      '') presets
    )
    + ''
      touch $out
    ''
  );
}
