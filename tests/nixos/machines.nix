# The machines of the tests. A test imports one and says what else there is to it.
self: lib:
let
  # Plexus as all of them have it. Tests speak faster than people do.
  common =
    { lib, ... }:
    let
      fast = {
        per_second = 1000;
        burst_count = lib.mkDefault 1000;
      };
    in
    {
      imports = [ self.nixosModules.default ];
      services.plexus = {
        enable = true;
        serverName = lib.mkDefault "example.org";
        enableRegistration = true;
        settings.rc_message = fast;
        settings.rc_registration = fast;
        # What a sync leaves out is then a mistake.
        settings.filter_timeline_limit = -1;
        nginx.address = "0.0.0.0";
        nginx.openFirewall = true;
      };
    };

  # Where users are: Load of client.py runs there.
  client =
    { pkgs, ... }:
    {
      environment.systemPackages = [ pkgs.python3 ];
      environment.etc."load.py".source = ./load.py;
    };

  # `one` has PostgreSQL, Redis, nginx, the main process and an events writer, the other two answer clients. Of the two
  # firewalls of NixOS, `one` has iptables'.
  host =
    { nodes, config, ... }:
    {
      imports = [ common ];
      networking.nftables.enable = config.networking.hostName != "one";
      environment.etc."plexus-cluster-secret" = {
        text = "only for this test: what stands in the store is no secret";
        mode = "0400";
      };
      services.plexus = {
        metrics.scrape = true;
        cluster.secretFile = "/etc/plexus-cluster-secret";
        # Plaintext between the three; tls.nix is what two hosts say through TLS.
        cluster.privateNetwork = true;
        cluster.hosts = {
          one = {
            address = nodes.one.networking.primaryIPAddress;
            main = true;
            database = true;
            redis = true;
            proxy = true;
            workers.events.count = 1;
          };
          two = {
            address = nodes.two.networking.primaryIPAddress;
            workers.sync.count = 1;
            workers.client.count = 1;
          };
          three = {
            address = nodes.three.networking.primaryIPAddress;
            workers.sync.count = 1;
            workers.client.count = 1;
          };
        };
      };
    };
in
{
  inherit client;

  # A host with everything on it; `preset` says how many processes.
  server = common;

  # Such a host with the processes MEDIUM of client.py, and users on another.
  medium = {
    server = {
      imports = [ common ];
      services.plexus.preset = "medium";
    };
    inherit client;
  };

  # Three hosts of one cluster, with the processes THREE of client.py, and a machine that doesn't belong to it.
  three = lib.genAttrs [ "one" "two" "three" ] (_: host) // {
    outside = client;
  };
}
