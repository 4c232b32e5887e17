//! Canonical JSON of both kinds (spec: appendices, "Canonical JSON"): the strict one of rooms from version 6 on, whose
//! numbers are integers of 53 bits, and what came before it, with any number, written as Python writes it, since that
//! is what has been hashed and signed in those rooms.

use crate::{Error, Result};
use ruma::canonical_json::{CanonicalJsonValue, redact, redact_content_in_place};
use ruma::room_version_rules::RedactionRules;
use ruma::{CanonicalJsonObject, RoomVersionId};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Largest magnitude of an integer in rooms from version 6 on.
pub const MAX_INT: i64 = (1 << 53) - 1;
/// Arrays and objects in each other.
const MAX_NESTING: u32 = 128;
/// Digits of an integer: Python reads no longer ones.
const MAX_DIGITS: usize = 4_300;

/// A JSON value whose numbers are kept in their canonical form, whatever their size.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// The digits as they are written.
    Number(Box<str>),
    String(String),
    Array(Vec<Json>),
    Object(Object),
}

/// Sorted by code point, as canonical JSON wants it.
pub type Object = BTreeMap<String, Json>;

/// Whether a room's events may only have integers of 53 bits.
pub fn is_strict(version: &RoomVersionId) -> bool {
    use RoomVersionId::{V1, V2, V3, V4, V5};
    !matches!(version, V1 | V2 | V3 | V4 | V5)
}

/// Reads an object with any numbers. 400 M_BAD_JSON for what is none, is nested too deeply, or has a number that has
/// no canonical form.
pub fn parse(text: &str) -> Result<Object> {
    match value(text, 0)? {
        Json::Object(object) => Ok(object),
        _ => Err(Error::bad_json("must be a JSON object")),
    }
}

/// An object as canonical JSON.
pub fn text(object: &Object) -> String {
    let mut out = String::new();
    write_object(object, &mut out);
    out
}

/// Anything serialisable as canonical JSON of the older kind.
pub fn text_of<T: Serialize + ?Sized>(what: &T) -> Result<String> {
    Ok(value(&serde_json::to_string(what)?, 0)?.to_string())
}

/// 400 M_BAD_JSON if a number is not one of strict canonical JSON.
pub fn check_strict(object: &Object) -> Result<()> {
    object.values().try_for_each(Json::check_strict)
}

/// What a redaction leaves of an event. 400 M_BAD_JSON for an event without a type.
pub fn redacted(event: &Object, rules: &RedactionRules) -> Result<Object> {
    // ruma knows what is kept; it is shown an event without what the numbers are.
    let kept = redact(names_and_strings(event), rules, None).map_err(|e| Error::bad_json(format!("event: {e}")))?;
    Ok(keep(event, &kept))
}

/// What a redaction leaves of an event's content.
pub fn redacted_content(content: &Object, kind: &str, rules: &RedactionRules) -> Object {
    let mut kept = names_and_strings(content);
    redact_content_in_place(&mut kept, rules, kind);
    keep(content, &kept)
}

impl Json {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(o) => Some(o),
            _ => None,
        }
    }

    /// An integer, if it is one and not too large.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(n) => n.parse().ok(),
            _ => None,
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Number(n) => out.push_str(n),
            Self::String(s) => write_string(s, out),
            Self::Array(list) => {
                out.push('[');
                for (i, item) in list.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(object) => write_object(object, out),
        }
    }

    fn check_strict(&self) -> Result<()> {
        match self {
            Self::Number(n) => match n.parse::<i64>() {
                Ok(i) if (-MAX_INT..=MAX_INT).contains(&i) => Ok(()),
                _ if n.contains(['.', 'e']) => Err(Error::bad_json(format!("Bad JSON value: float ({n})"))),
                _ => Err(Error::bad_json("JSON integer out of range")),
            },
            Self::Array(list) => list.iter().try_for_each(Self::check_strict),
            Self::Object(object) => check_strict(object),
            _ => Ok(()),
        }
    }
}

/// Canonical JSON.
impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

impl From<&str> for Json {
    fn from(s: &str) -> Self {
        Self::String(s.to_owned())
    }
}

impl From<i64> for Json {
    fn from(n: i64) -> Self {
        Self::Number(n.to_string().into())
    }
}

fn write_object(object: &Object, out: &mut String) {
    out.push('{');
    for (i, (key, item)) in object.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(key, out);
        out.push(':');
        item.write(out);
    }
    out.push('}');
}

