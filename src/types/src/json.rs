//! Small helpers around JSON text.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Serialises into a raw value. Only maps with non-string keys can fail, so a failure is internal.
pub fn raw<T: Serialize + ?Sized>(value: &T) -> crate::Result<Box<RawValue>> {
    Ok(to_raw_value(value)?)
}

/// PostgreSQL's text cannot hold NUL; Synapse strips it from what it derives from events.
pub fn strip_nul(s: &str) -> std::borrow::Cow<'_, str> {
    if s.contains('\0') { s.replace('\0', "").into() } else { s.into() }
}
