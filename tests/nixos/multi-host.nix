# Three hosts from one expression: each has its part, the firewall lets through what it should and no more, a host that
# crashes does not stop the others.
{ machines, ... }:

{
  nodes = machines.three;

  testScript = ''
    PROCESSES = {host: THREE[host.name] for host in [one, two, three]}

    alice, bob, room = begin(PROCESSES, outside, ONE)
    since = bob.sync()["next_batch"]
    said: list[str] = []

    with subtest("each host runs its part and has the same shared configuration"):
        for host, names in PROCESSES.items():
            units = host.succeed("systemctl list-units --plain --no-legend 'plexus-*.service' | awk '$4 == \"running\" {print $1}'").split()
            t.assertEqual(sorted(units), sorted(f"plexus-{name}.service" for name in names))
        keys = {host.succeed("sha256sum < /var/lib/plexus/secrets/signing.key") for host in PROCESSES}
        t.assertEqual(len(keys), 1)

    with subtest("every process answers, wherever it is"):
        said.append(alice.send(room, "one cluster"))
        t.assertEqual(bob.heard(room, since), said)
        for host, name in [(two, "two"), (three, "three")]:
            retry(lambda _: directly(host, bob, name).heard(room, since) == said, LONG)

    with subtest("Prometheus on one host finds the processes of all"):
        t.assertEqual(metrics(two), sorted(name for names in PROCESSES.values() for name in names))

    with subtest("the firewall lets the hosts through, and others to nginx only"):
        for port in [5432, 6379, 8018, 8019, SYNC, SYNC + 1]:
            for name in ["one", "two", "three"]:
                outside.fail(f"nc -z -w 2 {name} {port}")
        for port in [5432, 6379, 8019]:
            two.wait_until_succeeds(f"nc -z -w 10 one {port}", timeout=LONG)
        two.wait_until_succeeds(f"nc -z -w 10 three {SYNC + 1}", timeout=LONG)
        outside.wait_until_succeeds("nc -z -w 10 one 8008", timeout=LONG)
        one.fail("redis-cli -h one ping | grep PONG")
        one.fail("psql -h one -U plexus -w -c 'SELECT 1' plexus")

    with subtest("a host that crashes does not stop the others"):
        three.crash()
        said.append(alice.send(room, "without three"))
        t.assertEqual(bob.heard(room, since), said)
        three.start()
        serving(three, PROCESSES[three], outside, ONE)
        retry(lambda _: directly(three, bob, "three").heard(room, since) == said, LONG)
        t.assertEqual(bob.texts(room), ["one cluster", "without three"])
  '';
}
