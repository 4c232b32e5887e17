# Changed settings, another version and a broken one, while users talk: no request fails, processes go on one after
# the other, and a version that doesn't work stops the roll before it has done anything.
{
  self,
  lib,
  pkgs,
  machines,
}:

let
  plexus = self.packages.${pkgs.stdenv.hostPlatform.system}.plexus;
  # The same program under another path is another version as far as units are concerned.
  next = pkgs.runCommand "plexus-next" { meta.mainProgram = "plexus"; } ''
    mkdir -p $out/bin
    cp ${lib.getExe plexus} $out/bin/plexus
  '';
  broken = pkgs.writeShellScriptBin "plexus" ''
    case "$1" in
      homeserver | worker) echo "this version does not work" >&2; exit 1 ;;
      *) exec ${lib.getExe plexus} "$@" ;;
    esac
  '';
in
{
  nodes.server = {
    imports = [ machines.server ];
    services.plexus = {
      preset = "small";
      workers.client = 1;
      workers.sync = 2;
    };
    specialisation = {
      limits.configuration.services.plexus.settings.rc_message.burst_count = 2000;
      settings.configuration.services.plexus.resources.sync.cpuWeight = 200;
      next.configuration.services.plexus.package = lib.mkForce next;
      broken.configuration.services.plexus.package = lib.mkForce broken;
      writers.configuration.services.plexus.workers.events = 2;
    };
  };
  nodes.client = machines.client;

  testScript = ''
    PROCESSES = ["main", "client1", "events1", "sync1", "sync2"]
    SWITCH = "/bin/switch-to-configuration test"

    alice, bob, room = begin({server: PROCESSES}, client)
    server.wait_for_unit("plexus-rolling.service")
    base = server.succeed("readlink -f /run/current-system").strip()


    def journal(since):
        return server.succeed(f"journalctl -q -o cat -t plexus-rolling --since=@{since}").splitlines()


    def now():
        client.sleep(1)
        return int(server.succeed("date +%s"))


    def switch(name, works=True):
        """Which processes are others after a switch to a specialisation, and what was said about it."""
        before, began = pids(server, PROCESSES), now()
        path = base + (f"/specialisation/{name}" if name else "") + SWITCH
        if works:
            server.succeed(path)
            # After a roll that failed it is started by the target, which nobody waits for.
            server.wait_until_succeeds("systemctl is-active plexus-rolling.service", timeout=LONG)
        else:
            server.fail(path)
        after = pids(server, PROCESSES)
        return sorted(name for name in PROCESSES if before[name] != after[name]), journal(began)


    load = Load(room, alice, bob)

    with subtest("limits are taken over without a restart"):
        changed, _ = switch("limits")
        t.assertEqual(changed, [])
        server.wait_until_succeeds("journalctl -q -t plexus-sync1 | grep -q 'limits and log level read again'", timeout=LONG)

    with subtest("only those concerned by a setting restart"):
        changed, said = switch("settings")
        t.assertEqual(changed, ["sync1", "sync2"])

    with subtest("another version: a canary, then one process after the other, main last"):
        changed, said = switch("next")
        t.assertEqual(changed, sorted(PROCESSES))
        steps = [line for line in said if line.startswith(("Trying", "Restarting"))]
        t.assertEqual(steps[0], "Trying the new configuration with plexus-canary.service")
        t.assertEqual(steps[1:], [f"Restarting {name}" for name in ["client1", "sync1", "sync2", "events1", "main"]])
        t.assertIn("plexus-next", server.succeed("readlink /proc/$(systemctl show -p MainPID --value plexus-main)/exe"))

    with subtest("a version that does not work is not rolled out"):
        changed, said = switch("broken", works=False)
        t.assertEqual(changed, [])
        t.assertTrue(any("Nothing was restarted: the canary does not work" in line for line in said), said)
        t.assertEqual(server.execute("systemctl is-active plexus-canary.service")[1].strip(), "failed")

    with subtest("back to where it began"):
        changed, _ = switch("")
        t.assertEqual(changed, sorted(PROCESSES))

    with subtest("another division of the rooms is taken over by all at once"):
        changed, said = switch("writers")
        t.assertEqual(changed, sorted(PROCESSES))
        t.assertIn("Who does what has changed: restarting all at once", said)
        server.wait_for_unit("plexus-events2.service")

    with subtest("no request failed and every message was heard"):
        t.assertEqual(load.finish(), [])
  '';
}
