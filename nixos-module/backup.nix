# Backups: a folder with the database, the secrets (the signing key above all), the media and their check sums.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.plexus;
  inherit (config.networking) hostName;
  # Of several hosts, the one with the main process makes them.
  isHere = cfg.cluster.hosts == { } || (cfg.cluster.hosts.${hostName}.main or false);

  tools = [
    (if config.services.postgresql.enable then config.services.postgresql.package else pkgs.postgresql)
    pkgs.coreutils
    pkgs.findutils
    pkgs.gnutar
    pkgs.util-linux
    config.systemd.package
  ];
  databaseHost = if cfg.cluster.hosts == { } then cfg.database.host else databaseOf.address;
  inherit (cfg.cluster) tls;
  mode = if tls != null then "verify-full" else cfg.database.tls.mode;
  ca = if tls != null then tls.caFile else cfg.database.tls.caFile;
  databaseOf = lib.findFirst (host: host.database) { address = ""; } (
    lib.attrValues cfg.cluster.hosts
  );
  environment = ''
    export PGHOST=${lib.escapeShellArg databaseHost} PGPORT=${toString cfg.database.port}
    export PGUSER=${cfg.database.user} PGDATABASE=${cfg.database.name}
    ${lib.optionalString (mode != null) "export PGSSLMODE=${mode}"}
    ${lib.optionalString (ca != null) "export PGSSLROOTCERT=${ca}"}
    ${lib.optionalString (
      cfg.database.passFile != null
    ) "export PGPASSFILE=${lib.escapeShellArg (toString cfg.database.passFile)}"}
    data=${lib.escapeShellArg (toString cfg.dataDir)}
  '';

  backup = pkgs.writeShellApplication {
    name = "plexus-backup";
    runtimeInputs = tools;
    text = environment + ''
      target=${lib.escapeShellArg (toString cfg.backup.directory)}
      umask 0077
      name=$(date -u +%Y-%m-%dT%H%M%SZ)
      part=$target/.$name.part
      rm -rf "$target"/.*.part
      mkdir "$part"
      # The database goes first: what it names is then among the media, and what came later does no harm.
      pg_dump --format=custom --no-owner --file="$part/database.dump"
      tar -C "$data" -cf "$part/secrets.tar" secrets
      ${lib.optionalString cfg.backup.media ''tar -C "$data" -cf "$part/media.tar" media''}
      (cd "$part" && sha256sum -- * > SHA256SUMS)
      sync "$part"/*
      mv "$part" "$target/$name"
      find "$target" -mindepth 1 -maxdepth 1 -type d -name '????-??-??T??????Z' | sort | head -n -${toString cfg.backup.keep} | xargs -r rm -rf
      echo "$target/$name"
    '';
  };

  restore = pkgs.writeShellApplication {
    name = "plexus-restore";
    runtimeInputs = tools;
    text = environment + ''
      usage() {
        echo "usage: plexus-restore [--verify] FOLDER" >&2
        echo "Checks a folder that plexus-backup made and puts its content in place of an empty server's." >&2
        exit 2
      }
      verify=
      if [ "''${1:-}" = --verify ]; then
        verify=1
        shift
      fi
      [ $# = 1 ] || usage
      from=$(realpath "$1")
      (cd "$from" && sha256sum --quiet -c SHA256SUMS)
      pg_restore --list "$from/database.dump" > /dev/null
      if [ -n "$verify" ]; then
        echo "$from is complete."
        exit
      fi
      if [ "$(id -u)" != 0 ]; then
        echo "plexus-restore: needs root, to write as the user plexus" >&2
        exit 1
      fi
      as() {
        runuser -u plexus -- "$@"
      }
      running() {
        systemctl list-units --plain --no-legend --state=active,reloading,activating,deactivating 'plexus-main.service' 'plexus-*[0-9].service' | grep -q .
      }
      # Whoever stops the target does not wait for its processes, which finish what they have begun.
      for _ in $(seq 60); do
        if systemctl --quiet is-active plexus.target || ! running; then
          break
        fi
        sleep 1
      done
      if running; then
        echo "plexus-restore: stop the server first: systemctl stop plexus.target" >&2
        exit 1
      fi
      # A server that has users is never written over.
      if [ -n "$(as psql -tAc "SELECT 1 FROM pg_tables WHERE schemaname = 'public' AND tablename = 'users'")" ] &&
        [ "$(as psql -tAc "SELECT count(*) FROM users")" != 0 ]; then
        echo "plexus-restore: the database has users; drop it first if they may go" >&2
        exit 1
      fi
      as psql -q -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' -c 'DROP SCHEMA public CASCADE' -c 'CREATE SCHEMA public'
      as pg_restore --exit-on-error --no-owner --dbname="$PGDATABASE" < "$from/database.dump"
      for part in secrets media; do
        [ -e "$from/$part.tar" ] || continue
        old=$data/$part.before-restore
        if [ -e "$data/$part" ]; then
          rm -rf "$old"
          mv "$data/$part" "$old"
        fi
        tar -C "$data" -xf "$from/$part.tar"
        chown -R plexus:plexus "$data/$part"
      done
      echo "Restored $from. Start the server: systemctl start plexus.target"
    '';
  };
in
{
  config = lib.mkIf (cfg.enable && isHere) {
    environment.systemPackages = [ restore ] ++ lib.optional cfg.backup.enable backup;

    systemd.tmpfiles.rules = lib.optional cfg.backup.enable "d ${cfg.backup.directory} 0700 plexus plexus -";

    systemd.services.plexus-backup = lib.mkIf cfg.backup.enable {
      description = "Backup of Plexus";
      after = [ "plexus-main.service" ];
      inherit (cfg.backup) startAt;
      serviceConfig = {
        Type = "oneshot";
        User = "plexus";
        ExecStart = "${lib.getExe backup}";
        # A backup that does not read back is none.
        ExecStartPost = "${pkgs.writeShellScript "plexus-backup-verify" ''
          exec ${lib.getExe restore} --verify "$(ls -d ${lib.escapeShellArg (toString cfg.backup.directory)}/????-* | tail -n 1)"
        ''}";
        Nice = 10;
        IOSchedulingClass = "idle";
        ProtectSystem = "strict";
        ReadWritePaths = [ cfg.backup.directory ];
        PrivateTmp = true;
        NoNewPrivileges = true;
        CapabilityBoundingSet = [ "" ];
      };
    };
    systemd.timers.plexus-backup = lib.mkIf cfg.backup.enable {
      timerConfig.Persistent = true;
      timerConfig.RandomizedDelaySec = "10m";
    };
  };
}
