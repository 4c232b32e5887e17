# One host: users register, talk, sync; restart, kills and a crash keep all; nobody else gets at secrets or sockets.
{ lib, machines, ... }:

{
  nodes.server = {
    imports = [ machines.server ];
    # As it comes: nginx for this host only.
    services.plexus.nginx.address = lib.mkForce "127.0.0.1";
  };
  # One process does it all.
  nodes.alone = {
    imports = [ machines.server ];
    services.plexus.preset = "single";
  };

  testScript = ''
    BASE = "http://localhost:8008"

    start_all()
    serving(alone, ["main"], base=BASE)
    serving(server, SMALL, base=BASE)
    for unit in ["plexus.target", "redis-plexus.service", "nginx.service"]:
        server.wait_for_unit(unit)
    alice, bob, room = two_users(server, BASE)
    since = bob.sync()["next_batch"]
    said = []

    with subtest("two users talk"):
        said.append(alice.send(room, "hello bob"))
        t.assertEqual(bob.heard(room, since), said)
        t.assertEqual(bob.texts(room), ["hello bob"])

    with subtest("with one process, too, and a restart of it keeps all"):
        carol, dave, theirs = two_users(alone, BASE)
        carol.send(theirs, "hello dave")
        alone.succeed("systemctl restart plexus.target")
        serving(alone, ["main"], base=BASE)
        t.assertEqual(dave.texts(theirs), ["hello dave"])

    with subtest("the database has the collation of the schema"):
        row = server.succeed("runuser -u postgres -- psql -tAc \"SELECT datcollate || ' ' || datctype FROM pg_database WHERE datname = 'plexus'\"")
        t.assertEqual(row.strip(), "C C")

    with subtest("secrets and sockets are the service's"):
        t.assertEqual(server.succeed("stat -c %a /var/lib/plexus/secrets").strip(), "700")
        server.fail("runuser -u nobody -- ls /var/lib/plexus/run")
        server.fail("runuser -u nginx -- cat /var/lib/plexus/secrets/macaroon")

    with subtest("a restart keeps all"):
        server.succeed("systemctl restart plexus.target")
        serving(server, SMALL, base=BASE)
        t.assertEqual(bob.texts(room), ["hello bob"])
        said.append(alice.send(room, "after the restart"))
        t.assertEqual(bob.heard(room, since), said)

    with subtest("each process comes back when it is killed"):
        for name in SMALL:
            kill(server, name)
        said.append(alice.send(room, "after the kills"))
        t.assertEqual(bob.heard(room, since), said)

    with subtest("what was acknowledged outlives a crash of the machine"):
        server.crash()
        server.start()
        serving(server, SMALL, base=BASE)
        t.assertEqual(bob.heard(room, since), said)
        bob.login("bob")
        t.assertEqual(bob.texts(room), ["hello bob", "after the restart", "after the kills"])
  '';
}
