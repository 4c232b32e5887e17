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

  # Names of settings whose value would be a secret in the Nix store.
  secretNames = lib.filter (
    name: lib.hasSuffix "_secret" name || lib.hasSuffix "_secret_key" name || name == "form_secret" || lib.hasSuffix "password" name
  ) (lib.attrNames cfg.settings);

  cluster = toml.generate "cluster.toml" (
    {
      server_name = cfg.serverName;
      inherit (cfg) preset workers settings;
      data_dir = toString cfg.dataDir;
      unix_sockets = true;
      enable_registration = cfg.enableRegistration;
      database = {
        inherit (cfg.database) host;
        user = "plexus";
        name = "plexus";
      }
      // lib.optionalAttrs (cfg.database.passFile != null) { passfile = toString cfg.database.passFile; };
      redis =
        if cfg.redis.createLocally then
          { path = config.services.redis.servers.plexus.unixSocket; }
        else
          { inherit (cfg.redis) host; };
    }
    // lib.optionalAttrs (cfg.publicBaseUrl != null) { public_baseurl = cfg.publicBaseUrl; }
  );

  # Unit files are put where systemd.packages looks for them.
  rendered = pkgs.runCommand "plexus-cluster" { nativeBuildInputs = [ cfg.package ]; } ''
    plexus cluster render --file ${cluster} --out "$out" --program ${lib.getExe cfg.package}
    mkdir -p "$out/lib/systemd/system"
    mv "$out"/systemd/* "$out/lib/systemd/system/"
    rmdir "$out/systemd"
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
        assertion = cfg.redis.createLocally || cfg.redis.host != null;
        message = "services.plexus.redis.host must be set where services.plexus.redis.createLocally is false.";
      }
      {
        assertion = cfg.database.createLocally -> cfg.database.host == "/run/postgresql";
        message = "services.plexus.database.host is the local socket where services.plexus.database.createLocally is true.";
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

    environment.systemPackages = [ cfg.package ];

    systemd.packages = [ rendered ];
    systemd.targets.plexus.wantedBy = [ "multi-user.target" ];

    systemd.tmpfiles.rules = [
      "d ${cfg.dataDir} 0750 plexus plexus -"
      "d ${cfg.dataDir}/run 0750 plexus plexus -"
      "d ${cfg.dataDir}/media 0750 plexus plexus -"
      "d ${cfg.dataDir}/secrets 0700 plexus plexus -"
    ];

    systemd.services.plexus-secrets = {
      description = "Secrets of Plexus, made where they are missing";
      requiredBy = [ "plexus.target" ];
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
