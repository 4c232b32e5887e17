//! Event filters (spec: "Filtering", `RoomEventFilter`), for `/messages`, `/context` and `/sync`.

use crate::Pdu;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A `RoomEventFilter`. Missing lists mean everything; unknown keys are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    pub limit: Option<i64>,
    pub types: Option<Vec<String>>,
    pub not_types: Vec<String>,
    pub senders: Option<Vec<String>>,
    pub not_senders: Vec<String>,
    pub rooms: Option<Vec<String>>,
    pub not_rooms: Vec<String>,
    pub contains_url: Option<bool>,
    pub lazy_load_members: bool,
    pub include_redundant_members: bool,
    pub unread_thread_notifications: bool,
    pub related_by_senders: Option<Vec<String>>,
    pub related_by_rel_types: Option<Vec<String>>,
    #[serde(rename = "org.matrix.labels")]
    pub labels: Option<Vec<String>>,
    #[serde(rename = "org.matrix.not_labels")]
    pub not_labels: Vec<String>,
    /// `federation` asks for raw events.
    pub event_format: Option<String>,
}

/// A trailing `*` stands for anything.
fn matches_type(kind: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => kind.starts_with(prefix),
        None => kind == pattern,
    }
}

fn passes(allowed: Option<&[String]>, refused: &[String], is: impl Fn(&str) -> bool) -> bool {
    !refused.iter().any(|v| is(v)) && allowed.is_none_or(|list| list.iter().any(|v| is(v)))
}

impl EventFilter {
    /// True if no event of any type or by any sender can pass.
    pub fn refuses_everything(&self) -> bool {
        let none = |allowed: &Option<Vec<String>>, refused: &[String]| {
            allowed.as_ref().is_some_and(Vec::is_empty) || refused.iter().any(|v| v == "*")
        };
        none(&self.types, &self.not_types)
            || none(&self.senders, &self.not_senders)
            || none(&self.rooms, &self.not_rooms)
    }

    /// True if some event may not pass.
    pub fn refuses_some(&self) -> bool {
        self.types.is_some()
            || self.senders.is_some()
            || self.rooms.is_some()
            || [&self.not_types, &self.not_senders, &self.not_rooms, &self.not_labels]
                .iter()
                .any(|list| !list.is_empty())
            || self.contains_url.is_some()
            || self.labels.is_some()
            || self.has_relation_filter()
    }

    /// Everything but `related_by_*`, which needs the database.
    pub fn allows(&self, event: &Pdu) -> bool {
        if !passes(self.types.as_deref(), &self.not_types, |v| matches_type(&event.kind, v))
            || !passes(self.senders.as_deref(), &self.not_senders, |v| event.sender.as_str() == v)
            || !self.allows_room(event.room_id.as_str())
        {
            return false;
        }
        let wants_content = self.contains_url.is_some() || self.labels.is_some() || !self.not_labels.is_empty();
        if !wants_content {
            return true;
        }
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let has_url = content.get("url").is_some_and(Value::is_string);
        let labels: Vec<&str> = match content.get("org.matrix.labels") {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        self.contains_url.is_none_or(|wanted| wanted == has_url)
            && passes(self.labels.as_deref(), &self.not_labels, |v| labels.contains(&v))
    }

    /// Whether events of this room may pass.
    pub fn allows_room(&self, room_id: &str) -> bool {
        passes(self.rooms.as_deref(), &self.not_rooms, |v| room_id == v)
    }

    pub fn has_relation_filter(&self) -> bool {
        let given = |l: &Option<Vec<String>>| l.as_ref().is_some_and(|l| !l.is_empty());
        given(&self.related_by_senders) || given(&self.related_by_rel_types)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, sender: &str, content: &str) -> Pdu {
        let json = format!(
            r#"{{"type":"{kind}","sender":"{sender}","room_id":"!r:a","content":{content},"origin_server_ts":1}}"#
        );
        Pdu::parse(&json, ruma::event_id!("$e"), &ruma::RoomVersionId::V10).unwrap()
    }

    fn filter(json: &str) -> EventFilter {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn types_match_with_wildcards_and_refusals_win() {
        let message = event("m.room.message", "@a:a", "{}");
        assert!(filter("{}").allows(&message));
        assert!(filter(r#"{"types":["m.room.*"]}"#).allows(&message));
        assert!(!filter(r#"{"types":["m.room.*"],"not_types":["m.room.message"]}"#).allows(&message));
        assert!(!filter(r#"{"types":[]}"#).allows(&message));
        assert!(filter(r#"{"types":[]}"#).refuses_everything());
    }

    #[test]
    fn senders_rooms_and_content_are_looked_at() {
        let with_url = event("m.room.message", "@a:a", r#"{"url":"mxc://x/y","org.matrix.labels":["fun"]}"#);
        assert!(filter(r#"{"contains_url":true}"#).allows(&with_url));
        assert!(!filter(r#"{"contains_url":false}"#).allows(&with_url));
        assert!(!filter(r#"{"not_senders":["@a:a"]}"#).allows(&with_url));
        assert!(!filter(r#"{"rooms":["!other:a"]}"#).allows(&with_url));
        assert!(filter(r##"{"org.matrix.labels":["fun"]}"##).allows(&with_url));
        assert!(!filter(r##"{"org.matrix.not_labels":["fun"]}"##).allows(&with_url));
    }
}
