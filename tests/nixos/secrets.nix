# Secrets are where they belong and nowhere else, and another one reaches the processes without a request failing.
self:
{ lib, pkgs, ... }:

{
  name = "plexus-secrets";

  nodes.server = {
    imports = [ self.nixosModules.default ];
    services.plexus = {
      enable = true;
      serverName = "example.org";
      preset = "small";
      enableRegistration = true;
      settings.rc_message = {
        per_second = 1000;
        burst_count = 1000;
      };
      secrets.files.registration_shared_secret_path = "/var/keys/registration";
      secrets.encrypted.macaroon_secret_key_path = "/var/keys/macaroon.encrypted";
      secrets.settingsFiles = [ "/var/keys/turn.yaml" ];
    };
    # The test makes the files first.
    systemd.targets.plexus.wantedBy = lib.mkForce [ ];
    environment.systemPackages = [ pkgs.python3 ];
    environment.etc."load.py".source = ./load.py;
  };

  testScript =
    builtins.readFile ./client.py
    + ''
      import secrets

      PROCESSES = ["main", "events1", "sync1"]
      server.start()
      server.wait_for_unit("multi-user.target")
      known = {name: secrets.token_hex(20) for name in ["registration", "macaroon", "turn"]}
      server.succeed("install -d -m 700 /var/keys")
      server.succeed(f"umask 077; printf %s {known['registration']} > /var/keys/registration")
      server.succeed(f"umask 077; printf %s {known['macaroon']} | systemd-creds encrypt --with-key=host --name=macaroon_secret_key - /var/keys/macaroon.encrypted")
      server.succeed(f"umask 077; printf 'turn_uris: [\"turn:example.org\"]\\nturn_shared_secret: {known['turn']}\\n' > /var/keys/turn.yaml")
      server.succeed("systemctl start plexus.target")
      for name in PROCESSES:
          server.wait_for_unit(f"plexus-{name}.service")
      server.wait_until_succeeds("curl -sf http://localhost:8008/_matrix/client/versions", timeout=60)


      def pids():
          return [server.succeed(f"systemctl show -p MainPID --value plexus-{name}").strip() for name in PROCESSES]


      def register(user, secret):
          return server.execute(f"plexus register-user -k {secret} -u {user} -p 'correct horse' --no-admin http://localhost:8008")[0] == 0


      alice, bob = Client(server), Client(server)
      with subtest("all kinds of files reach the processes"):
          t.assertTrue(register("alice", known["registration"]))
          alice.login("alice")
          bob.register("bob")
          t.assertTrue(alice.client("GET", "/voip/turnServer")["password"])

      with subtest("what was generated is the service's alone"):
          files = server.succeed("stat -c '%n %a %U' /var/lib/plexus/secrets/*").split("\n")
          t.assertEqual(sorted(filter(None, files)), [f"/var/lib/plexus/secrets/{name} 600 plexus" for name in ["form", "replication", "signing.key"]])

      with subtest("no secret is in the system, in command lines, in the journal"):
          values = list(known.values()) + [server.succeed(f"cat /var/lib/plexus/secrets/{name}").strip() for name in ["form", "replication"]]
          server.succeed("umask 077; cat > /var/keys/all <<'EOF'\n" + "\n".join(values) + "\nEOF")
          system = server.succeed("readlink -f /run/current-system").strip()
          texts = f"{system} /etc/plexus $(dirname $(readlink -f /etc/plexus/live.yaml)) $(readlink -f /etc/nginx/nginx.conf)"
          server.fail(f"grep -rFf /var/keys/all {texts}")
          server.fail("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -aFf /var/keys/all")
          server.fail("journalctl -q | grep -Ff /var/keys/all")

      with subtest("another secret is taken over process by process"):
          room = alice.create_room(preset="public_chat")
          bob.join(room)
          load = Load(server, room, alice, bob)
          server.sleep(2)
          before, new = pids(), secrets.token_hex(20)
          server.succeed(f"umask 077; printf %s {new} > /var/keys/registration")
          server.succeed("systemctl restart plexus-rolling.service")
          t.assertFalse(set(before) & set(pids()))
          t.assertFalse(register("carol", known["registration"]))
          t.assertTrue(register("carol", new))
          state = load.finish()
          t.assertEqual(state["failed"], [])

      with subtest("another encrypted secret is taken over, too"):
          before = pids()
          server.sleep(1)
          server.succeed("umask 077; head -c 20 /dev/urandom | base64 -w 0 | systemd-creds encrypt --with-key=host --name=macaroon_secret_key - /var/keys/macaroon.encrypted")
          server.succeed("systemctl restart plexus-rolling.service")
          t.assertFalse(set(before) & set(pids()))
          before = pids()
          server.succeed("systemctl restart plexus-rolling.service")
          t.assertEqual(pids(), before)

      with subtest("another replication secret is taken over by all at once"):
          load = Load(server, room, alice, bob)
          server.sleep(2)
          server.succeed("umask 077; head -c 32 /dev/urandom | base64 -w 0 > /var/lib/plexus/secrets/replication")
          server.succeed("systemctl restart plexus-rolling.service")
          t.assertIn("restarting all at once", server.succeed("journalctl -q -t plexus-rolling"))
          server.sleep(2)
          state = load.finish()
          t.assertEqual(state["failed"], [])
    '';
}
