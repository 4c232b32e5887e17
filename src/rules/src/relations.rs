//! `m.relates_to`, as far as the server looks into it.

use serde::Deserialize;
use serde_json::Value;
use types::Pdu;

/// A relation with a type and a parent; replies without `rel_type` are none.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    pub parent: String,
    pub rel_type: String,
    /// `key` of an `m.annotation`.
    pub key: Option<String>,
}

pub const ANNOTATION: &str = "m.annotation";
pub const REPLACE: &str = "m.replace";
pub const THREAD: &str = "m.thread";
pub const REFERENCE: &str = "m.reference";

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<Value>,
}

/// The relation of an event, if it is well formed.
pub fn relation(event: &Pdu) -> Option<Relation> {
    if !event.content.get().contains("m.relates_to") {
        return None;
    }
    let relates = event.content_as::<Content>().ok()?.relates_to?;
    let rel_type = relates.get("rel_type")?.as_str()?.to_owned();
    let parent = relates.get("event_id")?.as_str()?.to_owned();
    let key = (rel_type == ANNOTATION).then(|| relates.get("key")?.as_str().map(str::to_owned)).flatten();
    Some(Relation { parent, rel_type, key })
}
