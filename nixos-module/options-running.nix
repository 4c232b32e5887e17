# How the processes run: what they may use, what they log, which secrets they are given.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  inherit (import ./option.nix lib) flag maybe;
  limit = maybe (types.strMatching "[0-9]{1,18}[KMGT%]?");
in
{
  options.services.plexus = {
    logLevel = mkOption {
      type = types.enum [
        "DEBUG"
        "INFO"
        "WARNING"
        "ERROR"
        "CRITICAL"
      ];
      default = "INFO";
      example = "WARNING";
      description = "What is logged. A change is taken over without a restart, as are the `rc_*` limits of {option}`services.plexus.settings`.";
    };

    resources = mkOption {
      default = { };
      example = {
        main.pool = 12;
        sync = {
          memoryHigh = "2G";
          cpuWeight = 200;
        };
      };
      description = "What each process of a role may use; `main` is the main process. All processes are in {file}`plexus.slice`.";
      type = types.attrsOf (
        types.submodule {
          options = {
            pool =
              maybe (types.ints.between 2 1000) 12
                "Connections to PostgreSQL; 12 for writers of events and 8 for others if null.";
            memoryHigh = limit "1G" "Memory above which systemd slows the process down.";
            memoryMax = limit "2G" "Memory above which the process is killed and started again.";
            cpuWeight =
              maybe (types.ints.between 1 10000) 200
                "Share of the processors beside others; 100 if null.";
          };
        }
      );
    };

    secrets.generate = flag true ''
      Whether the first start makes the signing key and the secrets that are missing, in the folder {file}`secrets` of
      {option}`services.plexus.dataDir`, readable by the service alone.
    '';

    secrets.files = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = {
        signing_key_path = "/run/keys/signing.key";
        turn_shared_secret_path = "/run/keys/turn";
      };
      description = ''
        Files for settings whose name ends in `_path`. systemd reads them as root and gives them to the processes
        (`LoadCredential`), so they may belong to root alone. Those that Plexus cannot do without are in
        {file}`secrets` below {option}`services.plexus.dataDir` if nothing else is said. After a file has
        changed, `systemctl restart plexus-rolling` gives it to the processes, one after the other.
      '';
    };

    secrets.encrypted = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = {
        macaroon_secret_key_path = "/etc/credstore.encrypted/macaroon";
      };
      description = "The same for files encrypted by `systemd-creds encrypt`, under the setting's name without `_path`.";
    };

    secrets.settingsFiles = mkOption {
      type = types.listOf types.path;
      default = [ ];
      example = [ "/run/keys/email.yaml" ];
      description = "Files in the format of homeserver.yaml for secrets that can only be written into the settings; read last.";
    };
  };
}
