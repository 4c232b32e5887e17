//! What this server asks of events made by its own clients, beyond the authorisation rules.

use serde_json::{Map, Value};
use types::{Error, Result};

const MAX_INT: i64 = (1 << 53) - 1;

const MEMBERSHIPS: [&str; 5] = ["invite", "join", "knock", "leave", "ban"];

/// Checks type, state key and content of an event a client wants made. `room_id`: none for a create event
/// that is to name its room.
pub fn new_event(
    kind: &str,
    state_key: Option<&str>,
    content: &Map<String, Value>,
    room_id: Option<&str>,
    server_name: &str,
) -> Result<()> {
    match kind {
        "m.room.message" => strings(content, &["body", "msgtype"])?,
        "m.room.topic" => {
            strings(content, &["topic"])?;
            is_state(kind, state_key)?;
        }
        "m.room.name" => {
            strings(content, &["name"])?;
            is_state(kind, state_key)?;
        }
        "m.room.member" => member(state_key, content)?,
        "m.room.tombstone" => {
            let target = content.get("replacement_room").ok_or_else(|| bad("Content has no replacement_room key"))?;
            if target.as_str().is_some_and(|t| Some(t) == room_id) {
                return Err(bad("Tombstone cannot reference the room it was sent in"));
            }
            is_state(kind, state_key)?;
        }
        "m.room.retention" => retention(state_key, content)?,
        "m.room.server_acl" => server_acl(content, server_name)?,
        "m.room.power_levels" => power_levels(content)?,
        "m.room.aliases" => aliases(content)?,
        _ => {}
    }
    match content.get("m.mentions") {
        Some(mentions) => check_mentions(mentions),
        None => Ok(()),
    }
}

fn bad(message: impl Into<String>) -> Error {
    Error::bad_request(message.into())
}

fn strings(content: &Map<String, Value>, keys: &[&str]) -> Result<()> {
    for key in keys {
        match content.get(*key) {
            None => return Err(Error::bad_request(format!("'{key}' not in content"))),
            Some(v) if !v.is_string() => return Err(Error::bad_request(format!("'{key}' not a string type"))),
            Some(_) => {}
        }
    }
    Ok(())
}

fn is_state(kind: &str, state_key: Option<&str>) -> Result<()> {
    match state_key {
        Some(_) => Ok(()),
        None => Err(bad(format!("'{kind}' must be state events"))),
    }
}

fn member(state_key: Option<&str>, content: &Map<String, Value>) -> Result<()> {
    match content.get("membership").and_then(Value::as_str) {
        None if !content.contains_key("membership") => return Err(bad("Content has not membership key")),
        Some(m) if MEMBERSHIPS.contains(&m) => {}
        _ => return Err(bad("Invalid membership key")),
    }
    is_state("m.room.member", state_key)
}

fn retention(state_key: Option<&str>, content: &Map<String, Value>) -> Result<()> {
    if state_key.is_none() {
        return Err(bad("must be a state event"));
    }
    let lifetime = |key: &str| match content.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => v.as_i64().map(Some).ok_or_else(|| Error::bad_json(format!("'{key}' must be an integer"))),
    };
    match (lifetime("min_lifetime")?, lifetime("max_lifetime")?) {
        (Some(min), Some(max)) if min > max => {
            Err(Error::bad_json("'min_lifetime' can't be greater than 'max_lifetime'"))
        }
        _ => Ok(()),
    }
}

fn server_acl(content: &Map<String, Value>, server_name: &str) -> Result<()> {
    if acl_allows(content, server_name) {
        Ok(())
    } else {
        Err(bad("Can't create an ACL event that denies the local server"))
    }
}

/// Whether an `m.room.server_acl` lets a server in (spec: "m.room.server_acl"). The lists are compared with the name
/// as given: without its port for servers that want something, with it, as in Synapse, for a server that writes one.
pub fn acl_allows(content: &Map<String, Value>, server_name: &str) -> bool {
    let host = host_of(server_name);
    let ip_allowed = content.get("allow_ip_literals").and_then(Value::as_bool).unwrap_or(true);
    if !ip_allowed && is_ip(host) {
        return false;
    }
    let listed = |key: &str| {
        let patterns = content.get(key).and_then(Value::as_array).into_iter().flatten();
        patterns.filter_map(Value::as_str).any(|p| glob(p, server_name))
    };
    !listed("deny") && listed("allow")
}

