# A backup made on one host is put back on another: the same users, tokens, events and signing key, and the server goes
# on from there.
{ lib, machines, ... }:

{
  nodes = lib.genAttrs [ "old" "new" ] (_: {
    imports = [ machines.server ];
    services.plexus = {
      backup.enable = true;
      backup.keep = 2;
      metrics.scrape = true;
    };
  });

  testScript = ''
    BASE = "http://localhost:8008"
    KEY = "cat /var/lib/plexus/secrets/signing.key"

    start_all()
    serving(old, SMALL, base=BASE)
    serving(new, SMALL, base=BASE)
    with subtest("Prometheus finds each process, through nginx"):
        t.assertEqual(metrics(old), sorted(SMALL))

    alice, bob, room = two_users(old, BASE)
    events = [alice.send(room, f"message {i}") for i in range(3)]
    since = bob.sync()["next_batch"]
    old.succeed("runuser -u plexus -- bash -c 'mkdir -p /var/lib/plexus/media/local_content && echo picture > /var/lib/plexus/media/local_content/one'")

    with subtest("backups are made, read back and not kept for ever"):
        for _ in range(3):
            old.succeed("systemctl start plexus-backup.service")
            old.sleep(2)
        kept = old.succeed("ls /var/backup/plexus").split()
        t.assertEqual(len(kept), 2)
        newest = "/var/backup/plexus/" + kept[-1]
        t.assertEqual(old.succeed("stat -c '%a %U' /var/backup/plexus").strip(), "700 plexus")
        old.succeed("systemctl list-timers --all | grep plexus-backup")
        t.assertIn("is complete", old.succeed(f"plexus-restore --verify {newest}"))

    with subtest("a damaged one is refused"):
        old.succeed(f"cp -r {newest} /root/damaged; echo x >> /root/damaged/database.dump")
        old.fail("plexus-restore --verify /root/damaged")

    with subtest("it is put back on another host"):
        old.succeed(f"cp -r {newest} /tmp/shared/backup")
        new.succeed("mv /tmp/shared/backup /root/backup")
        t.assertNotEqual(new.succeed(KEY), old.succeed(KEY))
        new.fail("plexus-restore /root/backup")
        new.succeed("systemctl stop plexus.target")
        new.succeed("plexus-restore /root/backup")
        t.assertEqual(new.succeed(KEY), old.succeed(KEY))
        new.succeed("grep picture /var/lib/plexus/media/local_content/one")
        new.succeed("systemctl start plexus.target")
        serving(new, SMALL, base=BASE)

    with subtest("tokens and events are the same and new ones follow"):
        alice.machine = bob.machine = new
        t.assertEqual(bob.texts(room), ["message 0", "message 1", "message 2"])
        for event in events:
            t.assertEqual(alice.event(room, event)["event_id"], event)
        after = alice.send(room, "on the new host")
        t.assertEqual(bob.heard(room, since), [after])

    with subtest("a server with users is not written over"):
        new.succeed("systemctl stop plexus.target")
        new.fail("plexus-restore /root/backup")
        new.succeed("systemctl start plexus.target")
        serving(new, SMALL, base=BASE)
        t.assertEqual(len(bob.texts(room)), 4)
  '';
}
