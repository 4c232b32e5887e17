# PostgreSQL on the same host: peer authentication, and the C collation the schema needs.
{ config, lib, ... }:

let
  cfg = config.services.plexus;
in
{
  config = lib.mkIf (cfg.enable && cfg.database.createLocally) {
    services.postgresql = {
      enable = true;
      ensureUsers = [ { name = "plexus"; } ];
    };

    # ensureDatabases cannot set a collation.
    systemd.services.plexus-database = {
      description = "Database of Plexus";
      requiredBy = [
        "plexus.target"
        "plexus-main.service"
      ];
      before = [
        "plexus.target"
        "plexus-main.service"
      ];
      after = [ "postgresql.target" ];
      requires = [ "postgresql.target" ];
      path = [ config.services.postgresql.package ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "postgres";
      };
      script = ''
        if [ -z "$(psql -tAc "SELECT 1 FROM pg_database WHERE datname = 'plexus'")" ]; then
          psql -v ON_ERROR_STOP=1 -c "CREATE DATABASE plexus OWNER plexus ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        fi
      '';
    };
  };
}
