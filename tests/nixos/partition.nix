# Of three hosts, one that answers clients is cut off, then the one with PostgreSQL, Redis and nginx, while users talk:
# the proxy passes by whom it can't reach, all catch up afterwards without a gap and without hearing anything twice, and
# what a client repeats because it had no answer is there once.
{ machines, ... }:

{
  nodes = machines.three // {
    # Beside the processes of two, on the far side of the cut, is a user who asks them directly.
    two.imports = [
      machines.three.two
      machines.client
    ];
  };

  testScript = ''
    PROCESSES = {host: THREE[host.name] for host in [one, two, three]}

    alice, bob, room = begin(PROCESSES, outside, ONE)
    before = {host: pids(host, names) for host, names in PROCESSES.items()}

    with subtest("a host that is cut off is passed by"):
        since = bob.sync()["next_batch"]
        load = Load(room, alice, bob)
        three.block()
        said = [alice.send(room, f"without three {i}") for i in range(5)]
        heard = bob.heard(room, since)
        t.assertEqual([event for event in heard if event in said], said)
        outside.sleep(10)

    with subtest("it catches up when it is back: no gap, nothing twice"):
        three.unblock()
        outside.sleep(5)
        load.finish()
        said.append(alice.send(room, "all again"))
        everything = bob.heard(room, since)
        t.assertEqual(len(everything), len(set(everything)))
        t.assertEqual([event for event in everything if event in said], said)
        for host, name in [(two, "two"), (three, "three")]:
            # It may be a moment behind; what it says must never be wrong.
            retry(lambda _: directly(host, bob, name).heard(room, since) == everything, LONG)

    with subtest("the host with the database is cut off, and clients of another host go on afterwards"):
        since = bob.sync()["next_batch"]
        load = Load(room, directly(two, alice, "two"), directly(two, bob, "two"))
        one.block()
        two.fail("nc -z -w 5 one 5432")
        two.sleep(10)
        one.unblock()
        two.sleep(5)
        load.finish()
        everything = bob.heard(room, since)
        t.assertEqual(len(everything), len(set(everything)))

    with subtest("no process had to end for that"):
        t.assertEqual({host: pids(host, names) for host, names in PROCESSES.items()}, before)
        since = bob.sync()["next_batch"]
        t.assertEqual([alice.send(room, "after all")], bob.heard(room, since))
  '';
}
