# The page of options, from the options themselves. Printed text is Markdown.
{ lib, pkgs }:

let
  evaluated = lib.evalModules {
    modules = [
      ./options.nix
      ./from-synapse
      {
        # Of the latter only the options are looked at.
        _module.check = false;
      }
      { _module.args = { inherit pkgs; }; }
    ];
  };
  options = lib.filter (o: o.visible && !o.internal) (
    lib.optionAttrSetToDocList evaluated.options.services.plexus
  );
  plain = lib.replaceStrings [ "{option}`" "{file}`" ] [ "`" "`" ];
  value =
    v:
    "`${
      lib.replaceStrings [ "\n" ] [ " " ] (v.text or (lib.generators.toPretty { multiline = false; } v))
    }`";
  entry =
    o:
    "### `${o.name}`\n\n${
      plain (lib.trim (o.description.text or o.description))
    }\n\n- type: ${o.type}\n"
    + lib.optionalString (o ? default) "- default: ${value o.default}\n"
    + lib.optionalString (o ? example) "- example: ${value o.example}\n";
in
{
  inherit options;
  text =
    builtins.readFile ./introduction.md
    + "\n## Options\n\n"
    + lib.concatStringsSep "\n" (map entry options);
}
