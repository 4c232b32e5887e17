{
  description = "Plexus: a Matrix homeserver that scales by worker processes and takes Synapse's place process by process";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      packages = forAll (pkgs: rec {
        default = plexus;
        plexus = pkgs.callPackage ./nixos-module/package.nix { };
        # nixos-module/README.md, generated.
        options-doc =
          pkgs.writeText "README.md"
            (import ./nixos-module/doc.nix {
              inherit lib;
              pkgs = pkgs.extend self.overlays.default;
            }).text;
      });

      # A cluster in ./state with its own PostgreSQL, Redis and nginx; no root needed.
      apps = forAll (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (
            pkgs.writeShellApplication {
              name = "plexus-cluster";
              runtimeInputs = [
                self.packages.${pkgs.stdenv.hostPlatform.system}.plexus
                pkgs.postgresql
                pkgs.redis
                pkgs.nginx
              ];
              text = ''
                if [ "$#" -gt 0 ]; then
                  exec plexus "$@"
                fi
                exec plexus cluster up
              '';
            }
          );
          meta.description = "A Plexus cluster in ./state, or any plexus command";
        };
      });

      nixosModules = {
        default = self.nixosModules.plexus;
        # The units of services.matrix-synapse run Plexus.
        from-synapse =
          { pkgs, ... }:
          {
            imports = [ ./nixos-module/from-synapse ];
            services.plexus.fromSynapse.package =
              lib.mkDefault
                self.packages.${pkgs.stdenv.hostPlatform.system}.plexus;
          };
        # No overlay: a host's nixpkgs may be read-only, as in NixOS tests.
        plexus =
          { pkgs, ... }:
          {
            imports = [ ./nixos-module ];
            services.plexus.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.plexus;
          };
      };

      overlays.default = final: _: { plexus = final.callPackage ./nixos-module/package.nix { }; };

      devShells = forAll (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.plexus ];
          # Debug builds: jemalloc's configure takes the warning of fortify without optimization for an error.
          hardeningDisable = [ "fortify" ];
          packages = [
            pkgs.postgresql
            pkgs.redis
            pkgs.nginx
            pkgs.python3
            pkgs.nodejs
          ];
        };
      });

      checks = forAll (
        pkgs:
        let
          inherit (pkgs.stdenv.hostPlatform) system;
          evaluation = import ./tests/nixos/evaluation.nix {
            inherit self nixpkgs;
            pkgs = pkgs.extend self.overlays.default;
          };
        in
        evaluation
        // import ./tests/nixos { inherit self pkgs; }
        // {
          package = self.packages.${system}.plexus;
          documentation = pkgs.runCommand "plexus-documentation" { } ''
            diff -u ${./nixos-module/README.md} ${self.packages.${system}.options-doc}
            touch $out
          '';
        }
      );

      # All files; by itself nixfmt takes their names.
      formatter = forAll (pkgs: pkgs.nixfmt-tree);
    };
}
