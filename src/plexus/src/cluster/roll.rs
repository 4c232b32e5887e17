//! `plexus cluster roll`: brings processes run by systemd to the configuration their units now have.
//!
//! Their sockets stay with systemd, so a request that comes while a process restarts waits for it. First a process
//! that nobody depends on is started with the new configuration and asked something; if that fails nothing has
//! happened yet (with a single process, beside which nothing may run, that is a dry run of it). Then one process after the other is restarted and asked; the first that fails ends the roll and
//! leaves the rest as they are. Only where processes would contradict each other (who writes what has changed) they
//! are restarted at once.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use config::plan::{GENERATION, Plan, Process, Role};

use super::command;
use super::failed::Failed;
use super::plans::read_plan;
use super::services::target;
use crate::client::Client;

/// Time a process that says it is ready has to answer rightly.
const PATIENCE: Duration = Duration::from_secs(10);

/// Those whose absence is felt least go first, main goes last.
const ORDER: [Role; 9] = [
    Role::Client,
    Role::Media,
    Role::Federation,
    Role::Sync,
    Role::Pusher,
    Role::Sender,
    Role::Background,
    Role::Streams,
    Role::Events,
];

/// What has to be done about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// It doesn't run.
    Start,
    /// It runs with another configuration of its own.
    Restart,
    /// It runs with another view of the cluster than the others will have.
    Together,
}

/// Runs the command.
pub fn run(args: &command::Roll) -> Result<(), Failed> {
    let plan = read_plan(&args.file).and_then(|plan| plan.on_host(args.host.as_deref())).map_err(Failed::Config)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failed::Run(e.to_string()))?;
    let systemctl = plan.file.systemd.systemctl.clone().unwrap_or_else(|| "systemctl".into());
    let client = Client::new(plan.tls().map(|tls| tls.ca.as_path()))?;
    let roll = Roll { client, systemctl, runtime, plan };
    let mut needs: Vec<(Process, Need)> = Vec::new();
    for process in in_order(&roll.plan) {
        needs.push((process.clone(), roll.need(process)?));
    }
    let leftovers = roll.leftovers()?;
    for (process, need) in needs.iter().filter(|(_, need)| *need != Need::Nothing) {
        println!("{}: {need:?}", process.name);
    }
    leftovers.iter().for_each(|unit| println!("{unit}: Stop"));
    if args.dry_run {
        return Ok(());
    }
    roll.roll(&needs)?;
    for unit in &leftovers {
        roll.systemctl(&["stop", &format!("{unit}.service"), &format!("{unit}.socket")])?;
    }
    println!("All processes run with the present configuration.");
    Ok(())
}

/// The processes of this host in the order in which they are restarted.
fn in_order(plan: &Plan) -> Vec<&Process> {
    let mut processes: Vec<&Process> = plan.here().collect();
    processes.sort_by_key(|p| p.role.map_or(ORDER.len(), |role| ORDER.iter().position(|r| *r == role).unwrap_or(0)));
    processes
}

