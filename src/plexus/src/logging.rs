//! Where log lines go: standard error or the file that Synapse's logging configuration names.
//!
//! Of `log_config` (a Python logging configuration) two facts are used: the root level and the file of the
//! first root handler that has one. `PLEXUS_LOG=json` writes JSON lines.

use slog::{Drain, Level, Logger, o};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What a log configuration says.
#[derive(Debug, PartialEq)]
pub struct Settings {
    pub level: Level,
    pub file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: Level::Info, file: None }
    }
}

impl Settings {
    /// Reads a Python logging configuration in YAML. What it does not say keeps its default.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let Ok(value) = config::yaml::parse(text, 0).map(|node| node.value.to_json()) else { return Self::default() };
        let level = match value["root"]["level"].as_str().map(str::to_ascii_uppercase).as_deref() {
            Some("DEBUG" | "NOTSET") => Level::Debug,
            Some("WARN" | "WARNING") => Level::Warning,
            Some("ERROR") => Level::Error,
            Some("CRITICAL" | "FATAL") => Level::Critical,
            _ => Level::Info,
        };
        let handlers = &value["handlers"];
        let named = value["root"]["handlers"].as_array().into_iter().flatten().filter_map(|h| h.as_str());
        let file = named.filter_map(|name| file_of(handlers, name)).next();
        Self { level, file }
    }
}

/// The file of a handler, looking through a buffering handler's `target`.
fn file_of(handlers: &serde_json::Value, name: &str) -> Option<PathBuf> {
    let handler = &handlers[name];
    match (handler["filename"].as_str(), handler["target"].as_str()) {
        (Some(file), _) => Some(file.into()),
        (None, Some(target)) if target != name => handlers[target]["filename"].as_str().map(PathBuf::from),
        _ => None,
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

/// The root logger, writing from a thread of its own. Lines are dropped (and counted) when it cannot keep up.
pub fn start(settings: &Settings, instance: &str) -> std::io::Result<(Logger, Output)> {
    let output = Output::open(settings.file.as_deref())?;
    let drain: Box<dyn Drain<Ok = (), Err = slog::Never> + Send> =
        if std::env::var("PLEXUS_LOG").is_ok_and(|v| v == "json") {
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
    let drain = slog::LevelFilter::new(drain, settings.level).fuse();
    Ok((Logger::root(drain, o!("process" => instance.to_owned())), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_and_file_of_synapses_own_configuration() {
        let text = "
version: 1
handlers:
  file:
    class: logging.handlers.TimedRotatingFileHandler
    filename: /var/log/hs.log
  buffer:
    class: synapse.logging.handlers.PeriodicallyFlushingMemoryHandler
    target: file
root:
  level: WARNING
  handlers: [buffer]
";
        assert_eq!(Settings::parse(text), Settings { level: Level::Warning, file: Some("/var/log/hs.log".into()) });
        assert_eq!(Settings::parse(": not yaml :["), Settings::default());
    }
}
