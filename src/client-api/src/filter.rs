//! Stored filters (spec: "Filtering").

use app::App;
use http::{Route, Rq, route};
use ruma::{RoomId, UserId};
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "GetFilterRestServlet", "/_matrix/client/(r0|v3|unstable)/user/{user_id}/filter/{filter_id}")
            .user(get),
        route("POST", "CreateFilterRestServlet", "/_matrix/client/(r0|v3|unstable)/user/{user_id}/filter").user(create),
    ]
}

fn check_own(who: &Requester, rq: &Rq, what: &str) -> Result<()> {
    if rq.user_id()? == who.user_id {
        return Ok(());
    }
    Err(Error::forbidden(format!("Cannot {what} filters for other users")))
}

async fn get(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_own(&who, &rq, "get")?;
    let id = rq.arg("filter_id")?.parse().map_err(|_| Error::bad_request("Invalid filter_id"))?;
    let found = app.store.stored_filter(who.user_id.as_str(), id).await?;
    found.ok_or_else(|| Error::not_found("No such filter"))
}

async fn create(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_own(&who, &rq, "create")?;
    let mut filter: Map<String, Value> = rq.json()?;
    check(&filter)?;
    if let Some(most) = app.cx.config.server.filter_timeline_limit {
        let limit = filter.get_mut("room").and_then(|r| r.get_mut("timeline")).and_then(|t| t.get_mut("limit"));
        if let Some(limit) = limit.filter(|l| l.as_f64().is_some_and(|n| n > most as f64)) {
            *limit = json!(most);
        }
    }
    let id = app.store.add_filter(&who.user_id, &filter).await?;
    Ok(json!({"filter_id": id.to_string()}))
}

fn wrong(path: &str, what: &str) -> Error {
    Error::bad_request(format!("{path}: must be {what}"))
}

/// 400 if a known key has another type than it should.
fn check(filter: &Map<String, Value>) -> Result<()> {
    for key in ["presence", "account_data"] {
        check_events(filter.get(key), key)?;
    }
    check_strings(filter.get("event_fields"), "event_fields", |_| true, "an array of strings")?;
    match filter.get("event_format").map(Value::as_str) {
        None | Some(Some("client" | "federation")) => {}
        Some(_) => return Err(wrong("event_format", "client or federation")),
    }
    let room = match filter.get("room") {
        None => return Ok(()),
        Some(Value::Object(room)) => room,
        Some(_) => return Err(wrong("room", "an object")),
    };
    check_rooms(room, "room")?;
    check_flag(room, "room", "include_leave")?;
    for key in ["ephemeral", "state", "timeline", "account_data"] {
        check_events(room.get(key), &format!("room.{key}"))?;
    }
    Ok(())
}

fn check_events(filter: Option<&Value>, path: &str) -> Result<()> {
    let filter = match filter {
        None => return Ok(()),
        Some(Value::Object(filter)) => filter,
        Some(_) => return Err(wrong(path, "an object")),
    };
    if filter.get("limit").is_some_and(|l| !l.is_number()) {
        return Err(wrong(&format!("{path}.limit"), "a number"));
    }
    for key in ["senders", "not_senders"] {
        let is_user = |s: &str| <&UserId>::try_from(s).is_ok();
        check_strings(filter.get(key), &format!("{path}.{key}"), is_user, "an array of user ids")?;
    }
    for key in ["types", "not_types", "related_by_senders", "related_by_rel_types", "org.matrix.labels", "org.matrix.not_labels"] {
        check_strings(filter.get(key), &format!("{path}.{key}"), |_| true, "an array of strings")?;
    }
    check_rooms(filter, path)?;
    for key in ["contains_url", "lazy_load_members", "include_redundant_members", "unread_thread_notifications"] {
        check_flag(filter, path, key)?;
    }
    Ok(())
}

fn check_rooms(filter: &Map<String, Value>, path: &str) -> Result<()> {
    let is_room = |s: &str| <&RoomId>::try_from(s).is_ok();
    for key in ["rooms", "not_rooms"] {
        check_strings(filter.get(key), &format!("{path}.{key}"), is_room, "an array of room ids")?;
    }
    Ok(())
}

fn check_flag(filter: &Map<String, Value>, path: &str, key: &str) -> Result<()> {
    if filter.get(key).is_some_and(|v| !v.is_boolean()) {
        return Err(wrong(&format!("{path}.{key}"), "a boolean"));
    }
    Ok(())
}

fn check_strings(value: Option<&Value>, path: &str, fits: impl Fn(&str) -> bool, what: &str) -> Result<()> {
    match value {
        None => Ok(()),
        Some(Value::Array(list)) if list.iter().all(|v| v.as_str().is_some_and(&fits)) => Ok(()),
        Some(_) => Err(wrong(path, what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(filter: Value) -> Result<()> {
        check(filter.as_object().unwrap())
    }

    #[test]
    fn wrong_types_are_named() {
        assert!(checked(json!({"room": {"timeline": {"limit": 10, "not_types": ["a"]}}, "custom": 1})).is_ok());
        let e = checked(json!({"room": {"timeline": {"limit": "ten"}}})).unwrap_err();
        assert!(e.to_string().contains("room.timeline.limit"));
        assert!(checked(json!({"room": 1})).is_err());
        assert!(checked(json!({"presence": {"senders": ["nobody"]}})).is_err());
        assert!(checked(json!({"event_format": "xml"})).is_err());
    }
}
