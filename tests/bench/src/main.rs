//! Drives any Matrix homeserver over HTTP, checks what it answers, and prints what it cost as JSON.
//!
//! `seed` makes accounts and rooms and writes who and where they are to a file; every scenario reads
//! that file, so two servers on copies of one database are measured with the same accounts.

mod client;
mod delivery;
mod initial_sync;
mod messages;
mod procfs;
mod report;
mod rooms;
mod seed;

use std::path::PathBuf;
use std::time::Duration;

use structopt::StructOpt;

use crate::client::Client;
use crate::procfs::Group;
use crate::seed::Seed;

/// Whatever goes wrong is said and ends the run.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(StructOpt)]
#[structopt(name = "plexus-bench", about = "Load generator for Matrix homeservers")]
struct Options {
    /// Where clients write: base URLs, dealt out among users in turn
    #[structopt(long, required = true, use_delimiter = true, number_of_values = 1)]
    base: Vec<String>,
    /// Where clients read (/sync); `--base` if not given
    #[structopt(long, use_delimiter = true, number_of_values = 1)]
    sync_base: Vec<String>,
    /// File with accounts and rooms
    #[structopt(long, default_value = "seed.json")]
    seed: PathBuf,
    /// Processes to account for: NAME=PID[,PID…], each with all its children
    #[structopt(long = "group", number_of_values = 1, parse(try_from_str = procfs::parse_group))]
    groups: Vec<Group>,
    /// Seconds to measure
    #[structopt(long, default_value = "10")]
    seconds: f64,
    #[structopt(subcommand)]
    what: What,
}

#[derive(StructOpt)]
enum What {
    /// Register users, create rooms, join members, write the seed file
    Seed(seed::Shape),
    /// As many messages as the server takes
    Messages(messages::Shape),
    /// Messages at a fixed rate, nobody reading: what following them costs
    Paced(messages::Pace),
    /// createRoom, as many as the server takes
    CreateRoom(rooms::Parallel),
    /// Joins of rooms the user was never in
    Join(rooms::Parallel),
    /// From sending to another client's /sync
    Delivery(delivery::Shape),
    /// /sync without a token, one after the other, by the user with many rooms
    InitialSync(initial_sync::Shape),
}

/// What every scenario gets.
pub struct Run {
    pub writes: Vec<String>,
    pub reads: Vec<String>,
    pub groups: Vec<Group>,
    pub duration: Duration,
    pub seed: Seed,
}

impl Run {
    /// User `n` of the seed on its writing process.
    pub fn writer(&self, n: usize) -> Client {
        Client::new(&self.writes[n % self.writes.len()], Some(&self.seed.users[n].token))
    }

    /// User `n` of the seed on its reading process.
    pub fn reader(&self, n: usize) -> Client {
        Client::new(&self.reads[n % self.reads.len()], Some(&self.seed.users[n].token))
    }
}

#[tokio::main]
async fn main() {
    if let Err(error) = run(Options::from_args()).await {
        eprintln!("plexus-bench: {error}");
        std::process::exit(1);
    }
}

async fn run(options: Options) -> Result<()> {
    if let What::Seed(shape) = &options.what {
        let seed = seed::make(&options.base, shape).await?;
        std::fs::write(&options.seed, serde_json::to_vec(&seed)?)?;
        return Ok(());
    }
    let reads = if options.sync_base.is_empty() { options.base.clone() } else { options.sync_base };
    let run = Run {
        writes: options.base,
        reads,
        groups: options.groups,
        duration: Duration::from_secs_f64(options.seconds),
        seed: serde_json::from_slice(&std::fs::read(&options.seed)?)?,
    };
    let report = match options.what {
        What::Seed(_) => return Ok(()),
        What::Messages(shape) => messages::flood(run, shape).await?,
        What::Paced(pace) => messages::paced(run, pace).await?,
        What::CreateRoom(parallel) => rooms::create(run, parallel).await?,
        What::Join(parallel) => rooms::join(run, parallel).await?,
        What::Delivery(shape) => delivery::measure(run, shape).await?,
        What::InitialSync(shape) => initial_sync::measure(run, shape).await?,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
