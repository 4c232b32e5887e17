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
  counts = lib.mapAttrs (_: worker: worker.count);

  described =
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
      // lib.optionalAttrs (!spans) { inherit (cfg.database) host; };
      redis =
        if spans then
          { }
        else if cfg.redis.createLocally then
          { path = config.services.redis.servers.plexus.unixSocket; }
        else
          { inherit (cfg.redis) host; };
      log_level = cfg.logLevel;
      resources = lib.filterAttrs (_: use: use != { }) (
        lib.mapAttrs (
          _: use:
          lib.filterAttrs (_: value: value != null) {
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
    plexus cluster render --file ${cluster} --out "$out" --program ${lib.getExe cfg.package}${
      lib.optionalString spans " --host ${config.networking.hostName}"
    }
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
        include $out/nginx/plexus.conf;
      }
      EOF
      ${lib.getExe config.services.nginx.package} -t -e stderr -c "$PWD/check/nginx.conf"
    ''}
  '';

  # Links to where the secrets are, under the names that the processes see them by.
  credentials = pkgs.runCommand "plexus-credentials" { } (
    "mkdir $out\n"
    + lib.concatStrings (
      lib.mapAttrsToList (
        name: file: "ln -s ${lib.escapeShellArg file} $out/${name}\n"
      ) cfg.clusterFile.systemd.credentials
    )
  );
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
      # Registers users, admins too, for root: it reads the shared secret where the service's credentials come from.
      (pkgs.writeShellScriptBin "plexus-register-user" ''
        export CREDENTIALS_DIRECTORY=${credentials}
        exec ${lib.getExe cfg.package} register-user --config ${rendered}/homeserver.yaml "$@"
      '')
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
