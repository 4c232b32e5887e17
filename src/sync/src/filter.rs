//! What a client wants of a sync (spec: "Filtering").

use serde_json::{Map, Value};
use types::filter::EventFilter;
use types::{Error, OwnedRoomId, OwnedUserId, Result};

/// A filter as stored or given in the query, checked.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `room.rooms` and `room.not_rooms` only.
    pub room: EventFilter,
    pub timeline: EventFilter,
    pub state: EventFilter,
    pub ephemeral: EventFilter,
    pub room_account_data: EventFilter,
    pub presence: EventFilter,
    pub account_data: EventFilter,
    /// Rooms the user left by itself are wanted too.
    pub include_leave: bool,
    /// Dotted paths; empty: all fields.
    pub event_fields: Vec<String>,
    /// `event_format: federation`.
    pub federation_format: bool,
}

fn invalid(what: &str, expected: &str) -> Error {
    Error::bad_request(format!("Invalid filter: {what} must be {expected}"))
}

fn object<'a>(parent: &'a Map<String, Value>, key: &str, path: &str) -> Result<Option<&'a Map<String, Value>>> {
    match parent.get(key) {
        None => Ok(None),
        Some(Value::Object(o)) => Ok(Some(o)),
        Some(_) => Err(invalid(path, "an object")),
    }
}

fn check_strings(
    part: &Map<String, Value>,
    key: &str,
    path: &str,
    valid: impl Fn(&str) -> bool,
    what: &str,
) -> Result<()> {
    let Some(value) = part.get(key) else { return Ok(()) };
    let list = value.as_array().ok_or_else(|| invalid(&format!("{path}.{key}"), "an array"))?;
    let good = |v: &Value| v.as_str().is_some_and(&valid);
    if list.iter().all(good) { Ok(()) } else { Err(invalid(&format!("{path}.{key}"), what)) }
}

/// Checks one `EventFilter` or `RoomEventFilter` and reads it.
fn part(parent: &Map<String, Value>, key: &str, path: &str) -> Result<EventFilter> {
    let Some(part) = object(parent, key, path)? else { return Ok(EventFilter::default()) };
    let user = |s: &str| OwnedUserId::try_from(s).is_ok();
    let room = |s: &str| OwnedRoomId::try_from(s).is_ok();
    for key in [
        "types",
        "not_types",
        "org.matrix.labels",
        "org.matrix.not_labels",
        "related_by_senders",
        "related_by_rel_types",
    ] {
        check_strings(part, key, path, |_| true, "an array of strings")?;
    }
    for key in ["senders", "not_senders"] {
        check_strings(part, key, path, user, "an array of user ids")?;
    }
    for key in ["rooms", "not_rooms"] {
        check_strings(part, key, path, room, "an array of room ids")?;
    }
    if part.get("limit").is_some_and(|v| !v.is_number()) {
        return Err(invalid(&format!("{path}.limit"), "a number"));
    }
    for key in ["contains_url", "lazy_load_members", "include_redundant_members", "unread_thread_notifications"] {
        if part.get(key).is_some_and(|v| !v.is_boolean()) {
            return Err(invalid(&format!("{path}.{key}"), "true or false"));
        }
    }
    let mut part = part.clone();
    if let Some(limit) = part.get("limit").and_then(Value::as_f64) {
        part.insert("limit".into(), Value::from(limit as i64));
    }
    part.remove("event_format");
    serde_json::from_value(Value::Object(part)).map_err(|e| Error::bad_request(format!("Invalid filter: {path}: {e}")))
}

impl Filter {
    /// Checks and reads a filter; 400 M_UNKNOWN naming the field if it has the wrong shape.
    pub fn parse(value: &Value) -> Result<Self> {
        let top = value.as_object().ok_or_else(|| invalid("the filter", "an object"))?;
        let none = Map::new();
        let room = object(top, "room", "room")?.unwrap_or(&none);
        let mut rooms_only = Map::new();
        for key in ["rooms", "not_rooms"] {
            if let Some(v) = room.get(key) {
                rooms_only.insert(key.into(), v.clone());
            }
        }
        let wrapped = Map::from_iter([("room".to_owned(), Value::Object(rooms_only))]);
        let include_leave = match room.get("include_leave") {
            None => false,
            Some(v) => v.as_bool().ok_or_else(|| invalid("room.include_leave", "true or false"))?,
        };
        check_strings(top, "event_fields", "filter", |_| true, "an array of strings")?;
        let federation_format = match top.get("event_format").map(Value::as_str) {
            None | Some(Some("client")) => false,
            Some(Some("federation")) => true,
            Some(_) => return Err(invalid("event_format", "client or federation")),
        };
        let fields = top.get("event_fields").and_then(Value::as_array);
        Ok(Self {
            room: part(&wrapped, "room", "room")?,
            timeline: part(room, "timeline", "room.timeline")?,
            state: part(room, "state", "room.state")?,
            ephemeral: part(room, "ephemeral", "room.ephemeral")?,
            room_account_data: part(room, "account_data", "room.account_data")?,
            presence: part(top, "presence", "presence")?,
            account_data: part(top, "account_data", "account_data")?,
            include_leave,
            event_fields: fields.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
            federation_format,
        })
    }

