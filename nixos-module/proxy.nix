# nginx with the route table the program printed: on a plain HTTP listener, and in a virtual host if one is named.
{ config, lib, ... }:

let
  cfg = config.services.plexus;
  inherit (cfg.nginx) virtualHost wellKnown;
  publicUrl =
    if cfg.publicBaseUrl == null then
      null
    else
      builtins.match "https://([^/:]+)(:[0-9]+)?/?.*" cfg.publicBaseUrl;
  publicHost = lib.elemAt publicUrl 0;
  publicPort = lib.elemAt publicUrl 1;
  answer = value: ''
    default_type application/json;
    return 200 '${builtins.toJSON value}';
  '';
in
{
  config = lib.mkIf (cfg.enable && cfg.nginx.enable) {
    services.nginx = {
      enable = true;
      # A restart would break off what is under way; plexus-rolling also asks for the reload when it needs it.
      enableReload = lib.mkDefault true;
      appendHttpConfig = "include ${cfg.rendered}/nginx/plexus.conf;";
      # The variable names a pool; the maps that set it are in the included file.
      virtualHosts = lib.mkMerge [
        (lib.optionalAttrs (virtualHost != null) {
          ${virtualHost}.locations."~ ^/(_matrix|_synapse/client|\\.well-known/matrix)(/|$)".extraConfig =
            "include ${cfg.rendered}/nginx/location.conf;";
        })
        (lib.optionalAttrs (wellKnown != null) {
          ${wellKnown}.locations = {
            "= /.well-known/matrix/server".extraConfig = answer {
              "m.server" = "${publicHost}${if publicPort == null then ":443" else publicPort}";
            };
            "= /.well-known/matrix/client".extraConfig = ''
              add_header Access-Control-Allow-Origin * always;
            ''
            + answer { "m.homeserver".base_url = cfg.publicBaseUrl; };
          };
        })
      ];
    };
    assertions = [
      {
        assertion = wellKnown != null -> publicUrl != null;
        message = "services.plexus.nginx.wellKnown needs services.plexus.publicBaseUrl, with https://: it is what others are told.";
      }
    ];
    users.users.${config.services.nginx.user}.extraGroups = [ "plexus" ];
    networking.firewall.allowedTCPPorts = lib.optional cfg.nginx.openFirewall cfg.nginx.port;
  };
}
