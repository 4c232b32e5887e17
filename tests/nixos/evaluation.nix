# Tests without a machine: what the module refuses, and that each preset renders and is accepted by the program.
{
  self,
  nixpkgs,
  pkgs,
}:

let
  inherit (nixpkgs) lib;
  inherit (pkgs.stdenv.hostPlatform) system;

  host =
    settings:
    (lib.nixosSystem {
      inherit system;
      modules = [
        self.nixosModules.default
        {
          boot.isContainer = true;
          system.stateVersion = "26.05";
          services.plexus = {
            enable = true;
            serverName = "example.org";
          };
        }
        settings
      ];
    }).config;

  failures = settings: map (a: a.message) (lib.filter (a: !a.assertion) (host settings).assertions);

  # Each assertion of the module, by words of its message, with a configuration that breaks it.
  refused = {
    "registration_shared_secret" = {
      services.plexus.settings.registration_shared_secret = "x";
    };
    "form_secret" = {
      services.plexus.settings.form_secret = "x";
    };
    "services.plexus.redis.host must be set" = {
      services.plexus.redis.createLocally = false;
    };
    "services.plexus.database.host" = {
      services.plexus.database.host = "db.example.org";
    };
    "services.plexus.database.passFile" = {
      services.plexus.database.createLocally = false;
      services.plexus.database.passFile = "${builtins.storeDir}/0-pass";
    };
    "services.matrix-synapse and services.plexus" = {
      services.matrix-synapse.enable = true;
    };
  };

  notRefused = lib.filterAttrs (words: settings: !lib.any (lib.hasInfix words) (failures settings)) refused;
  ours = lib.filter (lib.hasInfix "services.plexus") (failures { });

  presets = lib.genAttrs [ "single" "small" "medium" "large" ] (preset: (host { services.plexus.preset = preset; }).services.plexus.rendered);
  units = {
    single = "main";
    small = "events1 main sync1";
    medium = "client1 events1 events2 federation1 main streams1 sync1 sync2";
    large = "background1 client1 client2 client3 events1 events2 events3 events4 federation1 federation2 main media1 pusher1 pusher2 sender1 sender2 streams1 streams2 sync1 sync2 sync3 sync4";
  };

  undescribed = lib.filter (o: !(o ? description)) (import ../../nixos-module/doc.nix { inherit lib pkgs; }).options;
in
{
  assertions =
    lib.throwIf (notRefused != { }) "not refused: ${toString (lib.attrNames notRefused)}" lib.throwIf (ours != [ ])
      "a plain configuration is refused: ${toString ours}"
      lib.throwIf
      (undescribed != [ ])
      "options without description: ${toString (map (o: o.name) undescribed)}"
      pkgs.runCommand
      "plexus-assertions"
      { }
      "touch $out";

  # Units are well-formed and confined: 3.0 of 10 is the most systemd may find exposed.
  units = pkgs.runCommand "plexus-units" { nativeBuildInputs = [ pkgs.systemd ]; } ''
    cd ${presets.large}/lib/systemd/system
    set -o pipefail
    for unit in *.service; do
      systemd-analyze security --offline=yes --no-pager --threshold=30 "./$unit" | tail -n 1
    done
    touch $out
  '';

  # Building them runs check-config and nginx -t on what was rendered.
  rendered = pkgs.runCommand "plexus-rendered" { } (
    lib.concatStrings (
      lib.mapAttrsToList (preset: dir: ''
        found=$(cd ${dir}/lib/systemd/system && ls plexus-*.service | sed 's/^plexus-//; s/\.service$//' | LC_ALL=C sort | tr '\n' ' ')
        if [ "$found" != "${units.${preset}} " ]; then
          echo "preset ${preset}: units are: $found"
          exit 1
        fi
      '') presets
    )
    + "touch $out"
  );
}
