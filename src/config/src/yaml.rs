//! YAML as PyYAML's `safe_load` reads it: YAML 1.1 scalars, merge keys, the last of two equal keys wins.
//!
//! Synapse's configuration files were written for that reader, so `yes`, `off`, `0660` and `1_000` must mean
//! the same here. The syntax comes from granit-parser; what a plain scalar *is* gets decided in [`resolve`].

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// Where a node was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Index into the list of files that were read.
    pub file: u16,
    /// Line, from 1.
    pub line: u32,
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where.
    pub at: At,
}

/// A YAML value in PyYAML's types. Dates stay strings: no setting is one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `yes`, `on` and so on.
    Bool(bool),
    /// Decimal, octal (`0660`), hexadecimal, binary or base 60.
    Int(i64),
    /// With a dot.
    Float(f64),
    /// Everything else.
    Str(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Map),
}

/// A mapping, in the order written. Keys that are no strings are kept as they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(String, Node)>);

impl Map {
    /// An empty mapping.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Sets a key; a key that exists keeps its place.
    pub fn set(&mut self, key: String, node: Node) {
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = node,
            None => self.0.push((key, node)),
        }
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value {
    /// Python's `bool(value)`, which is how Synapse reads most flags.
    pub fn truthy(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(l) => !l.is_empty(),
            Value::Map(m) => !m.is_empty(),
        }
    }

    /// A short description for error messages; lists and maps are named by kind only.
    pub fn describe(&self) -> String {
        match self {
            Value::Null => "nothing (null)".into(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Int(i) => format!("the number {i}"),
            Value::Float(f) => format!("the number {f}"),
            Value::Str(s) if s.chars().count() > 80 => {
                format!("the string {:?}…", s.chars().take(80).collect::<String>())
            }
            Value::Str(s) => format!("the string {s:?}"),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// The kind alone, for values that may be secret.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing (null)",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// As JSON, for settings that are handed through unread.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Json::from(*i),
            Value::Float(f) => Json::from(*f),
            Value::Str(s) => Json::String(s.clone()),
            Value::List(l) => Json::Array(l.iter().map(|n| n.value.to_json()).collect()),
            Value::Map(m) => Json::Object(m.iter().map(|(k, v)| (k.to_owned(), v.value.to_json())).collect()),
        }
    }
}

/// Why a file is no YAML.
#[derive(Debug)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Nodes one file may unfold to; aliases of aliases would otherwise fill the memory.
const MAX_NODES: usize = 1_000_000;

/// Reads one document. An empty file is `Null`, as in PyYAML.
pub fn parse(text: &str, file: u16) -> Result<Node, SyntaxError> {
    let mut composer = Composer { file, open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0, documents: 0 };
    for item in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) =
            item.map_err(|e| SyntaxError { line: e.marker().line() as u32, message: e.info().to_owned() })?;
        composer.event(event, &span)?;
    }
    Ok(composer.root.unwrap_or(Node { value: Value::Null, at: At { file, line: 1 } }))
}

/// A collection whose end hasn't come yet.
enum Open {
    List { items: Vec<Node>, anchor: usize, at: At },
    Map { map: Map, merged: Vec<Map>, key: Option<Key>, anchor: usize, at: At },
}

enum Key {
    Named(String),
    Merge,
}

struct Composer {
    file: u16,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

impl Composer {
    fn at(&self, span: &Span) -> At {
        At { file: self.file, line: span.start.line() as u32 }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), SyntaxError> {
        let at = self.at(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(error(at, "a second document starts here; a configuration file is one document"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|t| (t.handle().to_owned(), t.suffix().to_owned()));
                let is_merge = text == "<<" && style == ScalarStyle::Plain && tag.is_none();
                if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
                    *key = Some(if is_merge { Key::Merge } else { Key::Named(text.clone().into_owned()) });
                    if anchor > 0 {
                        self.anchors.insert(anchor, Node { value: Value::Str(text.into_owned()), at });
                    }
                    return Ok(());
                }
                let value = scalar(&text, style, tag, at)?;
                self.put(Node { value, at }, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.refuse_as_key(at)?;
                self.open.push(Open::List { items: Vec::new(), anchor, at });
            }
            Event::MappingStart(_, anchor, _) => {
                self.refuse_as_key(at)?;
                self.open.push(Open::Map { map: Map::default(), merged: Vec::new(), key: None, anchor, at });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at)?,
            Event::Alias(id) => self.alias(id, at)?,
            _ => {}
        }
        Ok(())
    }

    fn refuse_as_key(&self, at: At) -> Result<(), SyntaxError> {
        match self.open.last() {
            Some(Open::Map { key: None, .. }) => Err(error(at, "a list or mapping can't be a key")),
            _ => Ok(()),
        }
    }

