//! Typed access to a YAML mapping: every wrong value becomes a [`ConfigError`] and the default is used, so that
//! one run shows all mistakes.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;
use crate::yaml::{At, Map, Node, Value};

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file and line it is in, where one line is to blame.
    pub place: Option<(PathBuf, u32)>,
    /// The key's path, such as `listeners[0].port`; empty if the mistake is none of a key.
    pub key: String,
    /// What is wrong: what was found and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line)) = &self.place {
            write!(f, "{}:{line}: ", file.display())?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Where mistakes and warnings gather while a configuration is read.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub files: Vec<PathBuf>,
    pub errors: RefCell<Vec<ConfigError>>,
    pub warnings: RefCell<Vec<String>>,
    /// Refuse secrets written in the file (`--no-secrets-in-config`).
    pub refuse_inline_secrets: bool,
}

impl Log {
    pub fn error(&self, at: Option<At>, key: &str, message: impl Into<String>) {
        let place = at.and_then(|at| Some((self.files.get(at.file as usize)?.clone(), at.line)));
        self.errors.borrow_mut().push(ConfigError { place, key: key.to_owned(), message: message.into() });
    }

    pub fn warn(&self, at: Option<At>, key: &str, message: impl fmt::Display) {
        let place = match at.and_then(|at| Some((self.files.get(at.file as usize)?, at.line))) {
            Some((file, line)) => format!("{}:{line}: ", file.display()),
            None => String::new(),
        };
        self.warnings.borrow_mut().push(format!("{place}{key}: {message}"));
    }
}

/// A mapping being read, with its path for messages.
#[derive(Clone)]
pub(crate) struct Section<'a> {
    pub log: &'a Log,
    pub map: &'a Map,
    pub path: String,
    pub at: Option<At>,
}

static EMPTY: Map = Map::empty();

impl<'a> Section<'a> {
    pub fn root(log: &'a Log, map: &'a Map) -> Self {
        Self { log, map, path: String::new(), at: None }
    }

