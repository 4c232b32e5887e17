# An existing services.matrix-synapse is taken over: its units run Plexus on the same settings, workers, secrets,
# user, folder, sockets and database. Without fromSynapse.enable they run Synapse again; nothing is converted.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.plexus.fromSynapse;
  synapse = config.services.matrix-synapse;
  yaml = pkgs.formats.yaml { };

  withoutNull =
    value:
    if lib.isAttrs value then
      lib.mapAttrs (_: withoutNull) (lib.filterAttrs (_: v: v != null) value)
    else if lib.isList value then
      map withoutNull (lib.filter (v: v != null) value)
    else
      value;
  shared = yaml.generate "homeserver.yaml" (withoutNull synapse.settings);
  own =
    name: worker: yaml.generate "worker-${name}.yaml" (withoutNull worker // { worker_name = name; });

  command =
    verb: files:
    lib.concatStringsSep " " (
      [
        (lib.getExe cfg.package)
        verb
      ]
      ++ map (file: "--config-path ${file}") (files ++ synapse.extraConfigFiles)
      ++ [ "--keys-directory ${synapse.dataDir}" ]
    );
  runs = verb: files: {
    # Synapse's makes the signing key; the program does that itself.
    preStart = lib.mkForce "";
    serviceConfig.ExecStart = lib.mkForce (command verb files);
    serviceConfig.ExecStartPre = lib.mkForce [ ];
  };

  # What the program can't use fails the build, by the names of the settings. Files that are named are not there yet.
  checked = pkgs.runCommand "plexus-from-synapse" { nativeBuildInputs = [ cfg.package ]; } ''
    mkdir check workers
    plexus generate-keys --output check/signing.key
    echo placeholder > check/secret
    adapted() {
      sed -E -e "s#^( *\"?signing_key_path\"?): .*#\1: $PWD/check/signing.key#" \
        -e "/(signing_key|media_store)_path/! s#^( *\"?(passfile|[a-z_]+_path)\"?): .*#\1: $PWD/check/secret#" "$1"
    }
    adapted ${shared} > check/homeserver.yaml
    ${lib.concatStrings (
      lib.mapAttrsToList (
        name: worker: "adapted ${own name worker} > workers/${name}.yaml\n"
      ) synapse.workers
    )}
    plexus check-config -c check/homeserver.yaml ${
      lib.optionalString (synapse.workers != { }) "--worker workers"
    } > "$out"
  '';

  refused = {
    "settings.modules" = (synapse.settings.modules or [ ]) != [ ];
    "settings.password_providers" = (synapse.settings.password_providers or [ ]) != [ ];
    "plugins" = synapse.plugins != [ ];
    "settings.database.name" = (synapse.settings.database.name or "sqlite3") != "psycopg2";
  };
  reason = {
    "settings.modules" = "Python modules cannot be run";
    "settings.password_providers" = "Python modules cannot be run";
    "plugins" = "Python modules cannot be run";
    "settings.database.name" =
      "only psycopg2 (PostgreSQL) is supported; synapse_port_db moves an SQLite database over";
  };
in
{
  options.services.plexus.fromSynapse = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = ''
        Whether the units of {option}`services.matrix-synapse` run Plexus, on the same settings, workers,
        `extraConfigFiles`, user, folder and database. What it cannot honour is refused by name. Set it back and the
        same units run Synapse again.
      '';
    };
    package = lib.mkPackageOption pkgs "plexus" { };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = synapse.enable;
        message = "services.plexus.fromSynapse.enable takes over services.matrix-synapse, which is not enabled.";
      }
    ]
    ++ lib.mapAttrsToList (name: refused: {
      assertion = !refused;
      message = "services.plexus.fromSynapse: services.matrix-synapse.${name} cannot be honoured: ${reason.${name}}.";
    }) refused;

    system.checks = [ checked ];

    systemd.services = {
      matrix-synapse = runs "homeserver" [ shared ];
    }
    // lib.mapAttrs' (
      name: worker:
      lib.nameValuePair "matrix-synapse-worker-${name}" (
        runs "worker" [
          shared
          (own name worker)
        ]
      )
    ) synapse.workers;
  };
}