struct Roll {
    plan: Plan,
    client: Client,
    systemctl: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Roll {
    fn roll(&self, needs: &[(Process, Need)]) -> Result<(), Failed> {
        let with = |need| needs.iter().filter(move |(_, n)| *n == need).map(|(process, _)| process);
        let old: Vec<&Process> =
            needs.iter().filter(|(_, n)| matches!(n, Need::Restart | Need::Together)).map(|(p, _)| p).collect();
        if needs.iter().any(|(_, need)| *need != Need::Nothing) {
            self.systemctl(&["restart", "plexus-schema.service"])?;
        }
        if !old.is_empty() {
            self.try_canary()?;
        }
        for process in with(Need::Start) {
            println!("Starting {}", process.name);
            self.systemctl(&["start", &format!("{}.service", process.unit())])?;
        }
        // The proxy must know who is new before, and forget who goes before that one is stopped.
        if let Some(unit) = &self.plan.file.systemd.proxy_unit {
            self.systemctl(&["try-reload-or-restart", unit])?;
        }
        if with(Need::Together).next().is_some() {
            self.restart_together(&old)?;
        } else {
            self.restart_each(&old)?;
        }
        for process in with(Need::Nothing) {
            self.systemctl(&["reload", &format!("{}.service", process.unit())])?;
        }
        Ok(())
    }

    /// Where there is only main the canary is a dry run, which has ended well once the unit is started.
    fn try_canary(&self) -> Result<(), Failed> {
        let unit = format!("{}.service", Plan::CANARY_UNIT);
        println!("Trying the new configuration with {unit}");
        let started = self.systemctl(&["start", &unit]);
        let tried = started.and_then(|()| self.plan.canary().map_or(Ok(()), |canary| self.check(&canary)));
        // Its end says nothing more about the configuration.
        let _ = self.systemctl(&["stop", &unit]);
        tried.map_err(|e| failed("Nothing was restarted: the canary does not work", e))
    }

    fn restart_each(&self, processes: &[&Process]) -> Result<(), Failed> {
        for (done, process) in processes.iter().enumerate() {
            println!("Restarting {}", process.name);
            let restarted =
                self.systemctl(&["restart", &format!("{}.service", process.unit())]).and_then(|()| self.check(process));
            restarted.map_err(|e| {
                let rest: Vec<&str> = processes[done + 1..].iter().map(|p| p.name.as_str()).collect();
                failed(&format!("{} does not work; still as before: [{}]", process.name, rest.join(", ")), e)
            })?;
        }
        Ok(())
    }

    /// All stop before the first starts again, since each comes after main in the order of units.
    fn restart_together(&self, processes: &[&Process]) -> Result<(), Failed> {
        println!("Who does what has changed: restarting all at once");
        let units: Vec<String> = processes.iter().map(|p| format!("{}.service", p.unit())).collect();
        let mut words = vec!["restart"];
        words.extend(units.iter().map(String::as_str));
        self.systemctl(&words)?;
        processes.iter().try_for_each(|process| self.check(process))
    }

    fn systemctl(&self, words: &[&str]) -> Result<(), Failed> {
        let status =
            Command::new(&self.systemctl).args(words).status().map_err(|e| Failed::Run(format!("systemctl: {e}")))?;
        if status.success() {
            Ok(())
        } else {
            Err(Failed::Run(format!("systemctl {} failed ({status})", words.join(" "))))
        }
    }

    fn ask(&self, words: &[&str]) -> Result<String, Failed> {
        let output =
            Command::new(&self.systemctl).args(words).output().map_err(|e| Failed::Run(format!("systemctl: {e}")))?;
        if !output.status.success() {
            return Err(Failed::Run(format!(
                "systemctl {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn need(&self, process: &Process) -> Result<Need, Failed> {
        let unit = format!("{}.service", process.unit());
        let shown =
            self.ask(&["show", "--timestamp=unix", "--property=MainPID,Environment,ExecMainStartTimestamp", &unit])?;
        let property = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let wanted = property("Environment").and_then(|all| generation(all.split(' ')));
        let Some(pid) = property("MainPID").and_then(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid != 0) else {
            return Ok(Need::Start);
        };
        let environment = std::fs::read(format!("/proc/{pid}/environ"))
            .map_err(|e| Failed::Run(format!("environment of {unit}: {e}")))?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let running = generation(environment.split('\0'));
        Ok(match need(wanted, running) {
            Need::Nothing => {
                let started = property("ExecMainStartTimestamp")
                    .and_then(|at| at.trim_start_matches('@').parse().ok())
                    .unwrap_or(0);
                self.need_for_secrets(pid, &environment, started)
            }
            need => need,
        })
    }

    /// systemd gives a process its credentials when it starts; what has changed since is only seen by a new one. All
    /// must know each other by the same replication secret. `started`: seconds since the epoch.
    fn need_for_secrets(&self, pid: u32, environment: &str, started: u64) -> Need {
        let Some(folder) = environment.split('\0').find_map(|line| line.strip_prefix("CREDENTIALS_DIRECTORY=")) else {
            return Need::Nothing;
        };
        let differs = |name: &str, file: &Path| {
            let has = std::fs::read(format!("/proc/{pid}/root{folder}/{name}"));
            has.is_ok() && has.ok() != std::fs::read(file).ok()
        };
        // What is encrypted can only be told by when it was written.
        let newer = |file: &Path| {
            std::fs::metadata(file).is_ok_and(|m| m.mtime() >= i64::try_from(started).unwrap_or(i64::MAX))
        };
        let systemd = &self.plan.file.systemd;
        let plain = systemd.credentials.iter().filter(|(name, file)| differs(name, file));
        let changed: Vec<&String> = plain
            .chain(systemd.encrypted_credentials.iter().filter(|(_, file)| newer(file)))
            .map(|(name, _)| name)
            .collect();
        match changed.iter().any(|name| *name == "worker_replication_secret") {
            true => Need::Together,
            false if changed.is_empty() => Need::Nothing,
            false => Need::Restart,
        }
    }

    /// Asks a process whether it is well, and then something that it needs the database for.
    fn check(&self, process: &Process) -> Result<(), Failed> {
        let target = target(&self.plan, &process.http);
        let until = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            loop {
                let well = self.client.text(&target, "/health").await.map(|(status, _)| status == 200);
                let whoami = "/_matrix/client/v3/account/whoami";
                let asked = self.client.get(&target, whoami, Some("nobodys-token")).await;
                match (well, asked) {
                    (Ok(true), Ok((401, answer))) if answer["errcode"] == "M_UNKNOWN_TOKEN" => return Ok(()),
                    (well, asked) if Instant::now() > until => {
                        return Err(Failed::Run(format!(
                            "{} answers wrongly: health {well:?}, {whoami} {asked:?}",
                            process.name
                        )));
                    }
                    _ => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        })
    }

    /// Units, without `.service`, of processes that the configuration no longer has.
    fn leftovers(&self) -> Result<Vec<String>, Failed> {
        let listed = self.ask(&[
            "list-units",
            "--plain",
            "--no-legend",
            "--state=active,activating,reloading",
            "plexus-*.service",
        ])?;
        let units = listed.lines().filter_map(|line| line.split_whitespace().next()?.strip_suffix(".service"));
        let known = |unit: &str| self.plan.here().any(|p| p.unit() == unit);
        Ok(units.filter(|unit| is_worker(unit) && !known(unit)).map(str::to_owned).collect())
    }
}

fn failed(what: &str, why: Failed) -> Failed {
    match why {
        Failed::Config(why) | Failed::Run(why) => Failed::Run(format!("{what}: {why}")),
    }
}

/// Whether a unit's name is that of a worker: it ends in a role and a number.
fn is_worker(unit: &str) -> bool {
    let name = unit.trim_end_matches(|c: char| c.is_ascii_digit());
    name.len() < unit.len()
        && Role::ALL.iter().any(|role| name.strip_suffix(role.name()).is_some_and(|before| before.ends_with('-')))
}

/// The generation among an environment's lines.
fn generation<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    lines.find_map(|line| line.strip_prefix(GENERATION)?.strip_prefix('='))
}

/// `agreed-own` of the unit and of the process.
fn need(wanted: Option<&str>, running: Option<&str>) -> Need {
    let agreed =
        |generation: Option<&str>| generation.and_then(|g| g.split_once('-')).map(|(agreed, _)| agreed.to_owned());
    match (wanted, running) {
        (wanted, running) if wanted == running => Need::Nothing,
        (wanted, running) if agreed(wanted) == agreed(running) => Need::Restart,
        _ => Need::Together,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_says_who_restarts() {
        assert_eq!(need(Some("a-1"), Some("a-1")), Need::Nothing);
        assert_eq!(need(Some("a-2"), Some("a-1")), Need::Restart);
        assert_eq!(need(Some("b-2"), Some("a-1")), Need::Together);
        // Units of before there were generations.
        assert_eq!(need(Some("b-2"), None), Need::Together);
        assert_eq!(generation("A=1 PLEXUS_GENERATION=a-1 B=2".split(' ')), Some("a-1"));
    }

    #[test]
    fn only_workers_can_be_left_over() {
        for unit in ["plexus-sync1", "plexus-one-events12"] {
            assert!(is_worker(unit), "{unit}");
        }
        for unit in ["plexus-main", "plexus-canary", "plexus-schema", "plexus-sync", "plexus-mysync1", "plexus-1"] {
            assert!(!is_worker(unit), "{unit}");
        }
    }

    #[test]
    fn main_goes_last() {
        let plan = super::super::plans::example_plan().expect("plan");
        let names: Vec<&str> = in_order(&plan).into_iter().map(|p| p.name.as_str()).collect();
        assert_eq!((names.first(), names.last()), (Some(&"client1"), Some(&"main")));
    }
}
