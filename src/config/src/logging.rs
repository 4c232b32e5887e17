//! `log_config`: a file of Python's `logging.config`, read for what can be kept of it: where logs go, whether as
//! text or JSON, and from which level on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::read::{ConfigError, Log, Section};
use crate::yaml::{self, Map, Value};

/// Severity, in Python's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `DEBUG` and below.
    Debug,
    /// `INFO`
    Info,
    /// `WARNING`
    Warning,
    /// `ERROR`
    Error,
    /// `CRITICAL`
    Critical,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, opened again at SIGHUP.
    File(PathBuf),
}

/// One place logs go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where.
    pub target: Target,
    /// One JSON object a line rather than text.
    pub json: bool,
    /// Nothing below this.
    pub level: Level,
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Where logs go; never empty.
    pub outputs: Vec<Output>,
    /// Level of everything without a level of its own.
    pub level: Level,
    /// Levels by Python logger name, such as `synapse.storage.SQL`.
    pub loggers: BTreeMap<String, Level>,
}

impl Default for Logging {
    fn default() -> Self {
        let stderr = Output { target: Target::Stderr, json: false, level: Level::Debug };
        Self { outputs: vec![stderr], level: Level::Info, loggers: BTreeMap::new() }
    }
}

impl Logging {
    /// Reads a logging configuration.
    pub fn read(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let mut log = Log { files: vec![path.to_owned()], ..Log::default() };
        let map = match std::fs::read_to_string(path) {
            Ok(text) => parse(&log, &text),
            Err(e) => {
                log.error(Some(yaml::At { file: 0, line: 1 }), "log_config", format!("can't read the file: {e}"));
                Map::default()
            }
        };
        let logging = from_map(&Section::root(&log, &map));
        let errors = std::mem::take(log.errors.get_mut());
        if errors.is_empty() { Ok(logging) } else { Err(errors) }
    }
}

fn parse(log: &Log, text: &str) -> Map {
    match yaml::parse(text, 0) {
        Ok(yaml::Node { value: Value::Map(map), .. }) => map,
        Ok(_) => Map::default(),
        Err(e) => {
            log.error(Some(yaml::At { file: 0, line: e.line }), "", format!("no valid YAML: {}", e.message));
            Map::default()
        }
    }
}

const LEVELS: &[(&str, Level)] = &[
    ("NOTSET", Level::Debug),
    ("DEBUG", Level::Debug),
    ("INFO", Level::Info),
    ("WARNING", Level::Warning),
    ("WARN", Level::Warning),
    ("ERROR", Level::Error),
    ("CRITICAL", Level::Critical),
    ("FATAL", Level::Critical),
];

fn level(section: &Section<'_>, default: Level) -> Level {
    match section.some("level").map(|n| &n.value) {
        Some(Value::Int(n)) => match n {
            ..=19 => Level::Debug,
            20..=29 => Level::Info,
            30..=39 => Level::Warning,
            40..=49 => Level::Error,
            _ => Level::Critical,
        },
        _ => section.word("level", LEVELS).unwrap_or(default),
    }
}

fn from_map(root: &Section<'_>) -> Logging {
    let base = root.child("root");
    let mut loggers: BTreeMap<String, Level> =
        root.named_maps("loggers").iter().map(|(name, s)| ((*name).to_owned(), level(s, Level::Debug))).collect();
    // Python's root logger is at WARNING until told otherwise.
    let mut top = level(&base, Level::Warning);
    if let Some(synapse) = loggers.remove("synapse") {
        top = synapse;
    }
    // Handlers may be attached to the logger `synapse` instead of the root.
    let mut names = base.strings("handlers");
    for (name, section) in root.named_maps("loggers") {
        if name == "synapse" || names.is_empty() {
            names.extend(section.strings("handlers"));
        }
    }
    let handlers = root.child("handlers");
    let mut outputs: Vec<Output> = Vec::new();
    for name in names {
        if let Some(found) = output(root, &handlers, &name, 0).filter(|o| !outputs.contains(o)) {
            outputs.push(found);
        }
    }
    if outputs.is_empty() {
        outputs = Logging::default().outputs;
    }
    Logging { outputs, level: top, loggers }
}

fn output(root: &Section<'_>, handlers: &Section<'_>, name: &str, depth: u8) -> Option<Output> {
    if !handlers.has(name) {
        handlers.error(name, "no such handler, though a logger names it");
        return None;
    }
    let handler = handlers.child(name);
    // A buffer in front of another handler.
    if let Some(target) = handler.nonempty("target").filter(|_| depth < 4) {
        return output(root, handlers, &target, depth + 1);
    }
    let class = handler.string_or("class", "");
    let target = match handler.file("filename") {
        Some(path) => Target::File(path),
        None if class.contains("StreamHandler") && handler.string_or("stream", "") == "ext://sys.stdout" => {
            Target::Stdout
        }
        None => Target::Stderr,
    };
    let formatter = handler.nonempty("formatter").map(|name| root.child("formatters").child(&name));
    let json =
        formatter.is_some_and(|f| ["class", "()"].iter().any(|key| f.string_or(key, "").contains("JsonFormatter")));
    Some(Output { target, json, level: level(&handler, Level::Debug) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Logging {
        let log = Log::default();
        let map = parse(&log, text);
        let logging = from_map(&Section::root(&log, &map));
        assert!(log.errors.borrow().is_empty(), "{:?}", log.errors);
        logging
    }

    #[test]
    fn synapses_own_file_is_understood() {
        let logging = read(
            "version: 1\nformatters: {precise: {format: '%(message)s'}}\nhandlers:\n  file: {class: logging.handlers.TimedRotatingFileHandler, formatter: precise, filename: /x/homeserver.log}\n  buffer: {class: synapse.logging.handlers.PeriodicallyFlushingMemoryHandler, target: file, capacity: 10}\n  console: {class: logging.StreamHandler, formatter: precise}\nloggers: {synapse.storage.SQL: {level: INFO}}\nroot: {level: INFO, handlers: [buffer]}\ndisable_existing_loggers: false\n",
        );
        assert_eq!(
            logging.outputs,
            [Output { target: Target::File("/x/homeserver.log".into()), json: false, level: Level::Debug }]
        );
        assert_eq!(logging.level, Level::Info);
        assert_eq!(logging.loggers.get("synapse.storage.SQL"), Some(&Level::Info));
    }

    #[test]
    fn json_stdout_and_numbers() {
        let logging = read(
            "formatters: {j: {'()': synapse.logging.TerseJsonFormatter}}\nhandlers: {out: {class: logging.StreamHandler, stream: 'ext://sys.stdout', formatter: j, level: 30}}\nroot: {handlers: [out], level: DEBUG}\n",
        );
        assert_eq!(logging.outputs, [Output { target: Target::Stdout, json: true, level: Level::Warning }]);
        assert_eq!(logging.level, Level::Debug);
        assert_eq!(read("").outputs, Logging::default().outputs);
    }
}
