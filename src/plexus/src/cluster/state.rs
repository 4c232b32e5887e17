//! What a running cluster has written down: chosen ports and process ids. All of it may be stale.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use config::plan::{Place, Plan};
use serde::{Deserialize, Serialize};

use super::failed::{Failed, io};

/// A process by its id and start time, which together are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pid {
    /// Process id.
    pub pid: u32,
    /// Clock ticks from boot to its start (`/proc/PID/stat`).
    pub started: u64,
}

impl Pid {
    /// The process with this id, if it runs.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, so fields are counted from behind it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let running = !matches!(fields.first(), Some(&"Z" | &"X") | None);
        let started = fields.get(19)?.parse().ok()?;
        running.then_some(Self { pid, started })
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(self, signal: libc::c_int) {
        if self.alive()
            && let Ok(pid) = libc::pid_t::try_from(self.pid)
        {
            // SAFETY: kill takes no pointers.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Resident memory in KiB.
    pub fn memory_kib(self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// `run/cluster.json`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Running {
    /// The process that looks after the others.
    pub supervisor: Option<Pid>,
    /// By name: `postgres`, `redis`, `main`, `events1`, …, `nginx`.
    pub processes: BTreeMap<String, Pid>,
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("run/cluster.json")
}

impl Running {
    /// What was written last; nothing if that can't be read.
    pub fn read(data_dir: &Path) -> Self {
        let text = std::fs::read(path(data_dir)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it down in one step.
    pub fn write(&self, data_dir: &Path) -> Result<(), Failed> {
        let (path, new) = (path(data_dir), path(data_dir).with_extension("new"));
        let text = serde_json::to_vec_pretty(self).map_err(|e| Failed::Run(e.to_string()))?;
        std::fs::write(&new, text).map_err(io(&new))?;
        std::fs::rename(&new, &path).map_err(io(&path))
    }

    /// The supervisor, if it runs.
    pub fn live_supervisor(&self) -> Option<Pid> {
        self.supervisor.filter(|p| p.alive())
    }
}

fn port_file(data_dir: &Path) -> PathBuf {
    data_dir.join("run/base_port")
}

/// The base port an earlier run has chosen.
pub fn chosen_port(data_dir: &Path) -> Option<u16> {
    std::fs::read_to_string(port_file(data_dir)).ok()?.trim().parse().ok()
}

/// Remembers the base port.
pub fn choose_port(data_dir: &Path, port: u16) -> Result<(), Failed> {
    let path = port_file(data_dir);
    std::fs::write(&path, format!("{port}\n")).map_err(io(&path))
}

/// Ports a plan takes.
fn ports(plan: &Plan) -> Vec<u16> {
    let mut ports = vec![plan.file.base_port];
    for process in &plan.processes {
        for place in [&process.http, &process.replication] {
            if let Place::Tcp(at) = place {
                ports.push(at.port());
            }
        }
    }
    if plan.database.private && !plan.database.host.starts_with('/') {
        ports.push(plan.database.port);
    }
    ports
}

/// Whether all ports of the plan can be taken now.
pub fn ports_free(plan: &Plan) -> bool {
    ports(plan).into_iter().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

/// Base ports to try after the wanted one.
pub fn other_ports(wanted: u16) -> impl Iterator<Item = u16> {
    (1..40u16).filter_map(move |n| wanted.checked_add(n * 500)).filter(|p| *p < 32_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Pid::of(std::process::id()).expect("this process");
        assert!(me.alive() && me.memory_kib().is_some_and(|kib| kib > 0));
        assert!(!Pid { started: me.started + 1, ..me }.alive());
        assert_eq!(Pid::of(u32::MAX), None);
    }
}
