//! Small helpers around JSON text.

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

/// Serialises into a raw value. Only maps with non-string keys can fail, so a failure is internal.
pub fn raw<T: Serialize + ?Sized>(value: &T) -> crate::Result<Box<RawValue>> {
    Ok(to_raw_value(value)?)
}

/// PostgreSQL's text cannot hold NUL; Synapse strips it from what it derives from events.
pub fn strip_nul(s: &str) -> std::borrow::Cow<'_, str> {
    if s.contains('\0') { s.replace('\0', "").into() } else { s.into() }
}

/// One member of an object, without reading the others into memory. None if it is not there or the text is no object.
pub fn member<'a>(object: &'a str, key: &str) -> Option<&'a RawValue> {
    let mut text = serde_json::Deserializer::from_str(object);
    let found = text.deserialize_map(Member(key)).ok()?;
    text.end().ok().and(found)
}

struct Member<'k>(&'k str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(Is(self.0))? {
            if is_wanted {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a key is this one.
struct Is<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_is_found_however_its_key_is_written() {
        let text = r#"{"a":{"b":1},"x\"y":[2],"b":"c"}"#;
        assert_eq!(member(text, "b").map(RawValue::get), Some(r#""c""#));
        assert_eq!(member(text, "x\"y").map(RawValue::get), Some("[2]"));
        assert!(member(text, "c").is_none());
        assert!(member("[1]", "b").is_none() && member(r#"{"b":1"#, "b").is_none());
    }
}
