# Renders the configuration and installs the units it contains. The processes' units are left alone by a switch;
# plexus-rolling.service, which changes with any of them, restarts them one by one.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.plexus;
  toml = pkgs.formats.toml { };
  spans = cfg.cluster.hosts != { };
  inherit (cfg.cluster) tls;
  counts = lib.mapAttrs (_: worker: worker.count);
  given = lib.filterAttrs (_: value: value != null);
  # A file that is no secret; one of the flake's own goes to the store.
  file = path: if path == null then null else "${path}";

  described = {
    server_name = cfg.serverName;
    bind_address = cfg.nginx.address;
    base_port = cfg.nginx.port;
    inherit (cfg) settings;
    data_dir = toString cfg.dataDir;
    enable_registration = cfg.enableRegistration;
    database = given {
      inherit (cfg.database)
        port
        user
        name
        pool
        ;
      host = if spans then null else cfg.database.host;
      sslmode = cfg.database.tls.mode;
      sslrootcert = file cfg.database.tls.caFile;
    };
    redis =
      if spans then
        { inherit (cfg.redis) port; }
      else if cfg.redis.createLocally then
        { path = config.services.redis.servers.plexus.unixSocket; }
      else
        given {
          inherit (cfg.redis) host port username;
          tls = cfg.redis.tls.enable;
          ca = file cfg.redis.tls.caFile;
        };
    log_level = cfg.logLevel;
    resources = lib.filterAttrs (_: use: use != { }) (
      lib.mapAttrs (
        _: use:
        given {
          inherit (use) pool;
          memory_high = use.memoryHigh;
          memory_max = use.memoryMax;
          cpu_weight = use.cpuWeight;
        }
      ) cfg.resources
    );
    systemd = {
      live_dir = "/etc/plexus";
      systemctl = "${config.systemd.package}/bin/systemctl";
    }
    // lib.optionalAttrs cfg.nginx.enable { proxy_unit = "nginx.service"; };
  }
  // (
    if spans then
      {
        hosts = lib.mapAttrs (_: host: {
          inherit (host)
            address
            main
            database
            redis
            proxy
            ;
          workers = counts host.workers;
        }) cfg.cluster.hosts;
        private_network = cfg.cluster.privateNetwork;
      }
      // lib.optionalAttrs (tls != null) {
        tls = {
          certificate = "$CREDENTIALS_DIRECTORY/tls_certificate";
          key = "$CREDENTIALS_DIRECTORY/tls_key";
          ca = file tls.caFile;
          inherit (tls) name;
        };
      }
    else
      {
        inherit (cfg) preset;
        workers = counts cfg.workers;
        unix_sockets = true;
      }
  )
  // lib.optionalAttrs (cfg.metrics.scrape && !spans) { nginx.metrics_port = cfg.metrics.port; }
  // lib.optionalAttrs (cfg.publicBaseUrl != null) { public_baseurl = cfg.publicBaseUrl; };

  cluster = toml.generate "cluster.toml" cfg.clusterFile;

  # Unit files are put where systemd.packages looks for them. A configuration that the program or nginx
  # would refuse fails this build, so it never gets as far as a switch.
  rendered = pkgs.runCommand "plexus-cluster" { nativeBuildInputs = [ cfg.package ]; } ''
    plexus cluster render --file ${cluster} --out "$out" --program ${lib.getExe cfg.package}${lib.optionalString spans " --host ${config.networking.hostName}"}
    mkdir -p "$out/lib/systemd/system"
    mv "$out"/systemd/* "$out/lib/systemd/system/"
    rmdir "$out/systemd"

    # The check reads the files that settings name; on the host they are made at first start.
    mkdir check
    plexus generate-keys --output check/signing.key
    echo placeholder > check/secret
    for file in "$out/homeserver.yaml" "$out"/workers/*.yaml; do
      [ -e "$file" ] || continue
      sed -E -e "s|^signing_key_path: .*|signing_key_path: $PWD/check/signing.key|" \
        -e "/^(signing_key|media_store)_path:/! s|^([a-z_]+_path): .*|\1: $PWD/check/secret|" \
        -e "s#^( *pass(file|word_path)): .*#\1: $PWD/check/secret#" "$file" > "check/$(basename "$file")"
    done
    plexus check-config -c check/homeserver.yaml -c "$out/live.yaml"
    for file in "$out"/workers/*.yaml; do
      [ -e "$file" ] || continue
      plexus check-config -c check/homeserver.yaml -c "check/$(basename "$file")" -c "$out/live.yaml"
    done
    ${lib.optionalString cfg.database.createLocally ''
      needed=$(sed -n 's/^max_connections = //p' "$out/postgresql.conf")
      if [ "$needed" -gt ${toString config.services.postgresql.settings.max_connections} ]; then
        echo "services.postgresql.settings.max_connections: the processes need $needed" >&2
        exit 1
      fi
    ''}
    ${lib.optionalString cfg.nginx.enable ''
      cat > check/nginx.conf <<EOF
      pid $PWD/check/nginx.pid;
      error_log stderr;
      events { }
      http {
        access_log off;
        client_body_temp_path $PWD/check/body;
        proxy_temp_path $PWD/check/proxy;
        fastcgi_temp_path $PWD/check/fastcgi;
        uwsgi_temp_path $PWD/check/uwsgi;
        scgi_temp_path $PWD/check/scgi;
        include $PWD/check/plexus.conf;
        server {
          listen 127.0.0.1:1;
          location / {
            include $PWD/check/location.conf;
          }
        }
      }
      EOF
      # The CA's certificates are on the hosts; nginx would read them now.
      for file in plexus location; do
        sed '/proxy_ssl_\(trusted_certificate\|verify\) /d' "$out/nginx/$file.conf" > "check/$file.conf"
      done
      ${lib.getExe config.services.nginx.package} -t -e stderr -c "$PWD/check/nginx.conf"
      # A pool is looked up when it is asked for; whether all of them exist, nginx doesn't say.
      sed -n 's/^upstream \(plexus_[a-z_]*\) {$/\1/p' check/plexus.conf | sort > check/pools
      grep -o ' plexus_[a-z_]*;$' check/plexus.conf | tr -d ' ;' | sort -u > check/named
      if [ ! -s check/named ] || [ -n "$(comm -13 check/pools check/named)" ]; then
        echo "routes lead to what is no pool of processes: $(comm -13 check/pools check/named)" >&2
        exit 1
      fi
    ''}
  '';

  # Registers users, admins too. A process' credentials lie there for root, decrypted, as long as it runs.
  register = pkgs.writeShellApplication {
    name = "plexus-register-user";
    text = ''
      for CREDENTIALS_DIRECTORY in /run/credentials/plexus-main.service /run/credentials/plexus-*[0-9].service; do
        if [ -r "$CREDENTIALS_DIRECTORY" ]; then
          export CREDENTIALS_DIRECTORY
          exec ${lib.getExe cfg.package} register-user --config ${rendered}/homeserver.yaml ${
            lib.concatMapStrings (
              name: ''--config "$CREDENTIALS_DIRECTORY"/${name} ''
            ) cfg.clusterFile.systemd.extra_files
          }"$@"
        fi
      done
      echo "plexus-register-user: needs root, and a process of Plexus that runs on this host" >&2
      exit 1
    '';
  };

  # Those of the processes follow from the proxy's, by role and number, and never meet each other.
  ports =
    lib.optional (spans || cfg.nginx.enable) {
      name = "nginx.port";
      value = cfg.nginx.port;
    }
    ++ lib.optional (cfg.metrics.scrape && !spans) {
      name = "metrics.port";
      value = cfg.metrics.port;
    }
    ++ lib.optionals spans [
      {
        name = "database.port";
        value = cfg.database.port;
      }
      {
        name = "redis.port";
        value = cfg.redis.port;
      }
    ];
  collisions = lib.concatMap (
    port:
    lib.optional (
      lib.length (lib.filter (other: other.value == port.value) ports) > 1
    ) "${port.name} (${toString port.value})"
    ++
      lib.optional (spans && port.value > cfg.nginx.port && port.value <= cfg.nginx.port + 410)
        "${port.name} (${toString port.value}, one of the processes': ${toString (cfg.nginx.port + 10)} to ${
          toString (cfg.nginx.port + 410)
        })"
  ) ports;
in
{
  config = lib.mkIf cfg.enable {
    services.plexus = {
      inherit rendered;
      clusterFile = described;
    };

    # What a reload reads again, at a path that stays.
    environment.etc."plexus/live.yaml".source = "${rendered}/live.yaml";
    environment.etc."plexus/log.config".source = "${rendered}/log.config";

    assertions = [
      {
        assertion = spans || cfg.redis.createLocally || cfg.redis.host != null;
        message = "services.plexus.redis.host must be set where services.plexus.redis.createLocally is false.";
      }
      {
        assertion = (spans || cfg.database.createLocally) -> cfg.database.host == "/run/postgresql";
        message = "services.plexus.database.host is not used where services.plexus.database.createLocally is true or cluster.hosts says where PostgreSQL is.";
      }
      {
        assertion = cfg.database.createLocally -> cfg.database.user == "plexus";
        message = "services.plexus.database.user must be plexus where services.plexus.database.createLocally is true: PostgreSQL knows the processes by their system user.";
      }
      {
        assertion = cfg.database.tls.mode != null -> !spans && !lib.hasPrefix "/" cfg.database.host;
        message = "services.plexus.database.tls.mode is not used: sockets have no TLS, and services.plexus.cluster.tls is for hosts of a cluster.";
      }
      {
        assertion = cfg.redis.tls.enable -> !spans && cfg.redis.host != null;
        message = "services.plexus.redis.tls.enable is not used: sockets have no TLS, and services.plexus.cluster.tls is for hosts of a cluster.";
      }
      {
        assertion = cfg.redis.username != null -> cfg.redis.passwordFile != null;
        message = "services.plexus.redis.username needs services.plexus.redis.passwordFile.";
      }
      {
        assertion =
          !spans
          || lib.length (lib.attrNames cfg.cluster.hosts) < 2
          || tls != null
          || cfg.cluster.privateNetwork;
        message = "services.plexus.cluster.tls must be set, or services.plexus.cluster.privateNetwork where nobody but the hosts is on the network between them: what goes from host to host would be readable.";
      }
      {
        assertion = tls != null -> spans && !cfg.cluster.privateNetwork;
        message = "services.plexus.cluster.tls is for services.plexus.cluster.hosts without services.plexus.cluster.privateNetwork.";
      }
      {
        assertion = collisions == [ ];
        message = "services.plexus: ports that are taken twice: ${lib.concatStringsSep ", " collisions}.";
      }
      {
        assertion = !(config.services.matrix-synapse.enable or false);
        message = "services.matrix-synapse and services.plexus cannot both be enabled on one host.";
      }
    ];

    users.users.plexus = {
      isSystemUser = true;
      group = "plexus";
      home = cfg.dataDir;
    };
    users.groups.plexus = { };

    environment.systemPackages = [
      cfg.package
      register
    ];

    systemd.packages = [ rendered ];
    systemd.targets.plexus.wantedBy = [ "multi-user.target" ];

    systemd.tmpfiles.rules = [
      # nginx, of the group plexus, passes through to the sockets in run, and reads nothing else.
      "d ${cfg.dataDir} 0710 plexus plexus -"
      "d ${cfg.dataDir}/run 0710 plexus plexus -"
      "d ${cfg.dataDir}/media 0700 plexus plexus -"
    ];
  };
}
