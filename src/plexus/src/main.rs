//! `plexus`: the one binary.

mod logging;
mod notify;
mod process;
mod tls;

use config::{Config, Role};
use std::path::PathBuf;
use std::process::ExitCode;
use structopt::StructOpt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Matrix homeserver that scales by worker processes, interchangeable with Synapse.
#[derive(StructOpt)]
#[structopt(name = "plexus")]
enum Command {
    /// Runs the main process.
    Homeserver(Files),
    /// Runs a worker.
    Worker(Files),
}

#[derive(StructOpt)]
struct Files {
    /// Configuration file or folder; may be repeated, later files override top-level keys of earlier ones.
    #[structopt(short = "c", long = "config-path", required = true, number_of_values = 1)]
    config_path: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match Command::from_args() {
        Command::Homeserver(files) => start(&files, Role::Homeserver),
        Command::Worker(files) => start(&files, Role::Worker),
    }
}

fn start(files: &Files, role: Role) -> ExitCode {
    match Config::load(&files.config_path, role) {
        Ok(loaded) => process::run(loaded.config, &loaded.warnings),
        Err(errors) => {
            errors.iter().for_each(|e| eprintln!("{e}"));
            ExitCode::from(2)
        }
    }
}
