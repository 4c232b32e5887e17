//! Receipts and fully-read markers (spec: "Receipts", "Fully read markers").

use app::App;
use http::{On, Route, Rq, route};
use rooms::Look;
use serde_json::{Map, Value, json};
use types::{Error, OwnedEventId, OwnedRoomId, Requester, Result};

const FULLY_READ: &str = "m.fully_read";
const TYPES: [&str; 3] = ["m.read", "m.read.private", FULLY_READ];

pub fn routes() -> Vec<Route<App>> {
    vec![
        route(
            "POST",
            "ReceiptRestServlet",
            "/_matrix/client/(r0|v3|unstable)/rooms/{room_id}/receipt/{receipt_type}/{event_id}",
        )
        .on(On::Writer("receipts"))
        .user(post),
        route("POST", "ReadMarkerRestServlet", "/_matrix/client/(r0|v3|unstable)/rooms/{room_id}/read_markers")
            .on(On::Writer("receipts"))
            .user(post_markers),
    ]
}

async fn post(app: App, who: Requester, rq: Rq) -> Result<()> {
    let (room_id, event_id) = (rq.room_id()?, rq.event_id()?);
    let kind = rq.arg("receipt_type")?;
    if !TYPES.contains(&kind) {
        return Err(Error::bad_request(format!("Receipt type must be {}", TYPES.join(", "))));
    }
    let body: Map<String, Value> = rq.json_or_empty()?;
    let thread = match body.get("thread_id") {
        None => None,
        Some(Value::String(id)) if !id.is_empty() => Some(id.as_str()),
        Some(_) => return Err(Error::invalid_param("thread_id field must be a non-empty string")),
    };
    if let Some(thread) = thread {
        if kind == FULLY_READ {
            return Err(Error::invalid_param("thread_id is not compatible with m.fully_read receipts."));
        }
        if !app.store.is_in_thread(event_id.as_str(), thread).await? {
            return Err(Error::invalid_param(format!("event_id {event_id} is not related to thread {thread}")));
        }
    }
    app.sync.bump_active(who.user_id.as_str(), who.device_id.as_deref()).await;
    if kind == FULLY_READ {
        marker(&app, &who, &room_id, &event_id).await
    } else {
        receipt(&app, &who, &room_id, kind, &event_id, thread).await
    }
}

async fn post_markers(app: App, who: Requester, rq: Rq) -> Result<()> {
    let room_id = rq.room_id()?;
    let body: Map<String, Value> = rq.json()?;
    app.sync.bump_active(who.user_id.as_str(), who.device_id.as_deref()).await;
    // All are looked at before any is written.
    let mut marks = Vec::new();
    for kind in TYPES {
        marks.extend(mark(&body, kind)?.map(|event_id| (kind, event_id)));
    }
    for (kind, event_id) in marks {
        match kind {
            FULLY_READ => marker(&app, &who, &room_id, &event_id).await?,
            kind => receipt(&app, &who, &room_id, kind, &event_id, None).await?,
        }
    }
    Ok(())
}

/// The event a field of `read_markers` names.
fn mark(body: &Map<String, Value>, kind: &str) -> Result<Option<OwnedEventId>> {
    match body.get(kind) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::String(id)) => match OwnedEventId::try_from(id.as_str()) {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(Error::invalid_param(format!("{kind} is not an event id: {id:?}"))),
        },
        Some(_) => Err(Error::invalid_param(format!("{kind} must be a string"))),
    }
}

/// A receipt for an event the user may see; one that is unknown here is passed over.
async fn receipt(
    app: &App,
    who: &Requester,
    room_id: &OwnedRoomId,
    kind: &str,
    event_id: &OwnedEventId,
    thread: Option<&str>,
) -> Result<()> {
    let Some(event) = app.store.event(event_id).await?.filter(|e| e.room_id == *room_id) else { return Ok(()) };
    let joined = !app.store.joined_among(who.user_id.as_str(), &[room_id.as_str()]).await?.is_empty();
    let look = Look { peeking: !joined, ..Look::default() };
    if app.rooms.is_visible(&who.user_id, event, look).await?.is_none() {
        return Err(Error::forbidden("You don't have permission to access that event."));
    }
    app.sync.add_receipt(room_id.as_str(), kind, who.user_id.as_str(), event_id.as_str(), thread).await?;
    Ok(())
}

/// Moves the fully-read marker forward, never back.
async fn marker(app: &App, who: &Requester, room_id: &OwnedRoomId, event_id: &OwnedEventId) -> Result<()> {
    let user = who.user_id.as_str();
    let known = app.store.event(event_id).await?.is_some_and(|e| e.room_id == *room_id);
    if !known {
        return Err(Error::not_found(format!("Could not find event {event_id}")));
    }
    let old = app.store.fully_read(user, room_id.as_str()).await?;
    if !app.sync.is_marker_ahead(event_id.as_str(), old.as_deref()).await? {
        return Ok(());
    }
    app.accounts.set_account_data(user, Some(room_id.as_str()), FULLY_READ, &json!({"event_id": event_id})).await
}
