# Processes and the machine are killed while users talk: all come back by themselves, what was acknowledged is there,
# and whoever syncs hears it once.
{ machines, ... }:

{
  nodes = machines.medium;

  testScript = ''
    alice, bob, room = begin({server: MEDIUM}, client)

    with subtest("each role is killed"):
        load = Load(room, alice, bob)
        for name in MEDIUM:
            kill(server, name)
        client.sleep(3)
        failed = load.finish()
        # At most what a killed process was just at.
        t.assertLessEqual(len(failed), 3 * len(MEDIUM))

    with subtest("a process that hangs is killed by the watchdog"):
        # The test has not half a minute for it.
        folder = "/run/systemd/system/plexus-sync1.service.d"
        server.succeed(f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=5\\n' > {folder}/short.conf")
        server.succeed("systemctl daemon-reload; systemctl restart plexus-sync1.service")
        old = pid(server, "sync1")
        server.succeed("systemctl kill -s STOP plexus-sync1.service")
        replaced(server, "sync1", old)
        t.assertIn("watchdog", server.succeed("journalctl -q -u plexus-sync1 | tail -n 40").lower())

    with subtest("the machine crashes"):
        load = Load(room, alice, bob)
        server.crash()
        server.start()
        serving(server, MEDIUM, client)
        load.finish()
        bob.login("bob")
        alice.send(room, "after the crash")
        t.assertEqual(bob.texts(room)[-1], "after the crash")
  '';
}
