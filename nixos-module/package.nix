{
  lib,
  rustPlatform,
  stdenv,
}:

rustPlatform.buildRustPackage {
  pname = "plexus";
  inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../src
      ../tests/bench
      ../tests/data
    ];
  };

  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [
    "--package"
    "plexus"
  ];
  # Those that need no server.
  cargoTestFlags = [
    "--package"
    "plexus-types"
    "--package"
    "plexus-rules"
    "--package"
    "plexus-config"
    "--package"
    "plexus-store"
    "--lib"
  ];

  # jemalloc is built for one size of page, and kernels of this architecture have pages of up to 2^16 bytes.
  env = lib.optionalAttrs (stdenv.hostPlatform.system == "aarch64-linux") {
    JEMALLOC_SYS_WITH_LG_PAGE = "16";
  };

  postInstall = lib.optionalString (stdenv.buildPlatform == stdenv.hostPlatform) ''
    install -d "$out"/share/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$out/bin/plexus" manual > "$out/share/man/man1/plexus.1"
    "$out/bin/plexus" completions bash > "$out/share/bash-completion/completions/plexus"
    "$out/bin/plexus" completions zsh > "$out/share/zsh/site-functions/_plexus"
    "$out/bin/plexus" completions fish > "$out/share/fish/vendor_completions.d/plexus.fish"
  '';

  meta = {
    description = "Matrix homeserver that scales by worker processes, interchangeable with Synapse";
    license = lib.licenses.agpl3Plus;
    mainProgram = "plexus";
    platforms = lib.platforms.linux;
  };
}
