# PostgreSQL on the same host: peer authentication, and the C collation the schema needs.
{ config, lib, ... }:

let
  cfg = config.services.plexus;

  # At most this many processes, by preset; plexus cluster roles says what they are.
  preset = {
    single = 1;
    small = 3;
    medium = 8;
    large = 22;
  };
  count = workers: lib.foldl' (sum: worker: sum + worker.count) 0 (lib.attrValues workers);
  processes =
    if cfg.cluster.hosts != { } then
      lib.foldl' (sum: host: sum + count host.workers) 1 (lib.attrValues cfg.cluster.hosts)
    else
      preset.${cfg.preset} + count cfg.workers;
  largestPool = lib.foldl' lib.max 12 (
    lib.filter (pool: pool != null) (
      [ cfg.database.pool ] ++ lib.mapAttrsToList (_: use: use.pool) cfg.resources
    )
  );
in
{
  config = lib.mkIf (cfg.enable && cfg.database.createLocally) {
    services.postgresql = {
      enable = true;
      ensureUsers = [ { name = "plexus"; } ];
      settings.port = cfg.database.port;
      # No process has a larger pool, and people need some. The build compares this with what was rendered. In steps,
      # since PostgreSQL restarts when it changes: a process more or less must not do that.
      settings.max_connections = lib.mkDefault (((20 + largestPool * processes + 199) / 200) * 200);
    };

    # ensureDatabases cannot set a collation.
    systemd.services.plexus-database = {
      description = "Database of Plexus";
      # Not by the processes: a restart of PostgreSQL would stop them.
      requiredBy = [ "plexus-schema.service" ];
      before = [ "plexus-schema.service" ];
      after = [ "postgresql.target" ];
      requires = [ "postgresql.target" ];
      path = [ config.services.postgresql.package ];
      environment.PGPORT = toString cfg.database.port;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "postgres";
      };
      script = ''
        if [ -z "$(psql -tAc "SELECT 1 FROM pg_database WHERE datname = '${cfg.database.name}'")" ]; then
          psql -v ON_ERROR_STOP=1 -c "CREATE DATABASE ${cfg.database.name} OWNER plexus ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        fi
      '';
    };
  };
}
