{
  lib,
  rustPlatform,
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

  meta = {
    description = "Matrix homeserver that scales by worker processes, interchangeable with Synapse";
    license = lib.licenses.agpl3Plus;
    mainProgram = "plexus";
    platforms = lib.platforms.linux;
  };
}
