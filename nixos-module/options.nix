{ lib, pkgs, ... }:

let
  inherit (lib) mkOption types;
  toml = pkgs.formats.toml { };

  # `workers.sync = 2` says the same as `workers.sync.count = 2`.
  workersOf =
    description:
    mkOption {
      type = types.attrsOf (
        types.coercedTo types.ints.unsigned (count: { inherit count; }) (
          types.submodule {
            options.count = mkOption {
              type = types.ints.unsigned;
              example = 2;
              description = "Number of processes of the role.";
            };
          }
        )
      );
      default = { };
      example = {
        events.count = 2;
        sync.count = 2;
      };
      inherit description;
    };
  hostPart =
    description:
    mkOption {
      type = types.bool;
      default = false;
      example = true;
      inherit description;
    };
in
{
  imports = [ ./options-running.nix ];

  options.services.plexus = {
    enable = lib.mkEnableOption "Plexus, a Matrix homeserver that scales by worker processes";

    package = lib.mkPackageOption pkgs "plexus" { };

    serverName = mkOption {
      type = types.strMatching "[a-zA-Z0-9.:-]+";
      example = "example.org";
      description = "The part of user ids after the colon. It can never be changed.";
    };

    publicBaseUrl = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "https://matrix.example.org/";
      description = "Where clients reach the server; `https://` and the server name if null.";
    };

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

    cluster.hosts = mkOption {
      default = { };
      type = types.attrsOf (
        types.submodule {
          options = {
            address = mkOption {
              type = types.str;
              example = "10.0.0.2";
              description = "Address that the other hosts reach this one at. What goes between hosts is not encrypted: use a private network.";
            };
            main = hostPart "Whether the main process runs here. Exactly one host has it.";
            database = hostPart "Whether PostgreSQL runs here. Exactly one host has it.";
            redis = hostPart "Whether Redis runs here. Exactly one host has it.";
            proxy = hostPart "Whether nginx runs here. Any number of hosts may have it.";
            workers = workersOf "Processes by role on this host.";
          };
        }
      );
      example = {
        one = {
          address = "10.0.0.1";
          main = true;
          database = true;
          redis = true;
          proxy = true;
        };
        two = {
          address = "10.0.0.2";
          workers.sync.count = 2;
        };
      };
      description = ''
        Hosts of a cluster that spans several, by {option}`networking.hostName`. All hosts get the same value and each
        takes its part of it: processes, `instance_map`, PostgreSQL with its `pg_hba`, Redis with its password, nginx's
        upstreams, the firewall. It says what runs where in place of {option}`services.plexus.preset` and
        {option}`services.plexus.workers`.
      '';
    };

    cluster.secretFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/run/keys/plexus-cluster";
      description = ''
        File with a long random text, the same on all hosts of {option}`services.plexus.cluster.hosts`. The secrets they
        share are derived from it: replication, PostgreSQL, Redis, registration, macaroons, forms and, unless there is one
        already, the signing key.
      '';
    };

    dataDir = mkOption {
      type = types.path;
      default = "/var/lib/plexus";
      example = "/srv/plexus";
      description = "Folder of media, keys, secrets and sockets.";
    };

    enableRegistration = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether anybody may register.";
    };

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

    database.createLocally = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether to run PostgreSQL on this host, with a database of the collation Synapse's schema needs.";
    };

    database.host = mkOption {
      type = types.str;
      default = "/run/postgresql";
      example = "db.example.org";
      description = "Host of PostgreSQL, or folder of its socket.";
    };

    database.passFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/run/keys/pgpass";
      description = "Password file in libpq's format; it must not be in the Nix store.";
    };

    redis.createLocally = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether to run Redis on this host, on a unix socket.";
    };

    redis.host = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "redis.example.org";
      description = "Host of Redis where it is not local.";
    };

    redis.passwordFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/run/keys/redis";
      description = "File with the password of Redis; it must not be in the Nix store.";
    };

    nginx.enable = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether nginx sends each request to the process that is there for it.";
    };

    nginx.address = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "0.0.0.0";
      description = "Address of the plain HTTP listener.";
    };

    nginx.port = mkOption {
      type = types.port;
      default = 8008;
      example = 80;
      description = "Port of the plain HTTP listener.";
    };

    nginx.openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether the firewall lets others reach {option}`services.plexus.nginx.port`.";
    };

    nginx.virtualHost = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "matrix.example.org";
      description = ''
        Virtual host of {option}`services.nginx` that gets the paths of Matrix. Its certificate is set there:
        {option}`services.nginx.virtualHosts.<name>.enableACME` and `forceSSL`.
      '';
    };

    backup.enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether to make backups: the database, the signing key and other secrets, the media. `plexus-backup` makes one
        by hand, `plexus-restore` puts one back. With several hosts they are made where the main process is.
      '';
    };

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

    backup.media = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether backups hold the media. Each holds all of them.";
    };

    metrics.scrape = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether {option}`services.prometheus` on this host collects the metrics of all processes, each under its name as
        the label `instance`. They are read on {option}`services.plexus.metrics.port` through nginx, since the processes
        listen on unix sockets.
      '';
    };

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
      internal = true;
      description = "What `plexus cluster render` made of the options.";
    };
  };
}