    fn alias(&mut self, id: usize, at: At) -> Result<(), SyntaxError> {
        let Some(mut node) = self.anchors.get(&id).cloned() else {
            return Err(error(at, "an alias points into itself"));
        };
        node.at = at;
        if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
            return match node.value {
                Value::Str(text) => {
                    *key = Some(Key::Named(text));
                    Ok(())
                }
                _ => Err(error(at, "a list or mapping can't be a key")),
            };
        }
        self.put(node, 0)
    }

    fn close(&mut self, at: At) -> Result<(), SyntaxError> {
        match self.open.pop() {
            Some(Open::List { items, anchor, at }) => self.put(Node { value: Value::List(items), at }, anchor),
            Some(Open::Map { map, merged, anchor, at, .. }) => {
                let map = if merged.is_empty() { map } else { merge(merged, map) };
                self.put(Node { value: Value::Map(map), at }, anchor)
            }
            None => Err(error(at, "an end without a beginning")),
        }
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        let at = node.at;
        self.nodes += weight(&node.value);
        if self.nodes > MAX_NODES {
            return Err(error(at, "the file unfolds to more than a million values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { map, merged, key, .. }) => match key.take() {
                Some(Key::Named(name)) => map.set(name, node),
                Some(Key::Merge) => merged.extend(merge_sources(node)?),
                None => return Err(error(at, "a value without a key")),
            },
        }
        Ok(())
    }
}

/// Each close counts its direct children once more, which keeps this linear in depth for real files.
fn weight(value: &Value) -> usize {
    match value {
        Value::List(l) => 1 + l.iter().map(|n| weight(&n.value)).sum::<usize>(),
        Value::Map(m) => 1 + m.iter().map(|(_, n)| weight(&n.value)).sum::<usize>(),
        _ => 1,
    }
}

fn error(at: At, message: &str) -> SyntaxError {
    SyntaxError { line: at.line, message: message.to_owned() }
}

/// What `<<:` brings in: a mapping or a list of mappings.
fn merge_sources(node: Node) -> Result<Vec<Map>, SyntaxError> {
    let at = node.at;
    match node.value {
        Value::Map(map) => Ok(vec![map]),
        Value::List(list) => list
            .into_iter()
            .map(|n| match n.value {
                Value::Map(map) => Ok(map),
                _ => Err(error(n.at, "'<<' takes a mapping or a list of mappings")),
            })
            .collect(),
        _ => Err(error(at, "'<<' takes a mapping or a list of mappings")),
    }
}

/// Own keys win over merged ones, earlier merged mappings over later ones.
fn merge(sources: Vec<Map>, own: Map) -> Map {
    let mut result = Map::default();
    for source in sources.into_iter().rev() {
        for (key, node) in source.0 {
            result.set(key, node);
        }
    }
    for (key, node) in own.0 {
        result.set(key, node);
    }
    result
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<(String, String)>, at: At) -> Result<Value, SyntaxError> {
    let Some((handle, suffix)) = tag else {
        return match style {
            ScalarStyle::Plain => resolve(text).map_err(|m| error(at, m)),
            _ => Ok(Value::Str(text.to_owned())),
        };
    };
    let full = format!("{handle}{suffix}");
    let wanted = full.strip_prefix("tag:yaml.org,2002:").unwrap_or(&full);
    let plain = resolve(text).map_err(|m| error(at, m))?;
    match (wanted, plain) {
        ("str" | "!" | "binary" | "timestamp", _) => Ok(Value::Str(text.to_owned())),
        ("null", _) => Ok(Value::Null),
        ("bool", value @ Value::Bool(_)) | ("int", value @ Value::Int(_)) | ("float", value @ Value::Float(_)) => {
            Ok(value)
        }
        ("float", Value::Int(i)) => Ok(Value::Float(i as f64)),
        _ => Err(error(at, "the tag doesn't fit the value, or is none that a configuration may use")),
    }
}

/// The type of a plain scalar by YAML 1.1 as PyYAML applies it.
pub fn resolve(text: &str) -> Result<Value, &'static str> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
        _ => match number(text)? {
            Some(value) => value,
            None => Value::Str(text.to_owned()),
        },
    })
}

fn number(text: &str) -> Result<Option<Value>, &'static str> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(b'0'..=b'9' | b'.') => (false, text),
        _ => return Ok(None),
    };
    let sign = |n: i64| if negative { -n } else { n };
    if let Some(value) = integer(digits) {
        return value.map(|n| Some(Value::Int(sign(n)))).ok_or("the number doesn't fit in 64 bits");
    }
    Ok(float(digits).map(|f| Value::Float(if negative { -f } else { f })))
}

