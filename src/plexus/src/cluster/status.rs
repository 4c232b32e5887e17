//! `plexus cluster status`

use std::collections::BTreeMap;
use std::path::Path;

use config::plan::{Place, Plan, Process};

use super::failed::Failed;
use super::plans::read_plan;
use super::postgres::Postgres;
use super::state::Running;

/// Prints a line for each process. Fails if one that should run doesn't.
pub fn run(file: &Path) -> Result<(), Failed> {
    let plan = read_plan(file).map_err(Failed::Config)?;
    let running = Running::read(&plan.data_dir);
    if running.live_supervisor().is_none() && !running.processes.values().any(|p| p.alive()) {
        return Err(Failed::Run("The cluster doesn't run; `up` starts it.".into()));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failed::Run(e.to_string()))?;
    let positions = runtime.block_on(positions(&plan));
    let mut names: Vec<&str> = Vec::new();
    names.extend(plan.database.private.then_some("postgres"));
    names.extend(plan.redis.as_ref().filter(|r| r.private).map(|_| "redis"));
    names.extend(plan.processes.iter().map(|p| p.name.as_str()));
    names.push("nginx");
    println!("{:<13} {:<11} {:>8} {:>22} {:>9}  POSITION", "PROCESS", "ROLE", "PID", "ADDRESS", "MEMORY");
    let mut missing = Vec::new();
    for name in names {
        let process = plan.processes.iter().find(|p| p.name == name);
        let pid = running.processes.get(name).filter(|p| p.alive());
        let (id, memory) = match pid {
            Some(pid) => (
                pid.pid.to_string(),
                pid.memory_kib().map_or_else(|| "-".into(), |kib| format!("{:.1} MB", kib as f64 / 1024.0)),
            ),
            None => {
                missing.push(name.to_owned());
                ("-".into(), "-".into())
            }
        };
        let position = match &positions {
            Ok(all) => process.map(|p| position(all, p)).unwrap_or_default(),
            Err(_) => String::new(),
        };
        println!(
            "{name:<13} {:<11} {id:>8} {:>22} {memory:>9}  {position}",
            role(name, process),
            address(&plan, name, process)
        );
    }
    if let Err(e) = positions {
        println!("Positions are unknown: {e}");
    }
    match (missing.is_empty(), running.live_supervisor()) {
        (true, Some(_)) => Ok(()),
        (true, None) => Err(Failed::Run(
            "The supervisor doesn't run: ended processes are not started again (`up` puts that right).".into(),
        )),
        (false, _) => Err(Failed::Run(format!("Not running: {}", missing.join(", ")))),
    }
}

fn role(name: &str, process: Option<&Process>) -> &'static str {
    match (process, name) {
        (Some(process), _) => process.role.map_or("main", |r| r.name()),
        (None, "postgres") => "database",
        (None, "redis") => "bus",
        (None, _) => "proxy",
    }
}

fn address(plan: &Plan, name: &str, process: Option<&Process>) -> String {
    match (process.map(|p| &p.http), name) {
        (Some(Place::Tcp(at)), _) => at.to_string(),
        (Some(Place::Socket(path)), _) => {
            path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
        }
        (None, "nginx") => format!("{}:{}", plan.file.bind_address, plan.file.base_port),
        (None, "postgres") if !plan.database.host.starts_with('/') => {
            format!("{}:{}", plan.database.host, plan.database.port)
        }
        (None, _) => "socket".into(),
    }
}

/// Instance → stream → position, as the writers have saved them.
async fn positions(plan: &Plan) -> Result<BTreeMap<String, BTreeMap<String, i64>>, String> {
    let client = Postgres::connect(plan, &plan.database.name).await?;
    let rows = client
        .query("SELECT instance_name, stream_name, stream_id FROM stream_positions", &[])
        .await
        .map_err(|e| e.to_string())?;
    let mut all: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for row in rows {
        let get = |i: usize| row.try_get::<_, String>(i).map_err(|e| e.to_string());
        let id = row.try_get::<_, i64>(2).map_err(|e| e.to_string())?;
        all.entry(get(0)?).or_default().insert(get(1)?, id);
    }
    Ok(all)
}

/// The furthest streams of a process.
fn position(all: &BTreeMap<String, BTreeMap<String, i64>>, process: &Process) -> String {
    let instance = if process.role.is_some() { process.name.as_str() } else { config::MAIN };
    let Some(streams) = all.get(instance) else { return "follows".into() };
    let mut streams: Vec<(&String, &i64)> = streams.iter().filter(|(name, _)| *name != "backfill").collect();
    streams.sort_by_key(|(name, id)| (*name != "events", -**id));
    let shown: Vec<String> = streams.iter().take(4).map(|(name, id)| format!("{name} {id}")).collect();
    shown.join(", ")
}