    /// The full path of a key in this mapping.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The node of a key, unless it is absent.
    pub fn node(&self, key: &str) -> Option<&'a Node> {
        self.map.get(key)
    }

    /// The node of a key, unless it is absent or null.
    pub fn some(&self, key: &str) -> Option<&'a Node> {
        self.map.get(key).filter(|n| n.value != Value::Null)
    }

    /// Whether the key is written, even as null.
    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some()
    }

    /// Records a mistake at a key of this mapping.
    pub fn error(&self, key: &str, message: impl Into<String>) {
        let at = self.map.get(key).map(|n| n.at).or(self.at);
        let path = if key.is_empty() { self.path.clone() } else { self.key(key) };
        self.log.error(at, &path, message);
    }

    /// Records a warning at a key of this mapping.
    pub fn warn(&self, key: &str, message: impl fmt::Display) {
        let at = self.map.get(key).map(|n| n.at).or(self.at);
        self.log.warn(at, &self.key(key), message);
    }

    fn wrong(&self, key: &str, node: &Node, allowed: &str) {
        let found = if looks_secret(key) { node.value.kind().to_owned() } else { node.value.describe() };
        self.error(key, format!("found {found}; allowed: {allowed}"));
    }

    /// A sub-mapping; absent, null and other false values are empty, as `config.get(key) or {}` is in Synapse.
    pub fn child(&self, key: &str) -> Section<'a> {
        let path = self.key(key);
        match self.map.get(key) {
            Some(Node { value: Value::Map(map), at }) => Section { log: self.log, map, path, at: Some(*at) },
            Some(node) if node.value.truthy() => {
                self.wrong(key, node, "a mapping");
                Section { log: self.log, map: &EMPTY, path, at: Some(node.at) }
            }
            other => Section { log: self.log, map: &EMPTY, path, at: other.map(|n| n.at) },
        }
    }

    /// A list of nodes; absent and null are empty.
    pub fn list(&self, key: &str) -> &'a [Node] {
        match self.some(key) {
            None => &[],
            Some(Node { value: Value::List(items), .. }) => items,
            Some(node) => {
                if node.value.truthy() {
                    self.wrong(key, node, "a list");
                }
                &[]
            }
        }
    }

    /// The items of a list as mappings with their own path (`key[0]`).
    pub fn maps(&self, key: &str) -> Vec<Section<'a>> {
        let mut sections = Vec::new();
        for (i, node) in self.list(key).iter().enumerate() {
            let path = format!("{}[{i}]", self.key(key));
            match &node.value {
                Value::Map(map) => sections.push(Section { log: self.log, map, path, at: Some(node.at) }),
                other => {
                    self.log.error(Some(node.at), &path, format!("found {}; allowed: a mapping", other.describe()))
                }
            }
        }
        sections
    }

    /// The entries of a mapping that are mappings themselves.
    pub fn named_maps(&self, key: &str) -> Vec<(&'a str, Section<'a>)> {
        let parent = self.child(key);
        let mut sections = Vec::new();
        for (name, node) in parent.map.iter() {
            match &node.value {
                Value::Map(map) => {
                    sections.push((name, Section { log: self.log, map, path: parent.key(name), at: Some(node.at) }))
                }
                other => parent.error(name, format!("found {}; allowed: a mapping", other.describe())),
            }
        }
        sections
    }

    /// A flag by Python's truthiness, as Synapse reads it. A non-empty string counts as true, whatever it says;
    /// that is worth a warning.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        match self.node(key) {
            None => default,
            Some(node) => {
                match &node.value {
                    Value::Str(s)
                        if matches!(s.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0" | "n" | "f") =>
                    {
                        self.warn(
                            key,
                            format_args!("the string {s:?} counts as true (as in Synapse); write false without quotes"),
                        );
                    }
                    Value::List(_) | Value::Map(_) => self.wrong(key, node, "true or false"),
                    _ => {}
                }
                node.value.truthy()
            }
        }
    }

    /// A flag that may be unset (absent or null).
    pub fn maybe_flag(&self, key: &str) -> Option<bool> {
        self.some(key).map(|_| self.flag(key, false))
    }

    /// A flag that Synapse reads by its text (`y`, `true`, `on`, `1`, … or their opposites).
    pub fn text_flag(&self, key: &str, default: bool) -> bool {
        let Some(node) = self.node(key) else { return default };
        match &node.value {
            Value::Bool(b) => *b,
            Value::Int(0) => false,
            Value::Int(1) => true,
            Value::Str(s) if matches!(s.to_ascii_lowercase().as_str(), "y" | "yes" | "t" | "true" | "on" | "1") => true,
            Value::Str(s) if matches!(s.to_ascii_lowercase().as_str(), "n" | "no" | "f" | "false" | "off" | "0") => {
                false
            }
            _ => {
                self.wrong(key, node, "true or false");
                default
            }
        }
    }

    /// A string; absent and null are `None`.
    pub fn string(&self, key: &str) -> Option<String> {
        let node = self.some(key)?;
        match &node.value {
            Value::Str(s) => Some(s.clone()),
            _ => {
                self.wrong(key, node, "a string");
                None
            }
        }
    }

    /// A string or a default.
    pub fn string_or(&self, key: &str, default: &str) -> String {
        self.string(key).unwrap_or_else(|| default.to_owned())
    }

    /// A string that isn't empty.
    pub fn nonempty(&self, key: &str) -> Option<String> {
        self.string(key).filter(|s| !s.is_empty())
    }

    /// A file or folder; empty is `None`. See [`located`].
    pub fn file(&self, key: &str) -> Option<PathBuf> {
        self.nonempty(key).map(|path| located(&path))
    }

    /// A whole number within bounds; absent and null are `None`.
    pub fn int(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let node = self.some(key)?;
        match node.value {
            Value::Int(i) if (min..=max).contains(&i) => Some(i),
            _ => {
                let allowed = match max {
                    i64::MAX => format!("a whole number, at least {min}"),
                    _ => format!("a whole number from {min} to {max}"),
                };
                self.wrong(key, node, &allowed);
                None
            }
        }
    }

    /// A whole number from 0, or a default.
    pub fn count(&self, key: &str, default: u64) -> u64 {
        self.int(key, 0, i64::MAX).map_or(default, |i| i as u64)
    }

    /// A TCP port.
    pub fn port(&self, key: &str) -> Option<u16> {
        self.int(key, 0, 65535).map(|p| p as u16)
    }

    /// A number, whole or not, from 0.
    pub fn number(&self, key: &str) -> Option<f64> {
        let node = self.some(key)?;
        let number = match node.value {
            Value::Int(i) => i as f64,
            Value::Float(f) => f,
            _ => f64::NAN,
        };
        if number >= 0.0 && number.is_finite() {
            return Some(number);
        }
        self.wrong(key, node, "a number, at least 0");
        None
    }

    /// A duration in milliseconds (`5m`, `1h`, or a number of milliseconds); absent and null are `None`.
    pub fn duration(&self, key: &str) -> Option<u64> {
        let node = self.some(key)?;
        let ms = duration_ms(&node.value);
        if ms.is_none() {
            self.wrong(key, node, "a number of milliseconds, or a whole number with s, m, h, d, w or y");
        }
        ms
    }

    /// A duration in milliseconds with a default.
    pub fn duration_or(&self, key: &str, default_ms: u64) -> u64 {
        self.duration(key).unwrap_or(default_ms)
    }

    /// A size in bytes (`50M`; K, M, G, T are powers of 1024); absent and null are `None`.
    pub fn size(&self, key: &str) -> Option<u64> {
        let node = self.some(key)?;
        let bytes = size_bytes(&node.value);
        if bytes.is_none() {
            self.wrong(key, node, "a number of bytes, or a whole number with K, M, G or T");
        }
        bytes
    }

    /// A list of strings; absent and null are empty.
    pub fn strings(&self, key: &str) -> Vec<String> {
        let mut strings = Vec::new();
        for (i, node) in self.list(key).iter().enumerate() {
            match &node.value {
                Value::Str(s) => strings.push(s.clone()),
                other => {
                    let path = format!("{}[{i}]", self.key(key));
                    self.log.error(Some(node.at), &path, format!("found {}; allowed: a string", other.describe()));
                }
            }
        }
        strings
    }

    /// One of a few words. `None` if absent, null or wrong.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let node = self.some(key)?;
        if let Value::Str(s) = &node.value
            && let Some((_, meaning)) = words.iter().find(|(word, _)| word == s)
        {
            return Some(*meaning);
        }
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.wrong(key, node, &allowed.join(", "));
        None
    }

    /// A secret written in the file or in a file of its own (`<key>_path`). Both at once is a mistake.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        self.secret_at(key, &format!("{key}_path"))
    }

    /// As [`Section::secret`], with the name of the key that holds the file's path.
    pub fn secret_at(&self, key: &str, path_key: &str) -> Option<Secret> {
        let inline = self.string(key);
        if self.log.refuse_inline_secrets && inline.as_deref().is_some_and(|s| !s.is_empty()) {
            self.error(
                key,
                format!("secrets in the configuration are switched off; put it in a file and name it with {path_key}"),
            );
        }
        let Some(path) = self.file(path_key) else { return inline.map(Secret::new) };
        if inline.is_some_and(|s| !s.is_empty()) {
            self.error(path_key, format!("{key} and {path_key} are both set; allowed: one of them"));
            return None;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Secret::new(text.trim())),
            Err(e) => {
                self.error(
                    path_key,
                    format!("can't read {path:?}: {e}; allowed: a readable file that holds the secret"),
                );
                None
            }
        }
    }
}

