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
        plexus = {
          imports = [ ./nixos-module ];
          nixpkgs.overlays = [ self.overlays.default ];
        };
      };

      overlays.default = final: _: { plexus = final.callPackage ./nixos-module/package.nix { }; };

      devShells = forAll (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.plexus ];
          packages = [
            pkgs.postgresql
            pkgs.redis
            pkgs.nginx
            pkgs.python3
            pkgs.nodejs
          ];
        };
      });

      formatter = forAll (pkgs: pkgs.nixfmt);
    };
}
