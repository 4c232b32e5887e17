//! What `plexus cluster` can be told.

use std::path::PathBuf;

use structopt::StructOpt;

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
    Roll(Roll),
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

/// `plexus cluster roll`
#[derive(Debug, StructOpt)]
pub struct Roll {
    /// Description of the cluster whose units are installed
    #[structopt(short, long, parse(from_os_str))]
    pub file: PathBuf,
    /// The host of a cluster of several
    #[structopt(long)]
    pub host: Option<String>,
    /// Only say what would be done
    #[structopt(long)]
    pub dry_run: bool,
}
