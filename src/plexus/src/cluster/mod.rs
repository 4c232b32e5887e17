//! `plexus cluster`: a whole cluster from one `cluster.toml`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::plan::{ClusterFile, Plan, Role};
use structopt::StructOpt;

use crate::cli::exit;

mod first;
mod postgres;
mod processes;
mod roll;
mod services;
mod state;
mod status;
mod up;

/// Renders, runs and shows a whole cluster described by one TOML file
#[derive(Debug, StructOpt)]
pub enum Command {
    /// Writes homeserver.yaml, a file for each worker, nginx and systemd configuration
    Render(Render),
    /// Starts the cluster: PostgreSQL, Redis, processes, nginx; makes a first user
    Up(Up),
    /// Stops the cluster
    Down(At),
    /// Shows each process: role, pid, port, memory, position in the streams it writes
    Status(At),
    /// Brings the processes that systemd runs to their present configuration, one after the other
    Roll(roll::Args),
    /// Prints the roles that workers can have
    Roles,
}

/// Which cluster.
#[derive(Debug, StructOpt)]
pub struct At {
    /// Description of the cluster; `up` makes one if there is none
    #[structopt(short, long, parse(from_os_str), default_value = "state/cluster.toml")]
    pub file: PathBuf,
}

/// `plexus cluster render`
#[derive(Debug, StructOpt)]
pub struct Render {
    #[structopt(flatten)]
    pub at: At,
    /// Where to write [default: the folder config in the data folder]
    #[structopt(short, long, parse(from_os_str))]
    pub out: Option<PathBuf>,
    /// Host whose part is written, where the cluster has several
    #[structopt(long)]
    pub host: Option<String>,
    /// Program that the units run [default: this one]
    #[structopt(long, parse(from_os_str))]
    pub program: Option<PathBuf>,
}

/// `plexus cluster up`
#[derive(Clone, Debug, StructOpt)]
pub struct Up {
    /// Description of the cluster; made if there is none
    #[structopt(short, long, parse(from_os_str), default_value = "state/cluster.toml")]
    pub file: PathBuf,
    /// Go on in the background once all is ready
    #[structopt(short, long)]
    pub detach: bool,
    /// Make no first user and send no first message
    #[structopt(long)]
    pub no_first_user: bool,
    /// For a new cluster: the server's name
    #[structopt(long, default_value = "localhost")]
    pub server_name: String,
    /// For a new cluster: single, small, medium or large
    #[structopt(long, default_value = "small", possible_values = &["single", "small", "medium", "large"])]
    pub preset: String,
}

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

/// Why a command failed.
#[derive(Debug)]
pub enum Failed {
    /// The description is wrong.
    Config(String),
    /// Something didn't work.
    Run(String),
}

impl From<String> for Failed {
    fn from(message: String) -> Self {
        Self::Run(message)
    }
}

/// Names what failed in an I/O error.
fn io(what: &Path) -> impl FnOnce(std::io::Error) -> Failed + '_ {
    move |e| Failed::Run(format!("{}: {e}", what.display()))
}

/// Reads `cluster.toml` and decides where everything is, on the ports a run has chosen if there was one.
pub fn read_plan(file: &Path) -> Result<Plan, String> {
    plan_for(file, None, None)
}

fn plan_for(file: &Path, base_port: Option<u16>, program: Option<&Path>) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("There is no cluster: {} doesn't exist (`plexus cluster up`, or ./dev up, makes one)", file.display()),
        _ => format!("{}: {e}", file.display()),
    })?;
    let mut cluster = ClusterFile::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    let file = std::path::absolute(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    if let Some(port) = base_port.or_else(|| state::chosen_port(&cluster.data_dir_in(folder))) {
        cluster.base_port = port;
    }
    let own = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    let mut plan = Plan::new(cluster, folder, program.unwrap_or(&own)).map_err(|e| format!("{}: {e}", file.display()))?;
    plan.cluster_file = Some(file);
    Ok(plan)
}

/// A cluster with every role, for showing how routes are shared out.
pub fn example_plan() -> Result<Plan, String> {
    let file = ClusterFile::parse("server_name = 'example.com'\npreset = 'large'\nunix_sockets = true\ndata_dir = '/var/lib/plexus'\n")?;
    Plan::new(file, Path::new("/"), Path::new("/usr/bin/plexus"))
}

fn render(args: &Render) -> Result<(), Failed> {
    let plan = plan_for(&args.at.file, None, args.program.as_deref()).and_then(|plan| plan.on_host(args.host.as_deref()));
    let mut plan = plan.map_err(Failed::Config)?;
    if let Some(out) = &args.out {
        plan.config_dir = std::path::absolute(out).map_err(io(out))?;
    }
    write_rendered(&plan)?;
    println!("Rendered {} processes into {}", plan.here().count(), plan.config_dir.display());
    Ok(())
}

/// Writes the rendered files; those of processes that are gone go too.
fn write_rendered(plan: &Plan) -> Result<(), Failed> {
    for folder in ["workers", "systemd", "nginx"] {
        let folder = plan.config_dir.join(folder);
        if folder.is_dir() {
            std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
        }
    }
    for file in plan.render(&crate::routes::rows()) {
        let path = plan.config_dir.join(&file.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        std::fs::write(&path, &file.text).map_err(io(&path))?;
    }
    Ok(())
}
