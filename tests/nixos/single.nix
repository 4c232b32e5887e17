# One host: users register, talk, sync; restart and crash keep all; nobody else gets at secrets or sockets.
self:
{ lib, ... }:

{
  name = "plexus-single";

  nodes.server = {
    imports = [ self.nixosModules.default ];
    services.plexus = {
      enable = true;
      serverName = "example.org";
      preset = lib.mkDefault "small";
      enableRegistration = true;
    };
  };

  testScript =
    builtins.readFile ./client.py
    + ''

      server.start()
      server.wait_for_unit("plexus.target")
      for unit in ["plexus-main", "plexus-events1", "plexus-sync1", "redis-plexus", "nginx"]:
          server.wait_for_unit(unit + ".service")
      server.wait_for_open_port(8008)

      alice, bob = Client(server), Client(server)
      with subtest("two users talk"):
          alice.register("alice")
          bob.register("bob")
          room = alice.create_room(preset="public_chat")
          bob.join(room)
          since = bob.sync()["next_batch"]
          first = alice.send(room, "hello bob")
          events = bob.sync(since)["rooms"]["join"][room]["timeline"]["events"]
          t.assertEqual([e["event_id"] for e in events], [first])
          t.assertEqual(bob.texts(room), ["hello bob"])

      with subtest("the database has the collation of the schema"):
          row = server.succeed("runuser -u postgres -- psql -tAc \"SELECT datcollate || ' ' || datctype FROM pg_database WHERE datname = 'plexus'\"")
          t.assertEqual(row.strip(), "C C")

      with subtest("secrets and sockets are the service's"):
          t.assertEqual(server.succeed("stat -c %a /var/lib/plexus/secrets").strip(), "700")
          server.fail("runuser -u nobody -- ls /var/lib/plexus/run")
          server.fail("runuser -u nginx -- cat /var/lib/plexus/secrets/macaroon")

      with subtest("a restart keeps all"):
          server.succeed("systemctl restart plexus.target")
          server.wait_for_unit("plexus-main.service")
          server.wait_for_unit("plexus-sync1.service")
          server.wait_until_succeeds("curl -sf http://localhost:8008/_matrix/client/versions", timeout=60)
          t.assertEqual(bob.texts(room), ["hello bob"])
          second = alice.send(room, "after the restart")
          events = bob.sync(since)["rooms"]["join"][room]["timeline"]["events"]
          t.assertEqual([e["event_id"] for e in events], [first, second])

      with subtest("each process comes back when it is killed"):
          for unit in ["plexus-main", "plexus-events1", "plexus-sync1"]:
              old = server.succeed(f"systemctl show -p MainPID --value {unit}").strip()
              server.succeed(f"systemctl kill -s KILL {unit}")
              server.wait_until_succeeds(f"test $(systemctl show -p MainPID --value {unit}) != {old}", timeout=60)
              server.wait_for_unit(unit + ".service")
          alice.send(room, "after the kills")
          t.assertEqual(bob.texts(room), ["hello bob", "after the restart", "after the kills"])

      with subtest("what was acknowledged outlives a crash of the machine"):
          server.crash()
          server.start()
          server.wait_for_unit("plexus-main.service")
          server.wait_for_unit("plexus-events1.service")
          server.wait_until_succeeds("curl -sf http://localhost:8008/_matrix/client/versions", timeout=60)
          bob.login("bob")
          t.assertEqual(bob.texts(room), ["hello bob", "after the restart", "after the kills"])
    '';
}