/// Start of a path in the folder where systemd puts the credentials of a unit (systemd.exec(5), LoadCredential).
const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";

/// A path as it is written, but below the unit's credentials if it begins with `$CREDENTIALS_DIRECTORY/`: that
/// folder is another one for each process, and the file is the same for all.
pub(crate) fn located(path: &str) -> PathBuf {
    let inside = path.strip_prefix(CREDENTIALS).and_then(|rest| rest.strip_prefix('/'));
    match (inside, std::env::var_os("CREDENTIALS_DIRECTORY")) {
        (Some(name), Some(folder)) => PathBuf::from(folder).join(name),
        _ => PathBuf::from(path),
    }
}

fn looks_secret(key: &str) -> bool {
    ["secret", "password", "pepper", "key", "token", "pass"].iter().any(|word| key.contains(word))
}

fn with_suffix(value: &Value, factor: impl Fn(char) -> Option<u64>) -> Option<u64> {
    match value {
        Value::Int(i) => u64::try_from(*i).ok(),
        Value::Str(s) => {
            let (digits, unit) = match s.chars().last().and_then(|c| Some((c, factor(c)?))) {
                Some((c, unit)) => (&s[..s.len() - c.len_utf8()], unit),
                None => (s.as_str(), 1),
            };
            // Python's int() allows blanks around the digits and underscores between them.
            let digits = digits.trim().replace('_', "");
            let digits = digits.strip_prefix('+').unwrap_or(&digits);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            digits.parse::<u64>().ok()?.checked_mul(unit)
        }
        _ => None,
    }
}

/// A duration in milliseconds by Synapse's rules.
pub(crate) fn duration_ms(value: &Value) -> Option<u64> {
    const SECOND: u64 = 1000;
    with_suffix(value, |c| {
        Some(match c {
            's' => SECOND,
            'm' => 60 * SECOND,
            'h' => 3600 * SECOND,
            'd' => 86_400 * SECOND,
            'w' => 7 * 86_400 * SECOND,
            'y' => 365 * 86_400 * SECOND,
            _ => return None,
        })
    })
}

/// A size in bytes by Synapse's rules.
pub(crate) fn size_bytes(value: &Value) -> Option<u64> {
    with_suffix(value, |c| {
        Some(match c {
            'K' => 1 << 10,
            'M' => 1 << 20,
            'G' => 1 << 30,
            'T' => 1 << 40,
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        let s = |text: &str| Value::Str(text.into());
        for (value, ms) in [
            (s("5m"), Some(300_000)),
            (s("1y"), Some(31_536_000_000)),
            (s("250"), Some(250)),
            (Value::Int(7), Some(7)),
            (s("1.5h"), None),
            (s("h"), None),
            (s(""), None),
            (Value::Bool(true), None),
            (s("5 x"), None),
            (Value::Int(-1), None),
            (s("5ä"), None),
        ] {
            assert_eq!(duration_ms(&value), ms, "{value:?}");
        }
        for (value, bytes) in [
            (s("50M"), Some(52_428_800)),
            (s("10K"), Some(10_240)),
            (s("12"), Some(12)),
            (s("5m"), None),
            (s("9999999T"), Some(9_999_999 << 40)),
            (s("99999999T"), None),
        ] {
            assert_eq!(size_bytes(&value), bytes, "{value:?}");
        }
    }
}
