//! Power levels of a room's current state (spec: `m.room.power_levels`), as far as policy asks for them.

use crate::access::CurrentEvents;
use ruma::UserId;
use serde_json::{Map, Value};
use types::Pdu;

/// The state this is computed from.
pub const KEYS: [(&str, &str); 2] = [("m.room.power_levels", ""), ("m.room.create", "")];

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    content: Option<Map<String, Value>>,
    /// They have power without limit (v12) or 100 as long as there are no power levels.
    creators: Vec<String>,
    creators_rule: bool,
}

/// Levels are integers; in old room versions they may be strings.
fn level(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

impl Levels {
    pub fn of(state: &CurrentEvents) -> Self {
        let find = |kind: &str| state.get(&(kind.to_owned(), String::new()));
        let Some(create) = find("m.room.create") else { return Self::default() };
        let content: Map<String, Value> = create.content_as().unwrap_or_default();
        let rules = types::room_version::rules(&create.room_version);
        let creators_rule = rules.is_some_and(|r| r.authorization.explicitly_privilege_room_creators);
        let mut creators = vec![create.sender.to_string()];
        if creators_rule {
            let more = content.get("additional_creators").and_then(Value::as_array);
            creators.extend(more.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        }
        let levels = find("m.room.power_levels").map(|e: &std::sync::Arc<Pdu>| e.content_as().unwrap_or_default());
        Self { content: levels, creators, creators_rule }
    }

    fn named(&self, key: &str, default: i64) -> i64 {
        self.content.as_ref().and_then(|c| c.get(key)).and_then(level).unwrap_or(default)
    }

    fn in_map(&self, map: &str, key: &str) -> Option<i64> {
        level(self.content.as_ref()?.get(map)?.get(key)?)
    }

    pub fn of_user(&self, user_id: &UserId) -> i64 {
        let is_creator = self.creators.iter().any(|c| c == user_id.as_str());
        if is_creator && self.creators_rule {
            return i64::MAX;
        }
        match &self.content {
            Some(_) => self.in_map("users", user_id.as_str()).unwrap_or_else(|| self.named("users_default", 0)),
            None if is_creator => 100,
            None => 0,
        }
    }

    /// Level needed to send a state event of a type.
    pub fn to_send_state(&self, kind: &str) -> i64 {
        let default = if self.content.is_some() { 50 } else { 0 };
        self.in_map("events", kind).unwrap_or_else(|| self.named("state_default", default))
    }

    /// Level needed to invite.
    pub fn to_invite(&self) -> i64 {
        self.named("invite", 0)
    }

    /// Level needed to redact what others sent.
    pub fn to_redact(&self) -> i64 {
        self.named("redact", 50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::by_key;
    use std::sync::Arc;

    fn state(version: &str, create: &str, levels: Option<&str>) -> CurrentEvents {
        let version = ruma::RoomVersionId::try_from(version).unwrap();
        let event = |kind: &str, content: &str| {
            let json = format!(
                r#"{{"type":"{kind}","state_key":"","sender":"@c:a","room_id":"!r:a","content":{content},"origin_server_ts":1}}"#
            );
            Arc::new(Pdu::parse(&json, ruma::event_id!("$e"), &version).unwrap())
        };
        by_key(
            [Some(event("m.room.create", create)), levels.map(|l| event("m.room.power_levels", l))]
                .into_iter()
                .flatten(),
        )
    }

    #[test]
    fn creators_of_v12_outrank_everybody_and_others_only_without_levels() {
        let new = Levels::of(&state("12", r#"{"additional_creators":["@d:a"]}"#, Some(r#"{"users":{"@u:a":100}}"#)));
        assert_eq!(new.of_user(ruma::user_id!("@d:a")), i64::MAX);
        assert_eq!(new.of_user(ruma::user_id!("@u:a")), 100);
        let old = Levels::of(&state("10", r#"{"additional_creators":["@d:a"]}"#, Some(r#"{"users_default":5}"#)));
        assert_eq!(old.of_user(ruma::user_id!("@c:a")), 5);
        let bare = Levels::of(&state("10", "{}", None));
        assert_eq!((bare.of_user(ruma::user_id!("@c:a")), bare.to_send_state("m.room.name")), (100, 0));
    }

    #[test]
    fn string_levels_of_old_rooms_count() {
        let l = Levels::of(&state(
            "6",
            "{}",
            Some(r#"{"users":{"@u:a":"50"},"events":{"m.room.name":"20"},"invite":" 30 "}"#),
        ));
        assert_eq!(l.of_user(ruma::user_id!("@u:a")), 50);
        assert_eq!((l.to_send_state("m.room.name"), l.to_send_state("m.room.topic"), l.to_invite()), (20, 50, 30));
    }
}
