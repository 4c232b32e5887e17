# Users of two servers invite each other, join and talk, over TLS with certificates that are checked; who is away hears it
# when back. Of the processes of one server only main gets out, and speaks for the others.
{
  lib,
  pkgs,
  machines,
  ...
}:

let
  made = import ./certificates.nix pkgs (lib.genAttrs [ "hs1" "hs2" ] (name: "DNS:${name}"));
  server =
    { config, ... }:
    let
      name = config.networking.hostName;
    in
    {
      imports = [ machines.server ];
      services.plexus = {
        serverName = name;
        # Found through /.well-known/matrix/server: there is no DNS here to ask.
        publicBaseUrl = "https://${name}:8448/";
        nginx.virtualHost = name;
        nginx.wellKnown = name;
        settings = {
          federation_custom_ca_list = [ "${made}/ca.pem" ];
          # The hosts of this test have private addresses.
          ip_range_blacklist = [ ];
        };
      };
      services.nginx.virtualHosts.${name} = {
        onlySSL = true;
        sslCertificate = "${made}/${name}.pem";
        sslCertificateKey = "${made}/${name}.key";
        listen =
          map
            (port: {
              addr = "0.0.0.0";
              inherit port;
              ssl = true;
            })
            [
              443
              8448
            ];
      };
      networking.firewall.allowedTCPPorts = [
        443
        8448
      ];
    };
in
{
  nodes.hs1 = {
    imports = [ server ];
    services.plexus.preset = "medium";
  };
  nodes.hs2 = server;

  testScript = ''
    BASE = "http://localhost:8008"

    start_all()
    serving(hs1, MEDIUM, base=BASE)
    serving(hs2, SMALL, base=BASE)
    alice, bob = Client(hs1, BASE), Client(hs2, BASE)
    alice.register("alice")
    there = bob.register("bob")

    with subtest("servers show certificates of that CA and their keys"):
        for asked, other in [("hs1", hs2), ("hs2", hs1)]:
            key = other.succeed(f"curl -sf --cacert ${made}/ca.pem https://{asked}:8448/_matrix/key/v2/server")
            t.assertEqual(json.loads(key)["server_name"], asked)

    with subtest("a user of the other server is invited, joins and is heard"):
        room = alice.create_room(preset="private_chat")
        alice.invite(room, there)
        retry(lambda _: room in bob.sync().get("rooms", {}).get("invite", {}), LONG)
        bob.join(room)
        here, other = alice.sync()["next_batch"], bob.sync()["next_batch"]
        said = [alice.send(room, "to the other server"), bob.send(room, "and back")]
        for user, since in [(alice, here), (bob, other)]:
            retry(lambda _: sorted(user.heard(room, since)) == sorted(said), LONG)

    with subtest("what was before is there for who joined later"):
        public = alice.create_room(preset="public_chat", room_alias_name="public")
        before = alice.send(public, "before")
        bob.join("#public:hs1")
        t.assertEqual(bob.texts(public), ["before"])
        t.assertEqual(bob.event(public, before)["content"]["body"], "before")

    with subtest("a server that was away hears it when it is back"):
        since = bob.sync()["next_batch"]
        hs2.succeed("systemctl stop plexus.target")
        missed = [alice.send(room, f"while away {i}") for i in range(3)]
        hs1.sleep(5)
        hs2.succeed("systemctl start plexus.target")
        serving(hs2, SMALL, base=BASE)
        # Until it hears from it, the other server waits longer and longer.
        said = [bob.send(room, "back")]
        retry(lambda _: sorted(bob.heard(room, since)) == sorted(missed + said), LONG)
  '';
}
