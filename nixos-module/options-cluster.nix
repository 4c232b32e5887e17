# A cluster of several hosts.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  inherit (import ./option.nix lib) flag maybe;
  workersOf = import ./workers.nix lib;
in
{
  options.services.plexus = {
    cluster.hosts = mkOption {
      default = { };
      type = types.attrsOf (
        types.submodule {
          options = {
            address = mkOption {
              type = types.str;
              example = "10.0.0.2";
              description = "Address that the other hosts reach this one at.";
            };
            main = flag false "Whether the main process runs here. Exactly one host has it.";
            database = flag false "Whether PostgreSQL runs here. Exactly one host has it.";
            redis = flag false "Whether Redis runs here. Exactly one host has it.";
            proxy = flag false "Whether nginx runs here. Any number of hosts may have it.";
            workers = workersOf "Processes by role on this host.";
          };
        }
      );
      example = {
        one = {
          address = "10.0.0.1";
          main = true;
          database = true;
          redis = true;
          proxy = true;
        };
        two = {
          address = "10.0.0.2";
          workers.sync.count = 2;
        };
      };
      description = ''
        Hosts of a cluster that spans several, by {option}`networking.hostName`. All hosts get the same value and each
        takes its part of it: processes, `instance_map`, PostgreSQL with its `pg_hba`, Redis with its password, nginx's
        upstreams, the firewall. It says what runs where in place of {option}`services.plexus.preset` and
        {option}`services.plexus.workers`.
      '';
    };

    cluster.secretFile = maybe types.path "/run/keys/plexus-cluster" ''
      File with a long random text, the same on all hosts of {option}`services.plexus.cluster.hosts`. The secrets they
      share are derived from it: replication, PostgreSQL, Redis, registration, macaroons, forms and, unless there is one
      already, the signing key.
    '';

    cluster.tls = mkOption {
      default = null;
      example = {
        certificateFile = "/var/lib/cluster-tls/certificate.pem";
        keyFile = "/var/lib/cluster-tls/key.pem";
        caFile = "/etc/cluster-ca.pem";
      };
      description = ''
        TLS between the hosts of {option}`services.plexus.cluster.hosts`: replication, PostgreSQL, Redis, and nginx to
        the processes of all hosts. Each host has a certificate of its own, all of them from one CA.
      '';
      type = types.nullOr (
        types.submodule {
          options = {
            certificateFile = mkOption {
              type = types.path;
              example = "/var/lib/cluster-tls/certificate.pem";
              description = ''
                This host's certificate and what leads from it to the CA's, PEM. It must be for the host's address in
                {option}`services.plexus.cluster.hosts` (an IP address among its alternative names) and for the DNS name
                {option}`services.plexus.cluster.tls.name`. After another has been put there, restart
                {file}`plexus-rolling.service`, {file}`postgresql.service` and {file}`redis-plexus.service`.
              '';
            };
            keyFile = mkOption {
              type = types.path;
              example = "/var/lib/cluster-tls/key.pem";
              description = "Its key, PEM. It must not be in the Nix store; it may belong to root alone.";
            };
            caFile = mkOption {
              type = types.path;
              example = lib.literalExpression "./cluster-ca.pem";
              description = "Certificates of the CA, PEM. They are no secret: everybody on the host must be able to read them, and the Nix store is a good place.";
            };
            name = mkOption {
              type = types.strMatching "[a-zA-Z0-9.-]+";
              default = "plexus";
              example = "cluster.internal";
              description = "DNS name that all hosts' certificates are for as well. nginx, which shares requests out over several hosts, asks for it; nobody looks it up.";
            };
          };
        }
      );
    };

    cluster.privateNetwork = flag false ''
      Whether nobody but the hosts of {option}`services.plexus.cluster.hosts` is on the network between them (WireGuard,
      a switch of their own). Only then may {option}`services.plexus.cluster.tls` be missing: access tokens, messages
      and passwords go from host to host.
    '';
  };
}
