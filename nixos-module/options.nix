{ lib, pkgs, ... }:

let
  inherit (lib) mkOption types;
  inherit (import ./option.nix lib) flag maybe;
  toml = pkgs.formats.toml { };

  workersOf = import ./workers.nix lib;
in
{
  imports = [
    ./options-cluster.nix
    ./options-services.nix
    ./options-running.nix
  ];

  options.services.plexus = {
    enable = lib.mkEnableOption "Plexus, a Matrix homeserver that scales by worker processes";

    package = lib.mkPackageOption pkgs "plexus" { };

    serverName = mkOption {
      type = types.strMatching "[a-zA-Z0-9.:-]+";
      example = "example.org";
      description = "The part of user ids after the colon. It can never be changed.";
    };

    publicBaseUrl =
      maybe types.str "https://matrix.example.org/"
        "Where clients reach the server; `https://` and the server name if null.";

    preset = mkOption {
      type = types.enum [
        "single"
        "small"
        "medium"
        "large"
      ];
      default = "small";
      example = "medium";
      description = "How many processes there are, unless {option}`services.plexus.workers` says otherwise.";
    };

    workers = workersOf "Processes by role, over the preset; a plain number is a count. Roles the program does not know fail the build.";

    dataDir = mkOption {
      type = types.path;
      default = "/var/lib/plexus";
      example = "/srv/plexus";
      description = "Folder of media, keys, secrets and sockets.";
    };

    enableRegistration = flag false "Whether anybody may register.";

    settings = mkOption {
      inherit (toml) type;
      default = { };
      example = {
        max_upload_size = "100M";
      };
      description = ''
        Keys of homeserver.yaml, over what is rendered. They land in the Nix store: secrets belong into
        {option}`services.plexus.secrets.files`.
      '';
    };

    backup.enable = flag false ''
      Whether to make backups: the database, the signing key and other secrets, the media. `plexus-backup` makes one
      by hand, `plexus-restore` puts one back. With several hosts they are made where the main process is.
    '';

    backup.directory = mkOption {
      type = types.path;
      default = "/var/backup/plexus";
      example = "/mnt/backup/plexus";
      description = "Folder of the backups, one folder each, readable by the service alone.";
    };

    backup.startAt = mkOption {
      type = types.str;
      default = "daily";
      example = "*-*-* 03:00:00";
      description = "When backups are made, as in systemd.time(7).";
    };

    backup.keep = mkOption {
      type = types.ints.positive;
      default = 7;
      example = 30;
      description = "Number of backups that are kept.";
    };

    backup.media = flag true "Whether backups hold the media. Each holds all of them.";

    metrics.scrape = flag false ''
      Whether {option}`services.prometheus` on this host collects the metrics of all processes, each under its name as
      the label `instance`. They are read on {option}`services.plexus.metrics.port` through nginx, since the processes
      listen on unix sockets.
    '';

    metrics.port = mkOption {
      type = types.port;
      default = 9008;
      example = 9100;
      description = "Port, of this host only, where nginx serves the metrics of each process below `/<name of the process>`.";
    };

    clusterFile = mkOption {
      inherit (toml) type;
      default = { };
      internal = true;
      description = "What {file}`cluster.toml` says, from the options.";
    };

    rendered = mkOption {
      type = types.package;
      readOnly = true;
      example = lib.literalExpression "config.services.plexus.rendered";
      description = ''
        Folder with what `plexus cluster render` made of the options: {file}`homeserver.yaml`, {file}`workers`, units,
        {file}`nginx/plexus.conf` for inside `http { }` and {file}`nginx/location.conf` for inside a location of one's
        own virtual host.
      '';
    };
  };
}
