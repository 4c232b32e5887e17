# A Synapse with a worker is taken over by a switch, and given back by another: users, tokens, rooms, messages and the
# place in /sync stay, both ways.
self:
{ pkgs, ... }:

let
  listener = path: {
    inherit path;
    type = "http";
    resources = [ { names = [ "replication" ]; } ];
  };
in
{
  name = "plexus-from-synapse";

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

  testScript =
    builtins.readFile ./client.py
    + ''

      VERSIONS = "curl -sf --max-time 5 http://localhost:8008/_matrix/client/versions"
      UNITS = ["matrix-synapse", "matrix-synapse-worker-writer"]
      sent: list[str] = []


      def serves(program):
          """Every unit runs, and it is that program."""
          for unit in UNITS:
              server.wait_for_unit(unit + ".service")
              pid = server.succeed(f"systemctl show -p MainPID --value {unit}").strip()
              t.assertIn(program, server.succeed(f"readlink /proc/{pid}/exe; tr '\\0' ' ' < /proc/{pid}/cmdline"))
          server.wait_until_succeeds(VERSIONS, timeout=60)


      def say(text):
          events.append(alice.send(room, text))
          sent.append(text)


      def all_is_there(since):
          """Old tokens work, all messages are there under their ids, and what is new since then is heard once."""
          t.assertEqual(bob.texts(room), sent)
          for event in events:
              t.assertEqual(alice.event(room, event)["event_id"], event)
          heard = bob.sync(since)["rooms"]["join"][room]["timeline"]["events"]
          t.assertEqual([e["event_id"] for e in heard if e["type"] == "m.room.message"], events[-1:])


      server.start()
      serves("synapse")
      alice, bob = Client(server), Client(server)
      alice.register("alice")
      bob.register("bob")
      room = alice.create_room(preset="public_chat")
      bob.join(room)
      events: list[str] = []
      base = server.succeed("readlink -f /run/current-system").strip()
      key = server.succeed("cat /var/lib/matrix-synapse/homeserver.signing.key")

      with subtest("Synapse serves"):
          say("in Synapse")
          t.assertEqual(bob.texts(room), sent)
          since = bob.sync()["next_batch"]

      with subtest("Plexus takes over"):
          server.succeed(f"{base}/specialisation/plexus/bin/switch-to-configuration test")
          serves("plexus")
          say("in Plexus")
          all_is_there(since)
          since = bob.sync(since)["next_batch"]
          Client(server).login("bob")
          Client(server).register("carol")
          t.assertEqual(server.succeed("cat /var/lib/matrix-synapse/homeserver.signing.key"), key)

      with subtest("Synapse is back"):
          server.succeed(f"{base}/bin/switch-to-configuration test")
          serves("synapse")
          say("in Synapse again")
          all_is_there(since)
          Client(server).login("carol")
    '';
}
