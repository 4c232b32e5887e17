# More processes of a role, then none, while users talk: routes follow, nobody else restarts, no request fails.
self:
{ lib, pkgs, ... }:

{
  name = "plexus-scale";

  nodes.server = {
    imports = [ self.nixosModules.default ];
    services.plexus = {
      enable = true;
      serverName = "example.org";
      preset = "small";
      workers.sync = lib.mkDefault 1;
      enableRegistration = true;
      settings.rc_message = {
        per_second = 1000;
        burst_count = 1000;
      };
      nginx.address = "0.0.0.0";
      nginx.openFirewall = true;
    };
    specialisation.three.configuration.services.plexus.workers.sync = 3;
    specialisation.none.configuration.services.plexus.workers.sync = 0;
  };
  nodes.client = {
    environment.systemPackages = [ pkgs.python3 ];
    environment.etc."load.py".source = ./load.py;
  };

  testScript =
    builtins.readFile ./client.py
    + ''

      start_all()
      for name in ["main", "events1", "sync1"]:
          server.wait_for_unit(f"plexus-{name}.service")
      server.wait_for_unit("plexus-rolling.service")
      client.wait_until_succeeds("curl -sf --max-time 5 http://server:8008/_matrix/client/versions", timeout=60)
      base = server.succeed("readlink -f /run/current-system").strip()

      alice, bob = Client(client, "http://server:8008"), Client(client, "http://server:8008")
      alice.register("alice")
      bob.register("bob")
      room = alice.create_room(preset="public_chat")
      bob.join(room)


      def others():
          return [server.succeed(f"systemctl show -p MainPID --value plexus-{name}").strip() for name in ["main", "events1"]]


      def running():
          units = server.succeed("systemctl list-units --plain --no-legend --state=active 'plexus-sync*.service' 'plexus-sync*.socket'")
          return sorted(line.split()[0] for line in units.splitlines())


      def units(count):
          return sorted(f"plexus-sync{i + 1}.{kind}" for i in range(count) for kind in ["service", "socket"])


      load = Load(client, room, alice, bob)
      client.sleep(3)
      before = others()
      for name, count in [("three", 3), ("none", 0), ("", 1), ("none", 0), ("three", 3)]:
          with subtest(f"{count} processes of the role"):
              server.succeed(base + (f"/specialisation/{name}" if name else "") + "/bin/switch-to-configuration test")
              t.assertEqual(running(), units(count))
              t.assertEqual(others(), before)
              client.sleep(4)

      with subtest("no request failed and every message was heard"):
          state = load.finish()
          t.assertEqual(state["failed"], [])
    '';
}
