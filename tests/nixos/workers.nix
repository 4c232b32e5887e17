# A cluster of several processes behind nginx, asked from another machine: services below it go away and come
# back, the number of processes changes by a switch, and nothing that was acknowledged is lost.
self:
{ ... }:

let
  processes = "main client1 events1 events2 federation1 streams1 sync1 sync2";
in
{
  name = "plexus-workers";

  nodes.server = {
    imports = [ self.nixosModules.default ];
    services.plexus = {
      enable = true;
      serverName = "example.org";
      preset = "medium";
      enableRegistration = true;
      # The test speaks faster than people do.
      settings.rc_message = {
        per_second = 1000;
        burst_count = 1000;
      };
      nginx.address = "0.0.0.0";
      nginx.openFirewall = true;
    };
    specialisation.more.configuration.services.plexus.workers = {
      sync = 3;
      client = 0;
    };
  };
  nodes.client = { };

  testScript =
    builtins.readFile ./client.py
    + ''

      PROCESSES = "${processes}".split()
      VERSIONS = "curl -sf --max-time 5 http://server:8008/_matrix/client/versions"

      start_all()
      for name in PROCESSES:
          server.wait_for_unit(f"plexus-{name}.service")
      client.wait_until_succeeds(VERSIONS, timeout=60)

      alice, bob = Client(client, "http://server:8008"), Client(client, "http://server:8008")
      alice.register("alice")
      bob.register("bob")
      rooms = [alice.create_room(preset="public_chat") for _ in range(4)]
      said = {room: ["first"] for room in rooms}
      for room in rooms:
          bob.join(room)
          alice.send(room, "first")
      since = bob.sync()["next_batch"]


      def works(text):
          """Everybody hears what is said now, and what was said before is there."""
          for room in rooms:
              alice.send(room, text)
              said[room].append(text)
          for room in rooms:
              t.assertEqual(bob.texts(room), said[room])
          heard = bob.sync(since)["rooms"]["join"]
          for room in rooms:
              events = heard[room]["timeline"]["events"]
              t.assertEqual([e["content"]["body"] for e in events], said[room][1:][-len(events):])
              t.assertTrue(events)


      works("one cluster")

      with subtest("only nginx is on the network"):
          client.fail("nc -z -w 2 server 5432")
          client.fail("nc -z -w 2 server 6379")
          listening = server.succeed("ss -Hltn '! src 127.0.0.0/8' | awk '{print $4}'").split()
          t.assertEqual([where for where in listening if not where.startswith("[::1]")], ["0.0.0.0:8008"])

      with subtest("Redis goes away and comes back"):
          server.succeed("systemctl kill -s KILL redis-plexus.service")
          server.wait_until_succeeds("systemctl is-active redis-plexus.service", timeout=60)
          client.wait_until_succeeds(VERSIONS, timeout=60)
          client.sleep(3)
          works("after Redis")

      with subtest("PostgreSQL restarts"):
          server.succeed("systemctl restart postgresql.service")
          server.wait_until_succeeds("systemctl is-active postgresql.service", timeout=60)
          for name in PROCESSES:
              server.wait_until_succeeds(f"systemctl is-active plexus-{name}.service", timeout=90)
          client.wait_until_succeeds(VERSIONS, timeout=60)
          client.sleep(3)
          works("after PostgreSQL")

      with subtest("a switch changes the number of processes"):
          server.succeed("/run/current-system/specialisation/more/bin/switch-to-configuration test")
          # NixOS starts what active targets want; said again, the test doesn't rest on it.
          server.succeed("systemctl start plexus.target")
          for name in PROCESSES + ["sync3"]:
              if name != "client1":
                  server.wait_until_succeeds(f"systemctl is-active plexus-{name}.service", timeout=90)
          server.fail("systemctl is-active plexus-client1.service")
          client.wait_until_succeeds(VERSIONS, timeout=60)
          works("after the switch")
    '';
}
