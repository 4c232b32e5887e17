# Redis is killed, and is away for a while, while users talk: no process ends, what is said meanwhile is taken, and when
# Redis is back everybody hears it, once.
{ machines, ... }:

{
  nodes = machines.medium;

  testScript = ''
    alice, bob, room = begin({server: MEDIUM}, client)
    before = pids(server, MEDIUM)

    with subtest("Redis is killed"):
        load = Load(room, alice, bob)
        server.succeed("systemctl kill -s KILL redis-plexus.service")
        server.wait_until_succeeds("systemctl is-active redis-plexus.service", timeout=LONG)
        client.sleep(5)
        load.finish()
        t.assertEqual(pids(server, MEDIUM), before)

    with subtest("Redis is away for a while"):
        since = bob.sync()["next_batch"]
        load = Load(room, alice, bob)
        server.succeed("systemctl stop redis-plexus.service")
        said = [alice.send(room, f"without Redis {i}") for i in range(5)]
        client.sleep(8)
        server.succeed("systemctl start redis-plexus.service")
        client.sleep(5)
        load.finish()
        heard = bob.heard(room, since)
        t.assertEqual([event for event in heard if event in said], said)
        t.assertEqual(len(heard), len(set(heard)))
        t.assertEqual(pids(server, MEDIUM), before)

    with subtest("all is as it was"):
        since = bob.sync()["next_batch"]
        t.assertEqual([alice.send(room, "after Redis")], bob.heard(room, since))
  '';
}
