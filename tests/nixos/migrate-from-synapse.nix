# A Synapse with a worker is taken over by a switch, and given back by another: users, tokens, rooms, messages and the
# place in /sync stay, both ways, also where what ran before was killed and its sockets lie about.
{ self, pkgs, ... }:

let
  listener = path: {
    inherit path;
    type = "http";
    resources = [ { names = [ "replication" ]; } ];
  };
in
{
  nodes.server = {
    imports = [ self.nixosModules.from-synapse ];

    services.postgresql = {
      enable = true;
      initialScript = pkgs.writeText "synapse-init.sql" ''
        CREATE ROLE "matrix-synapse" LOGIN;
        CREATE DATABASE "matrix-synapse" OWNER "matrix-synapse" TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
      '';
    };

    # In a test a secret may be in the store; the point is that this file is read too.
    environment.etc."synapse-secrets.yaml".text = ''
      macaroon_secret_key: only-for-this-test
      form_secret: only-for-this-test
      worker_replication_secret: only-for-this-test
    '';

    services.redis.servers.matrix-synapse = {
      enable = true;
      user = "matrix-synapse";
    };

    services.matrix-synapse = {
      enable = true;
      extraConfigFiles = [ "/etc/synapse-secrets.yaml" ];
      settings = {
        server_name = "example.org";
        report_stats = false;
        signing_key_path = "/var/lib/matrix-synapse/homeserver.signing.key";
        media_store_path = "/var/lib/matrix-synapse/media_store";
        database = {
          name = "psycopg2";
          args.user = "matrix-synapse";
          args.database = "matrix-synapse";
        };
        enable_registration = true;
        enable_registration_without_verification = true;
        redis = {
          enabled = true;
          path = "/run/redis-matrix-synapse/redis.sock";
        };
        instance_map.main.path = "/run/matrix-synapse/main_replication.sock";
        instance_map.writer.path = "/run/matrix-synapse/writer.sock";
        stream_writers.events = "writer";
        trusted_key_servers = [ ];
      };
      workers.writer = {
        worker_app = "synapse.app.generic_worker";
        worker_listeners = [ (listener "/run/matrix-synapse/writer.sock") ];
      };
    };

    specialisation.plexus.configuration.services.plexus.fromSynapse.enable = true;
  };

  testScript = ''
    BASE = "http://localhost:8008"
    UNITS = ["matrix-synapse", "matrix-synapse-worker-writer"]
    SOCKETS = ["/run/matrix-synapse/main_replication.sock", "/run/matrix-synapse/writer.sock"]


    def serves(program):
        """Every unit runs, and it is that program."""
        for unit in UNITS:
            server.wait_until_succeeds(f"systemctl is-active {unit}.service", timeout=LONG)
            process = server.succeed(f"systemctl show -p MainPID --value {unit}").strip()
            t.assertIn(program, server.succeed(f"readlink /proc/{process}/exe; tr '\\0' ' ' < /proc/{process}/cmdline"))
        server.wait_until_succeeds(f"curl -sf --max-time 20 {BASE}/_matrix/client/versions", timeout=LONG)


    def killed():
        """All units are killed at once; their sockets lie about."""
        before = {unit: server.succeed(f"systemctl show -p MainPID --value {unit}").strip() for unit in UNITS}
        server.succeed("systemctl kill -s KILL " + " ".join(UNITS))
        for socket in SOCKETS:
            server.succeed(f"test -S {socket}")
        return before


    def come_back(program):
        """They are killed and come back by themselves."""
        for unit, process in killed().items():
            server.wait_until_succeeds(f"test $(systemctl show -p MainPID --value {unit}) != {process}", timeout=LONG)
        serves(program)


    def stay_away():
        """They are killed and do not come back before the switch."""
        killed()
        server.succeed("systemctl stop " + " ".join(UNITS))
        for socket in SOCKETS:
            server.succeed(f"test -S {socket}")


    def say(text):
        events.append(alice.send(room, text))
        texts.append(text)


    def all_is_there(since):
        """Old tokens work, all messages are there under their ids, and what is new since then is heard once."""
        t.assertEqual(bob.texts(room), texts)
        for event in events:
            t.assertEqual(alice.event(room, event)["event_id"], event)
        heard = bob.heard(room, since)
        t.assertEqual(heard, events[-len(heard):])
        t.assertIn(events[-1], heard)


    server.start()
    serves("synapse")
    alice, bob, room = two_users(server, BASE)
    events: list[str] = []
    texts: list[str] = []
    base = server.succeed("readlink -f /run/current-system").strip()
    key = server.succeed("cat /var/lib/matrix-synapse/homeserver.signing.key")

    with subtest("Synapse serves"):
        say("in Synapse")
        since = bob.sync()["next_batch"]
        say("more in Synapse")
        all_is_there(since)

    with subtest("Plexus takes over from a Synapse that was killed"):
        stay_away()
        server.succeed(f"{base}/specialisation/plexus/bin/switch-to-configuration test")
        serves("plexus")
        say("in Plexus")
        all_is_there(since)
        Client(server, BASE).login("bob")
        Client(server, BASE).register("carol")
        t.assertEqual(server.succeed("cat /var/lib/matrix-synapse/homeserver.signing.key"), key)

    with subtest("Plexus is killed and comes back"):
        come_back("plexus")
        say("in Plexus again")
        all_is_there(since)

    with subtest("Synapse is back, after Plexus was killed"):
        stay_away()
        server.succeed(f"{base}/bin/switch-to-configuration test")
        serves("synapse")
        say("in Synapse again")
        all_is_there(since)
        Client(server, BASE).login("carol")

    with subtest("Synapse is killed and comes back"):
        come_back("synapse")
        say("still in Synapse")
        all_is_there(since)

    with subtest("and Plexus takes over once more, by a plain switch"):
        server.succeed(f"{base}/specialisation/plexus/bin/switch-to-configuration test")
        serves("plexus")
        say("in Plexus for good")
        all_is_there(since)
  '';
}
