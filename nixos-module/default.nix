# services.plexus: a host becomes a cluster. Options in options.nix; everything the processes read is rendered
# by the program itself (`plexus cluster render`), so NixOS, ./dev and a plain systemd host share one renderer.
{
  imports = [
    ./options.nix
    ./units.nix
    ./secrets.nix
    ./cluster.nix
    ./backup.nix
    ./metrics.nix
    ./database.nix
    ./redis.nix
    ./proxy.nix
  ];
}
