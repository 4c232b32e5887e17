//! `plexus cluster`: a whole cluster from one `cluster.toml`.

use std::process::ExitCode;

use config::plan::Role;

use crate::exit;
use command::{Command, Render};
use failed::{Failed, io};
use plans::{plan_for, write_rendered};

pub mod command;
mod failed;
mod first;
pub mod plans;
mod postgres;
mod processes;
mod roll;
mod services;
mod state;
mod status;
mod up;

/// Runs a command.
pub fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Render(args) => render(&args),
        Command::Up(args) => up::run(&args),
        Command::Down(at) => up::down(&at.file),
        Command::Status(at) => status::run(&at.file),
        Command::Roll(args) => roll::run(&args),
        Command::Roles => {
            Role::ALL.iter().for_each(|role| println!("{}", describe(*role)));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Config(message)) => {
            eprintln!("{message}");
            exit::code(exit::CONFIG)
        }
        Err(Failed::Run(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// A role in a line: what for, how many, and whom outside the cluster it asks.
fn describe(role: Role) -> String {
    let asks: Vec<&str> = role.asks().iter().map(|whom| whom.name()).collect();
    let asks = if asks.is_empty() { "nobody".into() } else { asks.join("; ") };
    format!("{:<11} {} (0 to {}); asks outside: {asks}", role.name(), role.purpose(), role.most())
}

fn render(args: &Render) -> Result<(), Failed> {
    let plan =
        plan_for(&args.at.file, None, args.program.as_deref()).and_then(|plan| plan.on_host(args.host.as_deref()));
    let mut plan = plan.map_err(Failed::Config)?;
    if let Some(out) = &args.out {
        plan.config_dir = std::path::absolute(out).map_err(io(out))?;
    }
    write_rendered(&plan)?;
    println!("Rendered {} processes into {}", plan.here().count(), plan.config_dir.display());
    Ok(())
}
