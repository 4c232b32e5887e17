# PostgreSQL, Redis and nginx: on this host or elsewhere.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  inherit (import ./option.nix lib) flag maybe;
in
{
  options.services.plexus = {
    database.createLocally = flag true "Whether to run PostgreSQL on this host, with a database of the collation Synapse's schema needs.";

    database.host = mkOption {
      type = types.str;
      default = "/run/postgresql";
      example = "db.example.org";
      description = "Host of PostgreSQL, or folder of its socket.";
    };

    database.port = mkOption {
      type = types.port;
      default = 5432;
      example = 5433;
      description = "Port of PostgreSQL, also of one on this host.";
    };

    database.user = mkOption {
      type = types.strMatching "[a-zA-Z_][a-zA-Z0-9_]{0,62}";
      default = "plexus";
      example = "synapse";
      description = "Role of PostgreSQL. One on this host knows the processes by their system user, `plexus`, and no other.";
    };

    database.name = mkOption {
      type = types.strMatching "[a-zA-Z_][a-zA-Z0-9_]{0,62}";
      default = "plexus";
      example = "synapse";
      description = "Database. It must have been made with the collation C where {option}`services.plexus.database.createLocally` is false.";
    };

    database.pool =
      maybe (types.ints.between 2 1000) 20
        "Connections of a process to PostgreSQL, unless {option}`services.plexus.resources` says otherwise; 12 for writers of events and 8 for others if null.";

    database.tls.mode =
      maybe
        (types.enum [
          "disable"
          "allow"
          "prefer"
          "require"
          "verify-ca"
          "verify-full"
        ])
        "verify-full"
        "libpq's `sslmode` towards a PostgreSQL elsewhere; `prefer` if null. Only `verify-ca` and `verify-full` make sure whom the password goes to. Unix sockets have none, hosts of a cluster have {option}`services.plexus.cluster.tls`.";

    database.tls.caFile =
      maybe types.path "/etc/postgresql-ca.pem"
        "CA certificates of a PostgreSQL elsewhere, PEM.";

    database.passFile =
      maybe types.path "/run/keys/pgpass"
        "Password file in libpq's format; it must not be in the Nix store.";

    redis.createLocally = flag true "Whether to run Redis on this host, on a unix socket.";

    redis.host = maybe types.str "redis.example.org" "Host of Redis where it is not local.";

    redis.port = mkOption {
      type = types.port;
      default = 6379;
      example = 6380;
      description = "Port of a Redis elsewhere, or of that of a cluster of several hosts.";
    };

    redis.username =
      maybe types.str "plexus"
        "ACL user of a Redis elsewhere; it needs {option}`services.plexus.redis.passwordFile`.";

    redis.tls.enable = flag false "Whether to speak TLS to a Redis elsewhere.";

    redis.tls.caFile =
      maybe types.path "/etc/redis-ca.pem"
        "CA certificates of that Redis, PEM; those of the operating system if null.";

    redis.passwordFile =
      maybe types.path "/run/keys/redis"
        "File with the password of Redis; it must not be in the Nix store.";

    nginx.enable = flag true "Whether nginx sends each request to the process that is there for it.";

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

    nginx.openFirewall = flag false "Whether the firewall lets others reach {option}`services.plexus.nginx.port`.";

    nginx.virtualHost = maybe types.str "matrix.example.org" ''
      Virtual host of {option}`services.nginx` that gets the paths of Matrix. Its certificate is set there:
      {option}`services.nginx.virtualHosts.<name>.enableACME` and `forceSSL`.
    '';

    nginx.wellKnown = maybe types.str "example.org" ''
      Virtual host of {option}`services.nginx`, that of the server name, which tells clients and other servers where the
      server is ({file}`/.well-known/matrix/client` and {file}`/.well-known/matrix/server`), where that is elsewhere:
      {option}`services.plexus.publicBaseUrl` must be set. With it no port 8448 is needed.
    '';
  };
}