/// `None`: no integer. `Some(None)`: an integer, but too large.
fn integer(digits: &str) -> Option<Option<i64>> {
    let radix = |body: &str, radix: u32| -> Option<Option<i64>> {
        let ok = !body.is_empty() && body.chars().all(|c| c == '_' || c.is_digit(radix));
        ok.then(|| i64::from_str_radix(&body.replace('_', ""), radix).ok())
    };
    if let Some(body) = digits.strip_prefix("0b") {
        return radix(body, 2);
    }
    if let Some(body) = digits.strip_prefix("0x") {
        return radix(body, 16);
    }
    if digits == "0" {
        return Some(Some(0));
    }
    if let Some(body) = digits.strip_prefix('0') {
        return radix(body, 8);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if !digits.contains(':') {
        return radix(digits, 10);
    }
    let mut parts = digits.split(':');
    let mut total = radix(parts.next()?, 10)?;
    for part in parts {
        let n = sixtieth(part)?;
        total = total.and_then(|t| t.checked_mul(60)).and_then(|t| t.checked_add(n));
    }
    Some(total)
}

/// One or two digits below 60.
fn sixtieth(part: &str) -> Option<i64> {
    let ok = matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_digit());
    part.parse().ok().filter(|n| ok && *n < 60)
}

fn float(digits: &str) -> Option<f64> {
    let (whole, rest) = digits.split_once('.')?;
    let mut whole_parts = whole.split(':');
    let first = whole_parts.next().unwrap_or("");
    let base60: Option<Vec<i64>> = whole_parts.map(sixtieth).collect();
    let base60 = base60?;
    let in_class = |s: &str| s.chars().all(|c| c == '_' || c.is_ascii_digit());
    if !in_class(first) || first.starts_with('_') {
        return None;
    }
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(i) => (&rest[..i], Some(&rest[i + 1..])),
        None => (rest, None),
    };
    if !in_class(fraction) || (first.is_empty() && !fraction.starts_with(|c: char| c.is_ascii_digit())) {
        return None;
    }
    if let Some(e) = exponent {
        // YAML 1.1 wants a signed exponent: `1.0e3` is a string.
        let signed = e.strip_prefix(['+', '-'])?;
        if signed.is_empty() || !signed.bytes().all(|b| b.is_ascii_digit()) || !base60.is_empty() {
            return None;
        }
    }
    let mut number = format!("{}.{}", if first.is_empty() { "0" } else { first }, fraction).replace('_', "");
    if let Some(e) = exponent {
        number.push('e');
        number.push_str(e);
    }
    if number.ends_with('.') {
        number.push('0');
    }
    let plain: f64 = number.parse().ok()?;
    if base60.is_empty() {
        return Some(plain);
    }
    let mut total = plain.trunc();
    for part in base60 {
        total = total * 60.0 + part as f64;
    }
    Some(total + plain.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> serde_json::Value {
        parse(text, 0).unwrap_or_else(|e| panic!("{text}: {}", e.message)).value.to_json()
    }

    #[test]
    fn scalars_are_those_of_pyyaml() {
        // Each expectation was checked with yaml.safe_load.
        let cases = [
            ("yes", "true"),
            ("Off", "false"),
            ("y", "\"y\""),
            ("n", "\"n\""),
            ("~", "null"),
            ("", "null"),
            ("0660", "432"),
            ("0o660", "\"0o660\""),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("1_000", "1000"),
            ("089", "\"089\""),
            ("-5", "-5"),
            ("+7", "7"),
            ("1:30", "90"),
            ("1e3", "\"1e3\""),
            ("1.0e3", "\"1.0e3\""),
            ("1.5e+3", "1500.0"),
            (".5", "0.5"),
            ("1.", "1.0"),
            ("5m", "\"5m\""),
            ("'1'", "\"1\""),
            ("\"yes\"", "\"yes\""),
            ("1.2.3", "\"1.2.3\""),
            ("!!str 1", "\"1\""),
            ("!!int '12'", "12"),
            ("127.0.0.1", "\"127.0.0.1\""),
            ("12:60", "\"12:60\""),
        ];
        for (text, json) in cases {
            assert_eq!(value(&format!("k: {text}"))["k"].to_string(), json, "{text}");
        }
    }

    #[test]
    fn merge_keys_and_duplicates() {
        let json =
            value("base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\na: {<<: *b, y: 9}\nb: {<<: [*b, *m]}\nk: 1\nk: 2\n");
        assert_eq!(json["a"], serde_json::json!({"x": 1, "y": 9}));
        assert_eq!(json["b"], serde_json::json!({"x": 1, "y": 2, "z": 4}));
        assert_eq!(json["k"], 2);
    }

    #[test]
    fn broken_files_are_refused_with_a_line() {
        for (text, line) in
            [("a: 1\nb: [1, 2\n", 3), ("a: 1\n---\nb: 2\n", 2), ("a: &x [*x]\n", 1), ("a: 99999999999999999999\n", 1)]
        {
            let error = parse(text, 0).expect_err(text);
            assert!(error.line >= 1 && error.line <= line, "{text}: line {}", error.line);
        }
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (now, before) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
            let list = vec![format!("*{before}"); 9].join(",");
            text.push_str(&format!("{now}: &{now} [{list}]\n"));
        }
        assert!(parse(&text, 0).is_err());
    }
}
