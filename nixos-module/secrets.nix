# Secrets: none is in the Nix store, none is readable by anybody but root and the processes.
{
  config,
  lib,
  ...
}:

let
  cfg = config.services.plexus;
  inherit (cfg.cluster) tls;
  folder = "${cfg.dataDir}/secrets";

  # Settings that Plexus cannot do without, and the file that the first start makes for each.
  needed = {
    signing_key_path = "signing.key";
    worker_replication_secret_path = "replication";
    registration_shared_secret_path = "registration";
    macaroon_secret_key_path = "macaroon";
    form_secret_path = "form";
  };
  files = lib.removeAttrs (lib.mapAttrs (_: file: "${folder}/${file}") needed // cfg.secrets.files) (
    lib.attrNames cfg.secrets.encrypted
  );
  credential = lib.removeSuffix "_path";
  credentials = lib.mapAttrs' (key: file: lib.nameValuePair (credential key) (toString file));
  extra = lib.imap0 (index: file: {
    name = "settings-${toString index}.yaml";
    value = toString file;
  }) cfg.secrets.settingsFiles;

  # Where a value in `settings` would be a secret, down to the leaves: email.smtp_pass, oidc_providers.0.client_secret.
  looksSecret =
    name:
    lib.any (end: lib.hasSuffix end name) [
      "secret"
      "secret_key"
      "private_key"
      "password"
      "passwd"
      "_pass"
      "pepper"
      "_token"
    ];
  literals =
    path: name: value:
    if lib.isAttrs value then
      lib.concatLists (lib.mapAttrsToList (n: literals (path ++ [ n ]) n) value)
    else if lib.isList value then
      lib.concatLists (lib.imap0 (i: literals (path ++ [ (toString i) ]) name) value)
    else
      lib.optional (lib.isString value && value != "" && looksSecret name) (
        lib.concatStringsSep "." path
      );
  secretNames = literals [ ] "" cfg.settings;

  given =
    lib.attrValues cfg.secrets.files
    ++ lib.attrValues cfg.secrets.encrypted
    ++ cfg.secrets.settingsFiles
    ++ lib.filter (file: file != null) [
      cfg.database.passFile
      cfg.redis.passwordFile
      (if tls == null then null else tls.keyFile)
    ];
  inStore = lib.filter (lib.hasPrefix builtins.storeDir) (map toString given);
  misnamed = lib.filter (key: !(lib.hasSuffix "_path" key)) (
    lib.attrNames (cfg.secrets.files // cfg.secrets.encrypted)
  );
  generated = lib.removeAttrs needed (lib.attrNames (cfg.secrets.files // cfg.secrets.encrypted));
  random = lib.removeAttrs generated [ "signing_key_path" ];
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = secretNames == [ ];
        message = "services.plexus.settings: ${lib.concatStringsSep ", " secretNames} would be readable by everybody in the Nix store; use services.plexus.secrets.files or secrets.settingsFiles.";
      }
      {
        assertion = inStore == [ ];
        message = "services.plexus.secrets, database.passFile, redis.passwordFile, cluster.tls.keyFile: ${lib.concatStringsSep ", " inStore} in the Nix store is readable by everybody.";
      }
      {
        assertion = misnamed == [ ];
        message = "services.plexus.secrets: ${lib.concatStringsSep ", " misnamed}: the name of a setting that takes a file ends in _path.";
      }
    ];

    services.plexus.clusterFile = {
      settings = lib.mapAttrs (key: _: lib.mkDefault "$CREDENTIALS_DIRECTORY/${credential key}") (
        files // cfg.secrets.encrypted
      );
      systemd = {
        credentials =
          credentials files
          // lib.listToAttrs extra
          // lib.optionalAttrs (cfg.database.passFile != null) { pgpass = toString cfg.database.passFile; }
          // lib.optionalAttrs (cfg.redis.passwordFile != null) {
            redis_password = toString cfg.redis.passwordFile;
          }
          // lib.optionalAttrs (tls != null) {
            tls_certificate = "${tls.certificateFile}";
            tls_key = toString tls.keyFile;
          };
        encrypted_credentials = credentials cfg.secrets.encrypted;
        extra_files = map (file: file.name) extra;
      };
      database = lib.mkIf (cfg.database.passFile != null) { passfile = "$CREDENTIALS_DIRECTORY/pgpass"; };
      redis = lib.mkIf (cfg.redis.passwordFile != null) {
        password_path = "$CREDENTIALS_DIRECTORY/redis_password";
      };
    };

    systemd.tmpfiles.rules = [ "d ${folder} 0700 plexus plexus -" ];

    systemd.services.plexus-secrets = lib.mkIf cfg.secrets.generate {
      description = "Secrets of Plexus, made where they are missing";
      requiredBy = [ "plexus-schema.service" ];
      before = [ "plexus-schema.service" ];
      after = [ "systemd-tmpfiles-setup.service" ];
      path = [ cfg.package ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "plexus";
        UMask = "0077";
      };
      script = ''
        cd ${lib.escapeShellArg folder}
        for name in ${lib.escapeShellArgs (lib.attrValues random)}; do
          if [ ! -s "$name" ]; then
            head -c 32 /dev/urandom | base64 -w 0 > "$name.new"
            mv "$name.new" "$name"
          fi
        done
      ''
      + lib.optionalString (generated ? signing_key_path) ''
        if [ ! -s signing.key ]; then
          plexus generate-keys --output signing.key.new
          mv signing.key.new signing.key
        fi
      '';
    };
  };
}
