# PostgreSQL restarts, is killed and is away for a while, while users talk: no process ends, all go on by themselves,
# what was acknowledged is there and was heard, once.
{ machines, ... }:

{
  nodes = machines.medium;

  testScript = ''
    UP = "runuser -u postgres -- psql -tAc 'SELECT 1' plexus"

    alice, bob, room = begin({server: MEDIUM}, client)
    before = pids(server, MEDIUM)
    gone = {
        "PostgreSQL restarts": ["systemctl restart postgresql.service"],
        # Started, whether or not its unit would do that by itself.
        "PostgreSQL is killed": ["systemctl kill -s KILL postgresql.service", "systemctl start postgresql.service"],
        "PostgreSQL is away for a while": ["systemctl stop postgresql.service", "sleep 8", "systemctl start postgresql.service"],
    }

    for what, commands in gone.items():
        with subtest(what):
            load = Load(room, alice, bob)
            for command in commands:
                server.succeed(command)
            server.wait_until_succeeds(UP, timeout=LONG)
            client.sleep(5)
            load.finish()
            # The database being away is no reason to end.
            t.assertEqual(pids(server, MEDIUM), before)

    with subtest("all is as it was"):
        since = bob.sync()["next_batch"]
        t.assertEqual([alice.send(room, "after PostgreSQL")], bob.heard(room, since))
        Client(client).login("bob")
  '';
}
