//! The endpoints clients used before `/sync`: `/events`, `/initialSync` (deprecated in the spec).

use crate::paging::paging;
use app::App;
use http::{On, Route, Rq, route};
use serde_json::{Value, json};
use std::time::Duration;
use store::pages::Dir;
use sync::legacy::{Snapshot, StreamRequest};
use types::{Error, OwnedRoomId, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "EventStreamRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/events")
            .on(On::SyncByUser)
            .guest(get_events),
        route("GET", "InitialSyncRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/initialSync")
            .on(On::InitialSync)
            .user(get_initial_sync),
        route(
            "GET",
            "RoomInitialSyncRestServlet",
            "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/initialSync",
        )
        .on(On::InitialSync)
        .guest(get_room_initial_sync),
        route("GET", "EventRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/events/{event_id}").user(get_event),
    ]
}

const DEFAULT_LIMIT: i64 = 10;
const DEFAULT_TIMEOUT_MS: i64 = 30_000;
/// Shorter waits are not worth a request.
const MIN_TIMEOUT_MS: i64 = 500;

async fn refuse_blocked(app: &App, room_id: &OwnedRoomId) -> Result<()> {
    if app.store.is_blocked(room_id.as_str()).await? {
        return Err(Error::forbidden("This room has been blocked on this server"));
    }
    Ok(())
}

async fn get_events(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let room_id = match rq.param("room_id") {
        Some(id) => Some(
            OwnedRoomId::try_from(id).map_err(|_| Error::invalid_param(format!("room_id is not a room id: {id:?}")))?,
        ),
        None if who.is_guest => return Err(Error::bad_request("Guest users must specify room_id param")),
        None => None,
    };
    let timeout = match rq.param("timeout") {
        None => DEFAULT_TIMEOUT_MS,
        Some(t) => t.parse::<i64>().map_err(|_| Error::bad_request("timeout must be in milliseconds."))?,
    };
    let timeout = if timeout > 0 { timeout.max(MIN_TIMEOUT_MS) } else { 0 };
    let page = paging(&rq, DEFAULT_LIMIT, Dir::Forwards)?;
    if let Some(room_id) = &room_id {
        refuse_blocked(&app, room_id).await?;
        app.rooms.check_may_look(&who.user_id, room_id, false).await?;
    }
    let presence = if who.is_guest { "offline" } else { "online" };
    let user = who.user_id.to_string();
    let _syncing = app.sync.user_syncing(&user, who.device_id.as_deref(), presence).await;
    let request = StreamRequest {
        who,
        from: page.from,
        limit: page.limit,
        timeout: Duration::from_millis(timeout as u64),
        room_id,
    };
    let found = app.sync.events(request).await?;
    Ok(json!({"chunk": found.chunk, "start": found.start.to_string(), "end": found.end.to_string()}))
}

async fn get_initial_sync(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let page = paging(&rq, DEFAULT_LIMIT, Dir::Forwards)?;
    let archived = rq.bool_param("archived")?.unwrap_or(false);
    app.sync.initial_sync(&who, Snapshot { limit: page.limit, archived }).await
}

async fn get_room_initial_sync(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    let page = paging(&rq, DEFAULT_LIMIT, Dir::Forwards)?;
    refuse_blocked(&app, &room_id).await?;
    app.sync.room_initial_sync(&who, &room_id, page.limit).await
}

async fn get_event(app: App, who: Requester, rq: Rq) -> Result<Box<serde_json::value::RawValue>> {
    let event_id = crate::paging::event_id(&rq, "event_id")?;
    let unknown = || Error::not_found("Event not found.");
    let event = app.store.event(&event_id).await?.filter(|e| e.rejected.is_none()).ok_or_else(unknown)?;
    let room_id = event.room_id.clone();
    let shown = app.rooms.event_for(&who.user_id, &room_id, &event_id).await?.ok_or_else(unknown)?;
    app.rooms.render_event(&shown, &rooms::Bundles::new(), rooms::Render::for_user(&who)).await
}