    /// Most events of a timeline; 10 if the filter does not say, never more than `most`.
    pub fn timeline_limit(&self, most: Option<u64>) -> usize {
        let asked = usize::try_from(self.timeline.limit.unwrap_or(10)).unwrap_or(0);
        most.map_or(asked, |m| asked.min(m as usize))
    }

    pub fn lazy_load_members(&self) -> bool {
        self.state.lazy_load_members
    }

    /// True if no room can be wanted.
    pub fn blocks_all_rooms(&self) -> bool {
        self.room.refuses_everything()
    }

    /// The room's own `rooms`/`not_rooms` and those of one of its parts.
    pub fn wants_room(&self, part: &EventFilter, room_id: &str) -> bool {
        self.room.allows_room(room_id) && part.allows_room(room_id)
    }
}

/// Whether an entry that is no room event (account data, receipts, typing, presence) passes a filter.
/// Entries without sender never match a list of wanted senders.
pub fn allows_entry(filter: &EventFilter, kind: &str, sender: Option<&str>) -> bool {
    let is_type = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => kind.starts_with(prefix),
        None => pattern == kind,
    };
    let is_sender = |user: &String| sender == Some(user.as_str());
    !filter.not_types.iter().any(is_type)
        && filter.types.as_ref().is_none_or(|t| t.iter().any(is_type))
        && !filter.not_senders.iter().any(is_sender)
        && filter.senders.as_ref().is_none_or(|s| s.iter().any(is_sender))
}

/// Keeps only the dotted `fields` of a rendered event (filter `event_fields`); a literal dot is `\.`.
pub fn only_fields(event: &Value, fields: &[String]) -> Value {
    let mut out = Value::Object(Map::new());
    for field in fields {
        let path = split_field(field);
        copy_field(event, &mut out, &path);
    }
    out
}

fn split_field(field: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = field.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if matches!(chars.peek(), Some('.' | '\\')) => {
                if let (Some(last), Some(next)) = (parts.last_mut(), chars.next()) {
                    last.push(next);
                }
            }
            '.' => parts.push(String::new()),
            c => {
                if let Some(last) = parts.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    parts
}

fn copy_field(from: &Value, to: &mut Value, path: &[String]) {
    let mut found = from;
    for key in path {
        match found.get(key) {
            Some(inner) => found = inner,
            None => return,
        }
    }
    let mut to = to;
    for key in &path[..path.len().saturating_sub(1)] {
        let Some(map) = to.as_object_mut() else { return };
        to = map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
    }
    if let (Some(map), Some(last)) = (to.as_object_mut(), path.last()) {
        map.insert(last.clone(), found.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes_are_checked_and_named() {
        for (filter, field) in [
            (json!({"room": 1}), "room"),
            (json!({"room": {"timeline": {"limit": "5"}}}), "room.timeline.limit"),
            (json!({"room": {"rooms": ["nonsense"]}}), "room.rooms"),
            (json!({"presence": {"not_senders": ["nobody"]}}), "presence.not_senders"),
            (json!({"event_format": "xml"}), "event_format"),
            (json!({"event_fields": "type"}), "event_fields"),
        ] {
            let e = Filter::parse(&filter).unwrap_err();
            assert_eq!(e.status(), 400);
            assert!(e.to_string().contains(field), "{e}");
        }
        let f =
            Filter::parse(&json!({"room": {"timeline": {"limit": 3}, "state": {"lazy_load_members": true}}, "x": 1}))
                .unwrap();
        assert_eq!(f.timeline_limit(Some(100)), 3);
        assert_eq!(f.timeline_limit(Some(2)), 2);
        assert!(f.lazy_load_members());
    }

    #[test]
    fn entries_without_sender_do_not_match_wanted_senders() {
        let f = Filter::parse(&json!({"account_data": {"types": ["m.*"], "not_types": ["m.direct"]}})).unwrap();
        assert!(allows_entry(&f.account_data, "m.tag", None));
        assert!(!allows_entry(&f.account_data, "m.direct", None));
        let f = Filter::parse(&json!({"presence": {"senders": ["@a:b"]}})).unwrap();
        assert!(!allows_entry(&f.presence, "m.presence", None));
        assert!(allows_entry(&f.presence, "m.presence", Some("@a:b")));
    }

    #[test]
    fn fields_are_picked_by_dotted_paths() {
        let event = json!({"type": "t", "content": {"body": "x", "a.b": 1, "c": {"d": 2}}});
        let picked = only_fields(
            &event,
            &["content.body".into(), "content.a\\.b".into(), "content.c.d".into(), "nope.x".into()],
        );
        assert_eq!(picked, json!({"content": {"body": "x", "a.b": 1, "c": {"d": 2}}}));
        assert_eq!(only_fields(&json!({"content": {}}), &["content.body".into()]), json!({}));
    }
}
