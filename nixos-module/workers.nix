# The option of processes by role; the program says which roles there are.
lib: description:

let
  inherit (lib) mkOption types;
in
# `workers.sync = 2` says the same as `workers.sync.count = 2`.
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
}
