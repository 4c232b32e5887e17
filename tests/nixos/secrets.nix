# Secrets are where they belong and nowhere else, and others reach the processes without a request failing.
{
  lib,
  pkgs,
  machines,
  ...
}:

{
  nodes.server = {
    imports = [
      machines.server
      machines.client
    ];
    services.plexus = {
      secrets.files.macaroon_secret_key_path = "/var/keys/macaroon";
      secrets.encrypted.registration_shared_secret_path = "/var/keys/registration.encrypted";
      secrets.settingsFiles = [ "/var/keys/turn.yaml" ];
    };
    # The test makes the files first.
    systemd.targets.plexus.wantedBy = lib.mkForce [ ];
  };

  testScript =
    { nodes }:
    ''
      import base64
      import hmac
      import secrets

      BASE = "http://localhost:8008"
      CLOSURE = "${pkgs.closureInfo { rootPaths = [ nodes.server.system.build.toplevel ]; }}/store-paths"
      known = {name: secrets.token_hex(20) for name in ["registration", "macaroon", "turn"]}


      def write(name, text):
          server.succeed(f"umask 077; cat > /var/keys/{name} <<'EOF'\n{text}\nEOF")


      def give(name):
          """Puts the known secret where the configuration says it is."""
          if name == "registration":
              encrypt = "systemd-creds encrypt --with-key=host --name=registration_shared_secret - /var/keys/registration.encrypted"
              server.succeed(f"umask 077; printf %s {known[name]} | {encrypt}")
          elif name == "turn":
              write("turn.yaml", f"turn_uris: [\"turn:example.org\"]\nturn_shared_secret: {known[name]}")
          else:
              write(name, known[name])


      def generated():
          return [server.succeed(f"cat /var/lib/plexus/secrets/{name}").strip() for name in ["form", "replication"]]


      def register(user, secret):
          return server.execute(f"plexus register-user -k {secret} -u {user} -p 'correct horse' --no-admin {BASE}")[0] == 0


      def in_use():
          """Each kind of secret, as what the server does shows it."""
          user = f"user{secrets.token_hex(4)}"
          t.assertTrue(register(user, known["registration"]))
          turn = alice.client("GET", "/voip/turnServer")
          digest = hmac.digest(known["turn"].encode(), turn["username"].encode(), "sha1")
          t.assertEqual(turn["password"], base64.b64encode(digest).decode())
          for name in SMALL:
              held = server.succeed(f"cat /run/credentials/plexus-{name}.service/macaroon_secret_key")
              t.assertEqual(held.strip(), known["macaroon"])


      def rolled(name):
          """Another secret of that name; it is in use, the old one is not, and each process is another."""
          before, old = pids(server, SMALL), known[name]
          known[name] = secrets.token_hex(20)
          give(name)
          server.succeed("systemctl restart plexus-rolling.service")
          after = pids(server, SMALL)
          t.assertFalse(set(before.values()) & set(after.values()))
          in_use()
          if name == "registration":
              t.assertFalse(register("mallory", old))


      def nowhere_else():
          """No secret is in the system's closure, where others can read it, in command lines, in the journal."""
          write("all", "\n".join(list(known.values()) + generated()))
          server.fail(f"xargs -a {CLOSURE} grep -raFf /var/keys/all")
          server.fail("runuser -u nobody -- grep -rsaFf - /etc /run /var /tmp /root /home /srv < /var/keys/all")
          server.fail("runuser -u nginx -- grep -rsaFf - /etc /run /var /tmp /root /home /srv < /var/keys/all")
          server.fail("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' ' | grep -aFf /var/keys/all")
          server.fail("journalctl -q | grep -Ff /var/keys/all")


      server.start()
      server.wait_for_unit("multi-user.target")
      server.succeed("install -d -m 700 /var/keys")
      for name in known:
          give(name)
      server.succeed("systemctl start plexus.target")
      serving(server, SMALL, base=BASE)
      alice, bob, room = two_users(server, BASE)

      with subtest("all kinds of files reach the processes"):
          in_use()

      with subtest("what was generated is the service's alone"):
          files = server.succeed("stat -c '%n %a %U' /var/lib/plexus/secrets/*").split("\n")
          t.assertEqual(sorted(filter(None, files)), [f"/var/lib/plexus/secrets/{name} 600 plexus" for name in ["form", "replication", "signing.key"]])

      with subtest("no secret is anywhere else"):
          # What looks for them finds one that is there.
          write("all", "\n".join(known.values()))
          server.succeed("grep -raFf /var/keys/all /var/keys/macaroon")
          server.succeed(f"xargs -a {CLOSURE} grep -raF plexus-main.service | head -n 1 | grep -q .")
          nowhere_else()

      load = Load(room, alice, bob)
      for name, kind in [("macaroon", "plain"), ("registration", "encrypted"), ("turn", "nested")]:
          with subtest(f"another {kind} secret is taken over process by process"):
              rolled(name)

      with subtest("what has not changed restarts nobody"):
          before = pids(server, SMALL)
          server.succeed("systemctl restart plexus-rolling.service")
          t.assertEqual(pids(server, SMALL), before)

      with subtest("an encrypted secret that cannot be read stops the roll, and the old one stays in use"):
          server.succeed("cp /var/keys/registration.encrypted /var/keys/good; echo damaged > /var/keys/registration.encrypted")
          server.fail("systemctl restart plexus-rolling.service")
          t.assertEqual(pids(server, SMALL), before)
          in_use()
          server.succeed("mv /var/keys/good /var/keys/registration.encrypted")
          server.succeed("systemctl reset-failed; systemctl restart plexus-rolling.service")

      with subtest("another replication secret is taken over by all at once"):
          server.succeed("umask 077; head -c 32 /dev/urandom | base64 -w 0 > /var/lib/plexus/secrets/replication")
          server.succeed("systemctl restart plexus-rolling.service")
          t.assertIn("restarting all at once", server.succeed("journalctl -q -t plexus-rolling"))
          server.sleep(2)
          in_use()

      with subtest("no request failed, and no secret is anywhere else even now"):
          t.assertEqual(load.finish(), [])
          nowhere_else()
    '';
}
