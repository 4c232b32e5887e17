# nginx with the route table the program printed: on a plain HTTP listener, and in a virtual host if one is named.
{ config, lib, ... }:

let
  cfg = config.services.plexus;
  inherit (cfg.nginx) virtualHost;
in
{
  config = lib.mkIf (cfg.enable && cfg.nginx.enable) {
    services.nginx = {
      enable = true;
      # A restart would break off what is under way; plexus-rolling also asks for the reload when it needs it.
      enableReload = lib.mkDefault true;
      appendHttpConfig = "include ${cfg.rendered}/nginx/plexus.conf;";
      # The variable names a pool; the maps that set it are in the included file.
      virtualHosts = lib.optionalAttrs (virtualHost != null) {
        ${virtualHost}.locations."~ ^/(_matrix|_synapse/client|\\.well-known/matrix)(/|$)".extraConfig = ''
          client_max_body_size 50M;
          proxy_pass http://$plexus_upstream;
          proxy_http_version 1.1;
          proxy_set_header Connection "";
          proxy_set_header Host $http_host;
          proxy_set_header X-Forwarded-For $remote_addr;
          proxy_set_header X-Forwarded-Proto $scheme;
          proxy_read_timeout 3600s;
          proxy_next_upstream error timeout;
        '';
      };
    };
    users.users.${config.services.nginx.user}.extraGroups = [ "plexus" ];
    networking.firewall.allowedTCPPorts = lib.optional cfg.nginx.openFirewall cfg.nginx.port;
  };
}
