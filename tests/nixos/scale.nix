# More processes of a role, then none, while users talk: routes follow, nobody else restarts, no request fails.
{ lib, machines, ... }:

{
  nodes.server = {
    imports = [ machines.server ];
    services.plexus = {
      preset = "small";
      workers.sync = lib.mkDefault 1;
      metrics.scrape = true;
    };
    specialisation.three.configuration.services.plexus.workers.sync = 3;
    specialisation.none.configuration.services.plexus.workers.sync = 0;
  };
  nodes.client = machines.client;

  testScript = ''
    alice, bob, room = begin({server: SMALL}, client)
    server.wait_for_unit("plexus-rolling.service")
    base = server.succeed("readlink -f /run/current-system").strip()


    def running():
        units = server.succeed("systemctl list-units --plain --no-legend --state=active 'plexus-sync*.service' 'plexus-sync*.socket'")
        return sorted(line.split()[0] for line in units.splitlines())


    def units(count):
        return sorted(f"plexus-sync{i + 1}.{kind}" for i in range(count) for kind in ["service", "socket"])


    def syncs(name):
        """How many /sync requests the process has answered."""
        counts = server.succeed(f"curl -sf http://127.0.0.1:9008/{name} | grep -E '^synapse_http_server_response_count.*SyncRestServlet' || true")
        return sum(float(line.rsplit(" ", 1)[1]) for line in counts.splitlines())


    load = Load(room, alice, bob)
    before = pids(server, ["main", "events1"])
    for name, count in [("three", 3), ("none", 0), ("", 1), ("none", 0), ("three", 3)]:
        with subtest(f"{count} processes of the role"):
            server.succeed(base + (f"/specialisation/{name}" if name else "") + "/bin/switch-to-configuration test")
            t.assertEqual(running(), units(count))
            t.assertEqual(pids(server, ["main", "events1"]), before)
            # A new user's syncs go where the routes now lead.
            answering = [f"sync{i + 1}" for i in range(count)] or ["main"]
            answered = sum(map(syncs, answering))
            bob.sync()
            t.assertGreater(sum(map(syncs, answering)), answered)
            client.sleep(4)

    with subtest("no request failed and every message was heard"):
        t.assertEqual(load.finish(), [])
  '';
}
