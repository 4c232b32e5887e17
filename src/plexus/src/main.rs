//! The program: one binary for every process of a homeserver and the commands around it.

mod check_config;
mod cli;
mod client;
mod cluster;
mod exit;
mod inherited;
mod logging;
mod manual;
mod notify;
mod process;
mod proxied;
mod routes;
mod source;
mod start;
mod tls;
mod users;

use std::process::ExitCode;

use structopt::clap::ErrorKind;

/// glibc's allocator keeps what its threads gave back, this one returns it to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc reads this at start (its manual, "TUNING"): few arenas, so that little lies about in each; what is free for
/// a second goes back.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 70] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true\0";

fn main() -> ExitCode {
    let command = match cli::read() {
        Ok(command) => command,
        Err(e) if matches!(e.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed) => {
            println!("{}", e.message);
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprintln!("{}", e.message);
            return exit::code(exit::USAGE);
        }
    };
    match command {
        cli::Cli::Homeserver(args) => start::homeserver(&args),
        cli::Cli::Worker(args) => start::worker(&args),
        cli::Cli::GenerateConfig(args) => start::generate_config(&[args.config_path], &args.new),
        cli::Cli::GenerateKeys(args) => start::generate_keys(&args),
        cli::Cli::RegisterUser(args) => users::register_user(&args),
        cli::Cli::HashPassword(args) => users::hash_password(&args),
        cli::Cli::CheckConfig(args) => check_config::run(&args),
        cli::Cli::Schema(args) => start::schema(&args),
        cli::Cli::Routes(args) => routes::run(&args),
        cli::Cli::Completions(args) => manual::completions(args.shell),
        cli::Cli::Manual => manual::print(),
        cli::Cli::Cluster(command) => cluster::run(command),
    }
}
