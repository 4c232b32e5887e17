//! Sending messages, state and redactions.

use crate::membership;
use app::App;
use http::route::Rate;
use http::{On, Route, Rq, route};
use rooms::Template;
use rooms::membership::{Action, Change};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::time::Duration;
use types::json::raw;
use types::{Error, OwnedEventId, OwnedUserId, Requester, Result, credentials};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let r = |method, name, path| route(method, name, path).on(On::RoomShard).limit(Rate::Message);
    let (send, state, redact) = ("RoomSendEventRestServlet", "RoomStateEventRestServlet", "RoomRedactEventRestServlet");
    vec![
        r("PUT", send, "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/send/{event_type}/{txn_id}")
            .guest(message),
        r("POST", send, "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/send/{event_type}").guest(message),
        r("PUT", state, "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/state/{event_type}(|/)")
            .guest(put_state),
        r("PUT", state, "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/state/{event_type}/{state_key}")
            .guest(put_state),
        r("PUT", redact, "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/redact/{event_id}/{txn_id}")
            .user(redaction),
        r("POST", redact, "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/redact/{event_id}").user(redaction),
    ]
}

/// The body as it is: its numbers are the event's.
fn body(rq: &Rq) -> Result<Box<RawValue>> {
    rq.json()
}

/// The body: the event's content.
fn content(rq: &Rq) -> Result<Map<String, Value>> {
    match rq.json::<Value>()? {
        Value::Object(content) => Ok(content),
        _ => Err(Error::bad_json("Content must be a JSON object.")),
    }
}

/// `ts`, which application services may give.
fn timestamp(who: &Requester, rq: &Rq) -> Result<Option<i64>> {
    if who.app_service.is_some() { rq.int_param("ts") } else { Ok(None) }
}

/// Later delivery is not offered.
fn check_delay(rq: &Rq) -> Result<()> {
    match rq.param("org.matrix.msc4140.delay") {
        None => Ok(()),
        Some(_) => Err(Error::bad_request("Delayed events are not supported on this server")
            .with("org.matrix.msc4140.errcode", "M_MAX_DELAY_UNSUPPORTED")),
    }
}

/// Users who do not know that nobody hears them are answered late, and with an id of no event.
async fn hush(who: &Requester) -> Option<Value> {
    if !who.shadow_banned {
        return None;
    }
    tokio::time::sleep(Duration::from_secs(rand::random_range(1..=10))).await;
    Some(json!({"event_id": format!("${}", credentials::letters(43))}))
}

async fn message(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let content = content(&rq)?;
    check_delay(&rq)?;
    if let Some(answer) = hush(&who).await {
        return Ok(answer);
    }
    let mut template = Template::new(who.user_id.clone(), rq.arg("event_type")?, body(&rq)?);
    template.txn_id = rq.arg_opt("txn_id").map(str::to_owned);
    template.origin_server_ts = timestamp(&who, &rq)?;
    if template.kind == "m.room.redaction" {
        template.redacts = content.get("redacts").and_then(Value::as_str).and_then(|id| id.try_into().ok());
    }
    let sent = app.rooms.send(&who, &rq.room_id()?, template).await?;
    Ok(json!({"event_id": sent.event_id}))
}

async fn put_state(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let content = content(&rq)?;
    check_delay(&rq)?;
    let (kind, key) = (rq.arg("event_type")?, rq.arg_opt("state_key").unwrap_or_default());
    if kind == "m.room.member" {
        return put_member(app, who, &rq, key, content).await;
    }
    if let Some(answer) = hush(&who).await {
        return Ok(answer);
    }
    let room_id = rq.room_id()?;
    if kind == "m.room.canonical_alias" && key.is_empty() {
        app.rooms.check_canonical_alias(&room_id, &content).await?;
    }
    let mut template = Template::new(who.user_id.clone(), kind, body(&rq)?).state(key);
    template.origin_server_ts = timestamp(&who, &rq)?;
    let sent = app.rooms.send(&who, &room_id, template).await?;
    if kind == "m.room.guest_access" && key.is_empty() && content.get("guest_access") != Some(&json!("can_join")) {
        app.rooms.dismiss_guests(&room_id).await;
    }
    Ok(json!({"event_id": sent.event_id}))
}

async fn put_member(app: App, who: Requester, rq: &Rq, key: &str, content: Map<String, Value>) -> Result<Value> {
    let Some(Value::String(membership)) = content.get("membership") else {
        return Err(Error::bad_request("Invalid membership (must be a string)"));
    };
    let action = Action::named(membership).ok_or_else(|| Error::bad_request("Invalid membership key"))?;
    let target =
        OwnedUserId::try_from(key).map_err(|_| Error::invalid_param(format!("state_key is not a user id: {key:?}")))?;
    let mut change = Change::new(target, action).content(content);
    change.origin_server_ts = timestamp(&who, rq)?;
    match membership::change(&app, &who, &rq.room_id()?, change).await? {
        Some(sent) => Ok(json!({"event_id": sent.event_id})),
        None => Ok(json!({"event_id": format!("${}", credentials::letters(43))})),
    }
}

async fn redaction(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let mut content = content(&rq)?;
    let room_id = rq.room_id()?;
    let id = rq.arg("event_id")?;
    let target = OwnedEventId::try_from(id).map_err(|_| Error::not_found(format!("Could not find event {id}")))?;
    check_suspended(&app, &who, &target).await?;
    // Where the room version keeps the target in the content, another one there contradicts the path.
    if content.get("redacts").is_some_and(|r| r.as_str() != Some(id)) {
        let text = "Cannot provide a redacts value incoherent with the event_id of the URL parameter";
        return Err(Error::invalid_param(text));
    }
    content.remove("redacts");
    if let Some(answer) = hush(&who).await {
        return Ok(answer);
    }
    let mut template = Template::new(who.user_id.clone(), "m.room.redaction", raw(&content)?);
    template.redacts = Some(target);
    template.txn_id = rq.arg_opt("txn_id").map(str::to_owned);
    let sent = app.rooms.send(&who, &room_id, template).await?;
    Ok(json!({"event_id": sent.event_id}))
}

/// Suspended users may take back only what they said themselves.
async fn check_suspended(app: &App, who: &Requester, target: &OwnedEventId) -> Result<()> {
    if !app.store.user(who.user_id.as_str()).await?.is_some_and(|u| u.suspended) {
        return Ok(());
    }
    match app.store.event(target).await? {
        Some(e) if e.sender != who.user_id => {
            let text = "You can only redact your own events while account is suspended.";
            Err(Error::client(403, "M_USER_SUSPENDED", text))
        }
        _ => Ok(()),
    }
}
