# Two kinds of options that there are many of.
lib:

let
  inherit (lib) mkOption types;
in
{
  # Yes or no.
  flag =
    default: description:
    mkOption {
      type = types.bool;
      example = !default;
      inherit default description;
    };

  # What need not be said.
  maybe =
    type: example: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit example description;
    };
}
