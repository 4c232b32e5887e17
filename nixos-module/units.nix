# Renders the configuration, installs the units it contains, makes secrets at first start.
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
  counts = lib.mapAttrs (_: worker: worker.count);

  # Names of settings whose value would be a secret in the Nix store.
  secretNames = lib.filter (
    name: lib.hasSuffix "_secret" name || lib.hasSuffix "_secret_key" name || name == "form_secret" || lib.hasSuffix "password" name
  ) (lib.attrNames cfg.settings);

  cluster = toml.generate "cluster.toml" (
    {
      server_name = cfg.serverName;
      bind_address = cfg.nginx.address;
      base_port = cfg.nginx.port;
      inherit (cfg) settings;
      data_dir = toString cfg.dataDir;
      enable_registration = cfg.enableRegistration;
      database = {
        user = "plexus";
        name = "plexus";
      }
      // lib.optionalAttrs (!spans) { inherit (cfg.database) host; }
      // lib.optionalAttrs (cfg.database.passFile != null) { passfile = toString cfg.database.passFile; };
      redis =
        (
          if spans then
            { }
          else if cfg.redis.createLocally then
            { path = config.services.redis.servers.plexus.unixSocket; }
          else
            { inherit (cfg.redis) host; }
        )
        // lib.optionalAttrs (cfg.redis.passwordFile != null) { password_path = toString cfg.redis.passwordFile; };
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
        }
      else
        {
          inherit (cfg) preset;
          workers = counts cfg.workers;
          unix_sockets = true;
        }
    )
    // lib.optionalAttrs (cfg.metrics.scrape && !spans) { nginx.metrics_port = cfg.metrics.port; }
    // lib.optionalAttrs (cfg.publicBaseUrl != null) { public_baseurl = cfg.publicBaseUrl; }
  );

  # Unit files are put where systemd.packages looks for them. A configuration that the program or nginx
  # would refuse fails this build, so it never gets as far as a switch.
  rendered = pkgs.runCommand "plexus-cluster" { nativeBuildInputs = [ cfg.package ]; } ''
    plexus cluster render --file ${cluster} --out "$out" --program ${lib.getExe cfg.package}${
      lib.optionalString spans " --host ${config.networking.hostName}"
    }
    mkdir -p "$out/lib/systemd/system"
    mv "$out"/systemd/* "$out/lib/systemd/system/"
    rmdir "$out/systemd"
    # A switch restarts a changed process in one go rather than stopping all of them first.
    sed -i '/^\[Service\]/a X-StopIfChanged=false' "$out"/lib/systemd/system/*.service
    # On a host without the main process nothing else makes them wait for the secrets.
    sed -i '/^\[Unit\]/a Wants=plexus-secrets.service\nAfter=plexus-secrets.service' "$out"/lib/systemd/system/*.service

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
    plexus check-config -c check/homeserver.yaml
    for file in "$out"/workers/*.yaml; do
      [ -e "$file" ] || continue
      plexus check-config -c check/homeserver.yaml -c "check/$(basename "$file")"
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
        include $out/nginx/plexus.conf;
      }
      EOF
      ${lib.getExe config.services.nginx.package} -t -e stderr -c "$PWD/check/nginx.conf"
    ''}
  '';
in
{
  config = lib.mkIf cfg.enable {
    services.plexus.rendered = rendered;

    assertions = [
      {
        assertion = secretNames == [ ];
        message = "services.plexus.settings: ${lib.concatStringsSep ", " secretNames} would be readable by everybody in the Nix store; use the key with _path and a file.";
      }
      {
        assertion = spans || cfg.redis.createLocally || cfg.redis.host != null;
        message = "services.plexus.redis.host must be set where services.plexus.redis.createLocally is false.";
      }
      {
        assertion = (spans || cfg.database.createLocally) -> cfg.database.host == "/run/postgresql";
        message = "services.plexus.database.host is not used where services.plexus.database.createLocally is true or cluster.hosts says where PostgreSQL is.";
      }
      {
        assertion = !(lib.hasPrefix builtins.storeDir (toString cfg.database.passFile));
        message = "services.plexus.database.passFile: a password in the Nix store is readable by everybody.";
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
      # Registers users, admins too, as the service does: it reads the shared secret and asks the main process.
      (pkgs.writeShellScriptBin "plexus-register-user" ''
        exec ${pkgs.util-linux}/bin/runuser -u plexus -- ${lib.getExe cfg.package} register-user --config ${rendered}/homeserver.yaml "$@"
      '')
    ];

    systemd.packages = [ rendered ];
    systemd.targets.plexus.wantedBy = [ "multi-user.target" ];

    systemd.tmpfiles.rules = [
      # nginx, of the group plexus, passes through to the sockets in run, and reads nothing else.
      "d ${cfg.dataDir} 0710 plexus plexus -"
      "d ${cfg.dataDir}/run 0710 plexus plexus -"
      "d ${cfg.dataDir}/media 0700 plexus plexus -"
      "d ${cfg.dataDir}/secrets 0700 plexus plexus -"
    ];

    systemd.services.plexus-secrets = {
      description = "Secrets of Plexus, made where they are missing";
      # Workers start after main.
      requiredBy = [
        "plexus.target"
        "plexus-main.service"
      ];
      before = [
        "plexus.target"
        "plexus-main.service"
      ];
      after = [ "systemd-tmpfiles-setup.service" ];
      path = [ cfg.package ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "plexus";
        UMask = "0077";
      };
      script = ''
        cd ${lib.escapeShellArg "${cfg.dataDir}/secrets"}
        for name in replication registration macaroon form; do
          if [ ! -s "$name" ]; then
            head -c 32 /dev/urandom | base64 -w 0 > "$name.new"
            mv "$name.new" "$name"
          fi
        done
        if [ ! -s signing.key ]; then
          plexus generate-keys --output signing.key.new
          mv signing.key.new signing.key
        fi
      '';
    };
  };
}
