# Redis on the same host, on a unix socket that only the processes may use.
{ config, lib, ... }:

let
  cfg = config.services.plexus;
in
{
  config = lib.mkIf (cfg.enable && cfg.redis.createLocally) {
    services.redis.servers.plexus = {
      enable = true;
      user = "plexus";
      port = lib.mkDefault 0;
      # Nothing in it outlives the processes.
      save = [ ];
    };
    systemd.services.redis-plexus.before = [ "plexus-schema.service" ];
  };
}
