//! Starting and stopping processes.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::failed::{Failed, io};
use super::state::Pid;

/// A process of the cluster and how to start it again.
pub struct Managed {
    /// Its name in `status`.
    pub name: String,
    /// Builds its command line.
    command: Box<dyn Fn() -> Command + Send>,
    log: PathBuf,
    /// Signal that asks it to stop.
    pub stop_signal: libc::c_int,
    child: Child,
    pid: Option<Pid>,
    /// Ends in a row soon after the start.
    failures: u32,
    started: Instant,
    /// When it is to be started again.
    due: Option<Instant>,
}

impl Managed {
    /// Starts a process in a session of its own, its output going to a log.
    pub fn start(
        name: &str,
        log: &Path,
        stop_signal: libc::c_int,
        command: impl Fn() -> Command + Send + 'static,
    ) -> Result<Self, Failed> {
        let child = spawn(name, command(), log)?;
        let pid = Pid::of(child.id());
        Ok(Self {
            name: name.to_owned(),
            command: Box::new(command),
            log: log.to_owned(),
            stop_signal,
            child,
            pid,
            failures: 0,
            started: Instant::now(),
            due: None,
        })
    }

    /// The process as it runs now.
    pub fn pid(&self) -> Option<Pid> {
        self.pid.filter(|p| p.alive())
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            Ok(None) => None,
            Err(e) => Some(e.to_string()),
        }
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Starts it again if it has ended, later each time it ends at once. True if it was started.
    pub fn keep_alive(&mut self) -> Result<bool, Failed> {
        let Some(how) = self.ended() else { return Ok(false) };
        let Some(due) = self.due else {
            self.failures = if self.started.elapsed() > Duration::from_secs(30) { 0 } else { self.failures + 1 };
            let wait = Duration::from_millis(200 << self.failures.min(7));
            self.due = Some(Instant::now() + wait);
            println!("{} ended ({how}); starting it again in {:.1} s", self.name, wait.as_secs_f32());
            return Ok(false);
        };
        if Instant::now() < due {
            return Ok(false);
        }
        self.child = spawn(&self.name, (self.command)(), &self.log)?;
        self.pid = Pid::of(self.child.id());
        self.started = Instant::now();
        self.due = None;
        Ok(true)
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        if let Some(pid) = self.pid() {
            pid.signal(self.stop_signal);
        }
    }

    /// Waits until it has ended; kills it when time is up.
    pub fn wait_end(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.ended().is_none() {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Child, Failed> {
    let file = append(log)?;
    let errors = file.try_clone().map_err(io(log))?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    command
        .spawn()
        .map_err(|e| Failed::Run(format!("can't start {name} ({}): {e}", command.get_program().to_string_lossy())))
}

/// Opens a log for writing at its end.
pub fn append(log: &Path) -> Result<File, Failed> {
    OpenOptions::new().create(true).append(true).open(log).map_err(io(log))
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].iter().map(|l| format!("    {l}\n")).collect()
}

/// Ends processes nobody waits for: those of a run that was killed.
pub fn end_strays(pids: &[(String, Pid, libc::c_int)]) {
    let alive = |pid: &Pid| pid.alive();
    for (_, pid, signal) in pids {
        pid.signal(*signal);
    }
    let until = Instant::now() + Duration::from_secs(15);
    while pids.iter().any(|(_, pid, _)| alive(pid)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    for (name, pid, _) in pids.iter().filter(|(_, pid, _)| alive(pid)) {
        println!("{name} doesn't stop; killing it");
        pid.signal(libc::SIGKILL);
    }
}