fn host_of(server_name: &str) -> &str {
    if let Some(end) = server_name.strip_prefix('[').and_then(|_| server_name.find(']')) {
        return &server_name[..=end];
    }
    server_name.split(':').next().unwrap_or(server_name)
}

fn is_ip(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// `*` any run of characters, `?` one; case-insensitive, the whole text.
fn glob(pattern: &str, text: &str) -> bool {
    crate::push::glob(&pattern.to_lowercase(), &text.to_lowercase())
}

fn level(name: &str, value: &Value) -> Result<()> {
    match value.as_i64() {
        Some(n) if n.abs() <= MAX_INT => Ok(()),
        _ => Err(Error::bad_json(format!("\"{name}\": {value} is not of type 'integer'"))),
    }
}

fn power_levels(content: &Map<String, Value>) -> Result<()> {
    let single = ["ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"];
    for (name, value) in single.iter().filter_map(|k| Some((k, content.get(*k)?))) {
        level(name, value)?;
    }
    for name in ["events", "notifications", "users"] {
        match content.get(name) {
            None => {}
            Some(Value::Object(map)) => map.iter().try_for_each(|(k, v)| level(k, v))?,
            Some(other) => return Err(Error::bad_json(format!("\"{name}\": {other} is not of type 'object'"))),
        }
    }
    Ok(())
}

fn aliases(content: &Map<String, Value>) -> Result<()> {
    let list = content.get("aliases").and_then(Value::as_array).into_iter().flatten();
    match list.filter_map(Value::as_str).find(|a| a.len() > 255) {
        Some(_) => Err(Error::invalid_param("Can't create aliases longer than 255 characters")),
        None => Ok(()),
    }
}

fn check_mentions(mentions: &Value) -> Result<()> {
    let Value::Object(map) = mentions else {
        return Err(Error::bad_json(format!("{mentions} is not of type 'object'")));
    };
    match map.get("user_ids") {
        None => {}
        Some(Value::Array(ids)) if ids.iter().all(Value::is_string) => {}
        Some(other) => return Err(Error::bad_json(format!("\"user_ids\": {other} is not an array of strings"))),
    }
    match map.get("room") {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(other) => Err(Error::bad_json(format!("\"room\": {other} is not of type 'boolean'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: &str, state_key: Option<&str>, content: Value) -> Option<String> {
        let content = content.as_object().cloned().unwrap_or_default();
        new_event(kind, state_key, &content, Some("!r:s"), "s.test").err().map(|e| e.errcode().unwrap_or("").to_owned())
    }

    #[test]
    fn content_must_have_the_shape_of_its_type() {
        assert_eq!(check("m.room.message", None, json!({"body": "a", "msgtype": "m.text"})), None);
        assert_eq!(check("m.room.message", None, json!({"body": 1, "msgtype": "m.text"})), Some("M_UNKNOWN".into()));
        assert_eq!(check("m.room.name", None, json!({"name": "x"})), Some("M_UNKNOWN".into()));
        assert_eq!(check("m.room.member", Some("@a:s"), json!({"membership": "odd"})), Some("M_UNKNOWN".into()));
        assert_eq!(check("m.room.power_levels", Some(""), json!({"ban": "50"})), Some("M_BAD_JSON".into()));
        assert_eq!(check("m.room.power_levels", Some(""), json!({"users": {"@a:s": 100}})), None);
        assert_eq!(check("x", None, json!({"m.mentions": {"user_ids": [1]}})), Some("M_BAD_JSON".into()));
        assert_eq!(check("m.room.tombstone", Some(""), json!({"replacement_room": "!r:s"})), Some("M_UNKNOWN".into()));
    }

    #[test]
    fn acls_deny_before_they_allow() {
        let acl = |v: Value| v.as_object().cloned().unwrap_or_default();
        assert!(acl_allows(&acl(json!({"allow": ["*"]})), "a.b:8448"));
        assert!(!acl_allows(&acl(json!({"allow": ["*"], "deny": ["*.B"]})), "a.b"));
        assert!(!acl_allows(&acl(json!({})), "a.b"));
        assert!(acl_allows(&acl(json!({"allow": ["*"], "deny": ["1.2.3.4"]})), "1.2.3.4:8448"));
        assert!(!acl_allows(&acl(json!({"allow": ["*"], "allow_ip_literals": false})), "[::1]:80"));
    }
}
