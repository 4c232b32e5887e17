# Three hosts, one expression: `one` has PostgreSQL, Redis, nginx, the main process and an events writer, the other
# two answer clients. A host is cut off and comes back; nobody else than the hosts reaches anything but nginx.
self:
{ lib, ... }:

let
  # A node's own, so that nodes.<name> is not asked for while it is being evaluated.
  cluster =
    { nodes, ... }:
    {
      imports = [ self.nixosModules.default ];
      networking.nftables.enable = true;
      environment.etc."plexus-cluster-secret" = {
        text = "only for this test: what stands in the store is no secret";
        mode = "0400";
      };
      services.plexus = {
        enable = true;
        serverName = "example.org";
        enableRegistration = true;
        settings.rc_message = {
          per_second = 1000;
          burst_count = 1000;
        };
        metrics.scrape = true;
        nginx = {
          address = "0.0.0.0";
          openFirewall = true;
        };
        cluster.secretFile = "/etc/plexus-cluster-secret";
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
  name = "plexus-cluster";

  nodes = lib.genAttrs [ "one" "two" "three" ] (_: cluster) // {
    outside = { };
  };

  testScript =
    builtins.readFile ./client.py
    + ''

      PROCESSES = {one: ["main", "one-events1"], two: ["two-sync1", "two-client1"], three: ["three-sync1", "three-client1"]}
      VERSIONS = "curl -sf --max-time 20 http://one:8008/_matrix/client/versions"
      # Ports follow from role and number: the first sync process' for clients.
      SYNC = 8098

      start_all()
      for host, names in PROCESSES.items():
          for name in names:
              host.wait_for_unit(f"plexus-{name}.service")
      outside.wait_until_succeeds(VERSIONS, timeout=60)

      alice, bob = Client(outside, "http://one:8008"), Client(outside, "http://one:8008")
      alice.register("alice")
      bob.register("bob")
      room = alice.create_room(preset="public_chat")
      bob.join(room)
      since = bob.sync()["next_batch"]
      sent = []


      def say(text):
          alice.send(room, text)
          sent.append(text)


      def heard(client, since):
          """What a client hears since then, in as many syncs as it takes."""
          texts = []
          while True:
              answer = client.sync(since)
              since = answer["next_batch"]
              timeline = answer.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {})
              t.assertFalse(timeline.get("limited", False))
              new = [e["content"]["body"] for e in timeline.get("events", []) if e["type"] == "m.room.message"]
              if not new:
                  return texts, since
              texts += new


      with subtest("each host runs its part and has the same shared configuration"):
          for host, names in PROCESSES.items():
              units = host.succeed("systemctl list-units --plain --no-legend 'plexus-*.service' | awk '$4 == \"running\" {print $1}'").split()
              t.assertEqual(sorted(units), sorted(f"plexus-{name}.service" for name in names))
          keys = {host.succeed("sha256sum < /var/lib/plexus/secrets/signing.key") for host in PROCESSES}
          t.assertEqual(len(keys), 1)

      with subtest("every process answers, wherever it is"):
          say("one cluster")
          t.assertEqual(heard(bob, since)[0], sent)
          for host, sync in [(two, "two"), (three, "three")]:
              direct = Client(host, f"http://{sync}:{SYNC}")
              direct.token = bob.token
              t.assertEqual(heard(direct, since)[0], sent)

      with subtest("Prometheus on one host finds the processes of all"):
          t.assertEqual(metrics(two), sorted(name for names in PROCESSES.values() for name in names))

      with subtest("the firewall lets the hosts through, and others to nginx only"):
          for port in [5432, 6379, 8018, 8019, SYNC, SYNC + 1]:
              for name in ["one", "two", "three"]:
                  outside.fail(f"nc -z -w 2 {name} {port}")
          two.succeed("nc -z -w 2 one 5432", "nc -z -w 2 one 6379", "nc -z -w 2 one 8019", f"nc -z -w 2 three {SYNC + 1}")
          outside.succeed("nc -z -w 2 one 8008")
          one.fail("redis-cli -h one ping | grep PONG")
          one.fail("psql -h one -U plexus -w -c 'SELECT 1' plexus")

      with subtest("a host that is cut off is passed by"):
          three.block()
          for i in range(5):
              say(f"without three {i}")
          for _ in range(6):
              t.assertEqual(heard(bob, since)[0], sent)
              outside.succeed(VERSIONS)

      with subtest("it catches up when it is back: no gap, nothing twice"):
          three.unblock()
          direct = Client(three, f"http://three:{SYNC}")
          direct.token = bob.token
          three.wait_until_succeeds(f"curl -sf --max-time 20 http://three:{SYNC}/_matrix/client/versions", timeout=60)
          say("all again")
          retry(lambda _: heard(direct, since)[0] == sent, 60)
          t.assertEqual(heard(direct, since)[0], sent)
          t.assertEqual(heard(bob, since)[0], sent)
          t.assertEqual(bob.texts(room), sent)

      with subtest("a host that is cut off for good does not stop the others"):
          three.crash()
          say("without three again")
          t.assertEqual(heard(bob, since)[0], sent)
          three.start()
          for name in PROCESSES[three]:
              three.wait_for_unit(f"plexus-{name}.service")
          direct = Client(three, f"http://three:{SYNC}")
          direct.token = bob.token
          retry(lambda _: heard(direct, since)[0] == sent, 60)
    '';
}
