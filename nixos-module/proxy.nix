# nginx with the route table the program printed.
{ config, lib, ... }:

let
  cfg = config.services.plexus;
in
{
  config = lib.mkIf (cfg.enable && cfg.nginx.enable) {
    services.nginx = {
      enable = true;
      recommendedProxySettings = lib.mkDefault false;
      appendHttpConfig = "include ${cfg.rendered}/nginx/plexus.conf;";
    };
    users.users.${config.services.nginx.user}.extraGroups = [ "plexus" ];
  };
}
