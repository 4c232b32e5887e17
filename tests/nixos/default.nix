# The tests on machines, as checks of the flake. Each file says what it proves; machines.nix has what the machines are,
# client.py what the scripts are written with.
{ self, pkgs }:

let
  inherit (pkgs) lib;
  machines = import ./machines.nix self lib;
  test =
    name:
    let
      parts = import ./${name}.nix {
        inherit
          self
          pkgs
          lib
          machines
          ;
      };
    in
    pkgs.testers.runNixOSTest {
      name = "plexus-${name}";
      inherit (parts) nodes;
      testScript =
        context:
        builtins.readFile ./client.py
        + "\n\n"
        + (if lib.isFunction parts.testScript then parts.testScript context else parts.testScript);
    };
in
lib.genAttrs [
  "single"
  "workers"
  "crash"
  "partition"
  "redis-loss"
  "postgres-restart"
  "rolling-upgrade"
  "scale"
  "multi-host"
  "tls"
  "secrets"
  "migrate-from-synapse"
  "backup-restore"
  "federation"
] test