/// Escapes what has to be: as Python does without `ensure_ascii`.
fn write_string(s: &str, out: &mut String) {
    out.push('"');
    let mut rest = s;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        out.push_str(&rest[..at]);
        let c = rest.as_bytes()[at];
        match c {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            // Writing to a String cannot fail.
            c => drop(write!(out, "\\u{c:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Level by level, since only the text of a number tells which one it is.
fn value(text: &str, depth: u32) -> Result<Json> {
    let bad = |e: serde_json::Error| Error::bad_json(e.to_string());
    if depth > MAX_NESTING {
        return Err(Error::bad_json("JSON is nested too deeply"));
    }
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).map_err(bad)?;
            let field = |(key, raw): (Cow<'_, str>, &RawValue)| Ok((key.into_owned(), value(raw.get(), depth + 1)?));
            Json::Object(fields.into_iter().map(field).collect::<Result<_>>()?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(bad)?;
            Json::Array(items.into_iter().map(|raw| value(raw.get(), depth + 1)).collect::<Result<_>>()?)
        }
        Some(b'-' | b'0'..=b'9') => {
            serde_json::from_str::<&RawValue>(text).map_err(bad)?;
            Json::Number(number(text)?.into())
        }
        _ => match serde_json::from_str(text).map_err(bad)? {
            Value::Bool(b) => Json::Bool(b),
            Value::String(s) => Json::String(s),
            _ => Json::Null,
        },
    })
}

/// Python's form of a JSON number: integers with all their digits, others with the fewest digits that name them.
fn number(text: &str) -> Result<Cow<'_, str>> {
    if !text.contains(['.', 'e', 'E']) {
        return match text {
            "-0" => Ok("0".into()),
            _ if text.len() > MAX_DIGITS => Err(Error::bad_json("JSON integer out of range")),
            _ => Ok(text.into()),
        };
    }
    let float: f64 = text.parse().map_err(|_| Error::bad_json("not a number"))?;
    if !float.is_finite() {
        return Err(Error::bad_json("JSON number out of range"));
    }
    // Rust and Python agree on the digits, not on when to write an exponent and how.
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return Ok(scientific.into()) };
    let exponent: i32 = exponent.parse().map_err(|_| Error::bad_json("not a number"))?;
    if (-4..16).contains(&exponent) {
        return Ok(format!("{float:?}").into());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Ok(format!("{digits}e{sign}{:02}", exponent.unsigned_abs()).into())
}

/// The keys of an object and of the objects in it, and the strings, as ruma reads events; all else is null.
pub fn names_and_strings(object: &Object) -> CanonicalJsonObject {
    let of = |value: &Json| match value {
        Json::Object(inner) => CanonicalJsonValue::Object(names_and_strings(inner)),
        Json::String(s) => CanonicalJsonValue::String(s.clone()),
        _ => CanonicalJsonValue::Null,
    };
    object.iter().map(|(key, value)| (key.clone(), of(value))).collect()
}

/// What of an object is in a shape.
fn keep(object: &Object, kept: &CanonicalJsonObject) -> Object {
    let of = |value: &Json, kept: &CanonicalJsonValue| match (value, kept) {
        (Json::Object(inner), CanonicalJsonValue::Object(kept)) => Json::Object(keep(inner, kept)),
        _ => value.clone(),
    };
    kept.iter().filter_map(|(key, kept)| Some((key.clone(), of(object.get(key)?, kept)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(json: &str) -> String {
        text(&parse(json).unwrap())
    }

    /// Right-hand sides: Python's `canonicaljson.encode_canonical_json(json.loads(…))`.
    #[test]
    fn numbers_are_written_as_python_does() {
        for (given, written) in [
            ("1.5", "1.5"),
            ("1e30", "1e+30"),
            ("9007199254740993", "9007199254740993"),
            ("-0.0", "-0.0"),
            ("-0", "0"),
            ("1e-7", "1e-07"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1E3", "1000.0"),
            ("1e16", "1e+16"),
            ("1e15", "1000000000000000.0"),
            ("123456789012345678.5", "1.2345678901234568e+17"),
            ("5e-324", "5e-324"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("100000000000000000000000001", "100000000000000000000000001"),
            ("2.0", "2.0"),
            ("1e-400", "0.0"),
            ("1.25e+20", "1.25e+20"),
            ("-12345.678e-10", "-1.2345678e-06"),
        ] {
            assert_eq!(canonical(&format!("{{\"n\": [{given}]}}")), format!("{{\"n\":[{written}]}}"));
        }
    }

    #[test]
    fn keys_are_sorted_and_strings_escaped_as_little_as_may_be() {
        assert_eq!(
            canonical(
                r#" {"é": 1, "b": {"z": null, "a": [true, {}]}, "a": "/\u00e9\u0001\n\"\\\u007f", "a\u0062": 2} "#
            ),
            "{\"a\":\"/é\\u0001\\n\\\"\\\\\u{7f}\",\"ab\":2,\"b\":{\"a\":[true,{}],\"z\":null},\"é\":1}"
        );
        assert_eq!(canonical(r#"{"a": 1, "a": 2}"#), r#"{"a":2}"#);
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        for json in [
            "[]",
            "{",
            "{\"a\": 1e400}",
            "{\"a\": 01}",
            "{\"a\": -}",
            "{\"a\": NaN}",
            "{} x",
            "",
            "{\"a\": \"\\ud800\"}",
        ] {
            assert_eq!(parse(json).unwrap_err().errcode(), Some("M_BAD_JSON"), "{json}");
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(parse(&deep).is_err());
        assert!(parse(&format!("{{\"a\": {}}}", "1".repeat(5_000))).is_err());
    }

    #[test]
    fn strict_numbers_are_integers_of_53_bits() {
        for (json, fine) in
            [("1", true), ("-9007199254740991", true), ("9007199254740992", false), ("1.0", false), ("1e3", false)]
        {
            assert_eq!(
                check_strict(&parse(&format!("{{\"a\": [{{\"b\": {json}}}]}}")).unwrap()).is_ok(),
                fine,
                "{json}"
            );
        }
        assert!(is_strict(&RoomVersionId::V6) && !is_strict(&RoomVersionId::V5));
    }

    #[test]
    fn a_redaction_leaves_the_numbers_it_leaves() {
        let event = parse(r#"{"type": "m.room.power_levels", "depth": 1.5, "x": 1, "content": {"ban": 1e30, "foo": 2.5, "users": {"@a:b": 50.0}}}"#).unwrap();
        let left = redacted(&event, &RedactionRules::V1).unwrap();
        assert_eq!(
            text(&left),
            r#"{"content":{"ban":1e+30,"users":{"@a:b":50.0}},"depth":1.5,"type":"m.room.power_levels"}"#
        );
    }
}
