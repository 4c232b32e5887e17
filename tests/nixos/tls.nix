# Two hosts whose processes, PostgreSQL, Redis and nginx speak TLS with each other, with certificates of a CA of their own;
# they restart one by one without a failed request.
{
  lib,
  pkgs,
  machines,
  ...
}:

let
  cluster =
    { nodes, config, ... }:
    let
      address = name: nodes.${name}.networking.primaryIPAddress;
      made = import ./certificates.nix pkgs (
        lib.genAttrs [ "one" "two" ] (name: "IP:${address name},DNS:plexus")
      );
      inherit (config.networking) hostName;
    in
    {
      imports = [
        machines.server
        machines.client
      ];
      networking.nftables.enable = true;
      environment.systemPackages = [
        pkgs.openssl
        pkgs.postgresql
        pkgs.redis
      ];
      environment.etc = {
        "plexus-cluster-secret".text = "only for this test: what stands in the store is no secret";
        "plexus-cluster-key".source = "${made}/${hostName}.key";
        "plexus-cluster-ca".source = "${made}/ca.pem";
      };
      services.plexus = {
        cluster.secretFile = "/etc/plexus-cluster-secret";
        cluster.tls = {
          certificateFile = "${made}/${hostName}.pem";
          keyFile = "/etc/plexus-cluster-key";
          caFile = "${made}/ca.pem";
        };
        cluster.hosts = {
          one = {
            address = address "one";
            main = true;
            database = true;
            redis = true;
            proxy = true;
          };
          two = {
            address = address "two";
            workers.events.count = 1;
            workers.sync.count = 1;
          };
        };
      };
      specialisation.other.configuration.services.plexus.resources =
        lib.genAttrs [ "main" "events" "sync" ]
          (_: {
            cpuWeight = 200;
          });
    };
in
{
  nodes = lib.genAttrs [ "one" "two" ] (_: cluster);

  testScript = ''
    PROCESSES = {one: ["main"], two: ["two-events1", "two-sync1"]}

    alice, bob, room = begin(PROCESSES, two, ONE)

    with subtest("a conversation goes from host to host"):
        since = bob.sync()["next_batch"]
        said = [alice.send(room, "over TLS")]
        t.assertEqual(bob.heard(room, since), said)

    with subtest("root registers users on either host"):
        for host in [one, two]:
            host.succeed(f"plexus-register-user -u by-{host.name} -p 'correct horse' --no-admin")

    with subtest("PostgreSQL has only sessions with TLS from the network"):
        sessions = one.succeed("runuser -u postgres -- psql -tAc \"SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'plexus' AND client_addr IS NOT NULL\"")
        t.assertEqual(sessions.strip(), "t")
        ask = "PGPASSFILE=/var/lib/plexus/secrets/pgpass psql -h one -U plexus -c 'SELECT 1' plexus"
        two.succeed(f"PGSSLMODE=require {ask}")
        two.fail(f"PGSSLMODE=disable {ask}")

    with subtest("PostgreSQL, Redis and the processes answer nobody without TLS, and have the host's certificate"):
        for where, port in [("one", 6379), ("one", 8018), ("one", 8019), ("two", 8058), ("two", 8059), ("two", 8098)]:
            address = two.succeed(f"getent ahostsv4 {where} | awk 'NR == 1 {{print $1}}'").strip()
            verify = f"openssl s_client -connect {address}:{port} -CAfile /etc/plexus-cluster-ca -verify_return_error"
            for extra in [f"-verify_ip {address}", "-verify_hostname plexus"]:
                two.succeed(f"{verify} {extra} < /dev/null")
            two.fail(f"curl -sf --max-time 5 http://{address}:{port}/health")
        two.succeed("timeout 20 redis-cli -h one --tls --cacert /etc/plexus-cluster-ca ping | grep NOAUTH")
        two.fail("timeout 20 redis-cli -h one ping | grep NOAUTH")

    with subtest("the key is root's and in no file that is rendered"):
        two.fail("grep -rl 'PRIVATE KEY' $(dirname $(readlink -f /etc/plexus/live.yaml))")

    with subtest("a process that was killed comes back, and a roll finds all in order"):
        kill(two, "two-sync1")
        two.succeed("systemctl restart plexus-rolling.service")
        two.succeed("systemctl is-active plexus-rolling.service plexus-two-sync1.service")

    with subtest("a switch of either host asks each process through TLS, and no request fails"):
        load = Load(room, alice, bob)
        for host, names in PROCESSES.items():
            before = pids(host, names)
            host.succeed("/run/current-system/specialisation/other/bin/switch-to-configuration test")
            said = host.succeed("journalctl -q -o cat -t plexus-rolling").splitlines()
            restarted = [line for line in said if line.startswith(("Trying", "Restarting"))]
            expected = [f"Restarting {name}" for name in reversed(names)]
            t.assertEqual(restarted, ["Trying the new configuration with plexus-canary.service"] + expected)
            t.assertFalse(set(before.values()) & set(pids(host, names).values()))
        t.assertEqual(load.finish(), [])
  '';
}
