# A cluster of several processes behind nginx: every route of the program is answered by a process of the role it
# belongs to, also after a switch to other processes; only nginx is on the network, and only who must gets out to it.
{ machines, ... }:

{
  nodes.server = {
    imports = [
      machines.server
      machines.client
    ];
    services.plexus = {
      preset = "medium";
      metrics.scrape = true;
    };
    environment.etc."routes.py".source = ./routes.py;
    specialisation.more.configuration.services.plexus.workers = {
      sync = 3;
      client = 0;
    };
  };
  nodes.client = {
    imports = [ machines.client ];
    networking.firewall.allowedTCPPorts = [ 8000 ];
  };

  testScript = ''
    alice, bob, room = begin({server: MEDIUM}, client)


    def routes():
        """What is wrong with the routes, one a line, after what was tried."""
        found = server.succeed("python3 /etc/routes.py http://localhost:8008 /etc/plexus/prometheus.json").splitlines()
        print("\n".join(found))
        return found[1:]


    with subtest("every route is answered by its role"):
        t.assertEqual(routes(), [])

    with subtest("only nginx is on the network"):
        for port in [5432, 6379, 9008]:
            client.fail(f"nc -z -w 2 server {port}")
        listening = server.succeed("ss -Hltn '! src 127.0.0.0/8' | awk '{print $4}'").split()
        t.assertEqual([where for where in listening if not where.startswith("[::1]")], ["0.0.0.0:8008"])

    with subtest("who speaks for all reaches others, the rest reach nobody"):
        client.execute("python3 -m http.server 8000 > /dev/null 2>&1 &")
        client.wait_for_open_port(8000)
        server.succeed("curl -sf --max-time 10 http://client:8000 > /dev/null")
        # What systemd lets a process reach holds for all in its control group.
        inside = "echo $$ > /sys/fs/cgroup$(systemctl show -p ControlGroup --value plexus-{}.service)/cgroup.procs"
        ask = "curl -sf --max-time 5 http://client:8000 > /dev/null"
        outside = [name for name in MEDIUM if server.execute(f"{inside.format(name)} && {ask}")[0] == 0]
        t.assertEqual(outside, ["main", "client1"])

    with subtest("a switch changes the number of processes, and routes follow"):
        load = Load(room, alice, bob)
        server.succeed("/run/current-system/specialisation/more/bin/switch-to-configuration test")
        # NixOS starts what active targets want; said again, the test doesn't rest on it.
        server.succeed("systemctl start plexus.target")
        serving(server, [name for name in MEDIUM if name != "client1"] + ["sync3"], client)
        server.fail("systemctl is-active plexus-client1.service")
        t.assertEqual(load.finish(), [])
        t.assertEqual(routes(), [])
  '';
}
