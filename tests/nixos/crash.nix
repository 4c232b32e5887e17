# Processes, Redis, PostgreSQL and the machine are killed while users talk: all come back by themselves, and what was
# acknowledged is there.
self:
{ pkgs, ... }:

{
  name = "plexus-crash";

  nodes.server = {
    imports = [ self.nixosModules.default ];
    services.plexus = {
      enable = true;
      serverName = "example.org";
      preset = "medium";
      enableRegistration = true;
      settings.rc_message = {
        per_second = 1000;
        burst_count = 1000;
      };
      nginx.address = "0.0.0.0";
      nginx.openFirewall = true;
    };
  };
  nodes.client = {
    environment.systemPackages = [ pkgs.python3 ];
    environment.etc."load.py".source = ./load.py;
  };

  testScript =
    builtins.readFile ./client.py
    + ''

      PROCESSES = ["main", "client1", "events1", "events2", "federation1", "streams1", "sync1", "sync2"]
      VERSIONS = "curl -sf --max-time 5 http://server:8008/_matrix/client/versions"


      def up():
          for name in PROCESSES:
              server.wait_until_succeeds(f"systemctl is-active plexus-{name}.service", timeout=120)
          client.wait_until_succeeds(VERSIONS, timeout=60)


      start_all()
      up()
      alice, bob = Client(client, "http://server:8008"), Client(client, "http://server:8008")
      alice.register("alice")
      bob.register("bob")
      room = alice.create_room(preset="public_chat")
      bob.join(room)


      def pid(name):
          return server.succeed(f"systemctl show -p MainPID --value plexus-{name}").strip()


      def another(name, old):
          server.wait_until_succeeds(f"test $(systemctl show -p MainPID --value plexus-{name}) != {old}", timeout=60)
          server.wait_until_succeeds(f"systemctl is-active plexus-{name}.service", timeout=60)


      with subtest("each role is killed"):
          load = Load(client, room, alice, bob)
          client.sleep(2)
          for name in PROCESSES:
              old = pid(name)
              server.succeed(f"systemctl kill -s KILL plexus-{name}")
              another(name, old)
          client.sleep(3)
          state = load.finish()
          # At most what a killed process was just at.
          t.assertLessEqual(len(state["failed"]), 3 * len(PROCESSES))

      with subtest("a process that hangs is killed by the watchdog"):
          # The test has not half a minute for it.
          folder = "/run/systemd/system/plexus-sync1.service.d"
          server.succeed(f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=5\\n' > {folder}/short.conf")
          server.succeed("systemctl daemon-reload; systemctl restart plexus-sync1.service")
          old = pid("sync1")
          server.succeed("systemctl kill -s STOP plexus-sync1")
          another("sync1", old)
          t.assertIn("watchdog", server.succeed("journalctl -q -u plexus-sync1 | tail -n 40").lower())

      with subtest("Redis goes away"):
          before = [pid(name) for name in PROCESSES]
          load = Load(client, room, alice, bob)
          client.sleep(2)
          server.succeed("systemctl kill -s KILL redis-plexus.service")
          server.wait_until_succeeds("systemctl is-active redis-plexus.service", timeout=60)
          client.sleep(5)
          load.finish()
          t.assertEqual([pid(name) for name in PROCESSES], before)

      with subtest("PostgreSQL restarts"):
          load = Load(client, room, alice, bob)
          client.sleep(2)
          server.succeed("systemctl restart postgresql.service")
          server.wait_until_succeeds("systemctl is-active postgresql.service", timeout=60)
          client.sleep(5)
          load.finish()
          # The database being away is no reason to end.
          t.assertEqual([pid(name) for name in PROCESSES], before)

      with subtest("the machine crashes"):
          load = Load(client, room, alice, bob)
          client.sleep(3)
          server.crash()
          server.start()
          up()
          load.finish()
          bob.login("bob")
          alice.send(room, "after the crash")
          t.assertEqual(bob.texts(room)[-1], "after the crash")
    '';
}
