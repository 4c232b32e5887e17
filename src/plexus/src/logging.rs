//! Where log lines go: standard error or the file that Synapse's logging configuration names.
//!
//! Of `log_config` (a Python logging configuration) three facts are used: the root level, the first root
//! handler's target, and whether its formatter writes JSON. `PLEXUS_LOG=json` writes JSON lines anyway.

use slog::{Drain, Level, Logger, OwnedKVList, Record, o};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a log configuration says.
#[derive(Debug)]
pub struct Settings {
    pub level: Level,
    pub file: Option<PathBuf>,
    pub json: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: Level::Info, file: None, json: false }
    }
}

impl Settings {
    /// Reads a Python logging configuration in YAML. What it does not say keeps its default.
    pub fn read(path: &Path) -> Result<Self, Vec<config::ConfigError>> {
        Ok(Self::from(config::logging::Logging::read(path)?))
    }
}

impl From<config::logging::Logging> for Settings {
    fn from(logging: config::logging::Logging) -> Self {
        let level = match logging.level {
            config::logging::Level::Debug => Level::Debug,
            config::logging::Level::Info => Level::Info,
            config::logging::Level::Warning => Level::Warning,
            config::logging::Level::Error => Level::Error,
            config::logging::Level::Critical => Level::Critical,
        };
        let output = logging.outputs.into_iter().next();
        let json = output.as_ref().is_some_and(|o| o.json);
        let file = match output.map(|o| o.target) {
            Some(config::logging::Target::File(path)) => Some(path),
            _ => None,
        };
        Self { level, file, json }
    }
}

/// An output that can be opened anew (log rotation, SIGHUP).
#[derive(Clone)]
pub struct Output(Arc<Mutex<Target>>);

enum Target {
    Stderr,
    File { path: PathBuf, file: File },
}

impl Output {
    fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let target = match path {
            None => Target::Stderr,
            Some(path) => Target::File { path: path.to_owned(), file: append(path)? },
        };
        Ok(Self(Arc::new(Mutex::new(target))))
    }

    /// Opens the file again; the old one stays in use if that fails.
    pub fn reopen(&self) {
        let mut target = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Target::File { path, file } = &mut *target
            && let Ok(new) = append(path)
        {
            *file = new;
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(|e| e.into_inner()) {
            Target::Stderr => std::io::stderr().write(buf),
            Target::File { file, .. } => file.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut *self.0.lock().unwrap_or_else(|e| e.into_inner()) {
            Target::Stderr => std::io::stderr().flush(),
            Target::File { file, .. } => file.flush(),
        }
    }
}

/// Lets lines of a level or a graver one through; the level may change while the process runs.
struct Threshold<D> {
    drain: D,
    level: Arc<AtomicUsize>,
}

impl<D: Drain> Drain for Threshold<D> {
    type Ok = Option<D::Ok>;
    type Err = Option<D::Err>;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<Self::Ok, Self::Err> {
        if !self.is_enabled(record.level()) {
            return Ok(None);
        }
        self.drain.log(record, values).map(Some).map_err(Some)
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.as_usize() <= self.level.load(Ordering::Relaxed)
    }
}

/// What of logging can be changed while the process runs.
pub struct Controls {
    output: Output,
    level: Arc<AtomicUsize>,
}

impl Controls {
    /// Opens the file anew and takes over the level. Another file needs a restart.
    pub fn reload(&self, settings: &Settings) {
        self.output.reopen();
        self.level.store(settings.level.as_usize(), Ordering::Relaxed);
    }
}

/// The root logger, writing from a thread of its own. Lines are dropped (and counted) when it cannot keep up.
pub fn start(settings: &Settings, instance: &str) -> std::io::Result<(Logger, Controls)> {
    let output = Output::open(settings.file.as_deref())?;
    let drain: Box<dyn Drain<Ok = (), Err = slog::Never> + Send> =
        if settings.json || std::env::var("PLEXUS_LOG").is_ok_and(|v| v == "json") {
            Box::new(slog_json::Json::default(output.clone()).ignore_res())
        } else {
            let colours = settings.file.is_none() && std::io::stderr().is_terminal();
            if colours {
                Box::new(slog_term::FullFormat::new(slog_term::TermDecorator::new().build()).build().ignore_res())
            } else {
                let decorator = slog_term::PlainSyncDecorator::new(output.clone());
                Box::new(slog_term::FullFormat::new(decorator).build().ignore_res())
            }
        };
    let drain = slog_async::Async::new(drain).chan_size(4096).build().fuse();
    let level = Arc::new(AtomicUsize::new(settings.level.as_usize()));
    let drain = Threshold { drain, level: level.clone() }.fuse();
    Ok((Logger::root(drain, o!("process" => instance.to_owned())), Controls { output, level }))
}
