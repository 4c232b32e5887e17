# A cluster of several hosts: all import the same expression, each takes the part that its host name says.
{ config, lib, ... }:

let
  cfg = config.services.plexus;
  inherit (cfg.cluster) hosts tls;
  spans = hosts != { };
  name = config.networking.hostName;
  here =
    hosts.${name} or {
      address = "";
      main = false;
      database = false;
      redis = false;
      proxy = false;
    };
  others = lib.attrValues (lib.removeAttrs hosts [ name ]);
  named = what: lib.attrNames (lib.filterAttrs (_: host: host.${what}) hosts);
  exactlyOne = what: {
    assertion = lib.length (named what) == 1;
    message = "services.plexus.cluster.hosts: exactly one host must have ${what} = true; found: ${toString (named what)}.";
  };

  # Ports of the processes, after the proxy's; then what else of the cluster this host has.
  ports = [
    "${toString (cfg.nginx.port + 10)}-${toString (cfg.nginx.port + 410)}"
  ]
  ++ lib.optional cfg.database.createLocally (toString cfg.database.port)
  ++ lib.optional cfg.redis.createLocally (toString cfg.redis.port);
  isV6 = lib.hasInfix ":";
  sources = map (host: host.address) others;

  secretsDir = "${cfg.dataDir}/secrets";
  # PostgreSQL and Redis run as others than root, who alone may be able to read the files.
  ownCredentials = [
    "tls_certificate:${tls.certificateFile}"
    "tls_key:${toString tls.keyFile}"
  ];
in
{
  config = lib.mkIf (cfg.enable && spans) {
    assertions = [
      {
        assertion = hosts ? ${name};
        message = "services.plexus.cluster.hosts: this host, networking.hostName = ${name}, is not among ${toString (lib.attrNames hosts)}.";
      }
      {
        assertion = lib.allUnique (map (host: host.address) (lib.attrValues hosts));
        message = "services.plexus.cluster.hosts: two hosts have the same address.";
      }
      {
        assertion = cfg.cluster.secretFile != null;
        message = "services.plexus.cluster.secretFile must be set where services.plexus.cluster.hosts is: it is what the hosts know each other by.";
      }
      {
        assertion = !(lib.hasPrefix builtins.storeDir (toString cfg.cluster.secretFile));
        message = "services.plexus.cluster.secretFile: a secret in the Nix store is readable by everybody.";
      }
      {
        assertion = cfg.workers == { };
        message = "services.plexus.workers: where services.plexus.cluster.hosts is set, each host says its own: cluster.hosts.<name>.workers.";
      }
      (exactlyOne "main")
      (exactlyOne "database")
      (exactlyOne "redis")
    ];

    services.plexus = {
      database.createLocally = lib.mkDefault here.database;
      redis.createLocally = lib.mkDefault here.redis;
      nginx.enable = lib.mkDefault here.proxy;
      database.passFile = lib.mkDefault "${secretsDir}/pgpass";
      redis.passwordFile = lib.mkDefault "${secretsDir}/redis";
    };

    services.postgresql = lib.mkIf cfg.database.createLocally {
      enableTCPIP = true;
      settings = lib.mkIf (tls != null) {
        ssl = true;
        ssl_cert_file = "/run/credentials/postgresql.service/tls_certificate";
        ssl_key_file = "/run/credentials/postgresql.service/tls_key";
      };
      authentication = lib.concatMapStrings (host: ''
        ${
          if tls == null then "host" else "hostssl"
        } ${cfg.database.name} ${cfg.database.user} ${host.address}/${
          if isV6 host.address then "128" else "32"
        } scram-sha-256
      '') (lib.attrValues hosts);
    };
    systemd.services.postgresql = lib.mkIf (cfg.database.createLocally && tls != null) {
      serviceConfig.LoadCredential = ownCredentials;
    };
    systemd.services.plexus-database = lib.mkIf cfg.database.createLocally {
      requires = [ "plexus-cluster-secrets.service" ];
      after = [ "plexus-cluster-secrets.service" ];
      serviceConfig.LoadCredential = "pgpass:${secretsDir}/pgpass";
      # Standard input, since a command line is read by everybody.
      script = lib.mkAfter ''
        password=$(cut -d: -f5 "$CREDENTIALS_DIRECTORY/pgpass")
        psql -v ON_ERROR_STOP=1 -q <<< "ALTER ROLE ${cfg.database.user} PASSWORD '$password'"
      '';
    };

    services.redis.servers.plexus = lib.mkIf cfg.redis.createLocally {
      bind = here.address;
      port = if tls == null then cfg.redis.port else 0;
      requirePassFile = cfg.redis.passwordFile;
      settings = lib.mkIf (tls != null) {
        tls-port = cfg.redis.port;
        tls-cert-file = "/run/credentials/redis-plexus.service/tls_certificate";
        tls-key-file = "/run/credentials/redis-plexus.service/tls_key";
        # Others show that they belong by the password.
        tls-auth-clients = "no";
      };
    };
    systemd.services.redis-plexus = lib.mkIf cfg.redis.createLocally {
      requires = [ "plexus-cluster-secrets.service" ];
      after = [ "plexus-cluster-secrets.service" ];
      serviceConfig.LoadCredential = lib.mkIf (tls != null) ownCredentials;
    };

    # What the hosts must have in common follows from the one secret. A signing key that is there stays.
    systemd.services.plexus-cluster-secrets = {
      description = "Secrets that the hosts of the Plexus cluster share";
      requiredBy = [ "plexus-secrets.service" ];
      before = [ "plexus-secrets.service" ];
      after = [ "systemd-tmpfiles-setup.service" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "plexus";
        UMask = "0077";
        LoadCredential = "cluster:${toString cfg.cluster.secretFile}";
      };
      script = ''
        cd ${lib.escapeShellArg secretsDir}
        if [ ! -s "$CREDENTIALS_DIRECTORY/cluster" ]; then
          echo "services.plexus.cluster.secretFile is empty" >&2
          exit 1
        fi
        of() {
          { cat "$CREDENTIALS_DIRECTORY/cluster"; echo "plexus $1"; } | sha256sum | cut -c -64
        }
        keep() {
          cat > "$1.new"
          mv "$1.new" "$1"
        }
        for name in replication registration macaroon form redis; do
          of "$name" | keep "$name"
        done
        echo "*:*:*:plexus:$(of postgresql)" | keep pgpass
        if [ ! -s signing.key ]; then
          seed=$(of "signing key" | tr a-f A-F | basenc --base16 -d | base64 -w 0 | tr -d =)
          echo "ed25519 a_$(of "signing key's name" | cut -c -4) $seed" | keep signing.key
        fi
      '';
    };

    # Nobody but the other hosts reaches the processes, PostgreSQL and Redis.
    networking.firewall =
      if config.networking.nftables.enable or false then
        {
          extraInputRules = lib.concatMapStrings (source: ''
            ${
              if isV6 source then "ip6" else "ip"
            } saddr ${source} tcp dport { ${lib.concatStringsSep ", " ports} } accept
          '') sources;
        }
      else
        {
          extraCommands = lib.concatMapStrings (
            source:
            lib.concatMapStrings (port: ''
              ${if isV6 source then "ip6tables" else "iptables"} -A nixos-fw -p tcp -s ${source} --dport ${
                lib.replaceStrings [ "-" ] [ ":" ] port
              } -j nixos-fw-accept
            '') ports
          ) sources;
        };
  };
}
