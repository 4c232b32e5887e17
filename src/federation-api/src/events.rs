//! Events and state for other servers.

use app::App;
use http::{Route, Rq, route};
use rooms::remote::MissingQuestion;
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Error, OwnedEventId, OwnedServerName, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "FederationEventServlet", "/_matrix/federation/v1/event/{event_id}").server(event),
        route("GET", "FederationStateV1Servlet", "/_matrix/federation/v1/state/{room_id}").server(state),
        route("GET", "FederationStateIdsServlet", "/_matrix/federation/v1/state_ids/{room_id}").server(state_ids),
        route("GET", "FederationBackfillServlet", "/_matrix/federation/v1/backfill/{room_id}").server(backfill),
        route("POST", "FederationGetMissingEventsServlet", "/_matrix/federation/v1/get_missing_events/{room_id}")
            .server(missing),
        route("GET", "FederationEventAuthServlet", "/_matrix/federation/v1/event_auth/{room_id}/{event_id}")
            .server(event_auth),
        route("GET", "FederationTimestampLookupServlet", "/_matrix/federation/v1/timestamp_to_event/{room_id}")
            .server(near),
    ]
}

/// Events as a transaction of their own.
fn transaction(app: &App, pdus: Vec<Value>) -> Value {
    json!({"origin": app.cx.config.server.name, "origin_server_ts": app.cx.now_ms(), "pdus": pdus})
}

async fn event(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let event = app.rooms.event_for_server(&origin, &rq.event_id()?).await?;
    Ok(transaction(&app, vec![event]))
}

fn event_param(rq: &Rq) -> Result<OwnedEventId> {
    let id = rq.param("event_id").ok_or_else(|| Error::missing_param("Query parameter event_id is missing"))?;
    id.try_into().map_err(|_| Error::invalid_param("Query parameter event_id is not an event id"))
}

async fn state(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    app.rooms.check_server_in_room(&room_id, &origin).await?;
    let found = app.rooms.state_for_server(&room_id, &event_param(&rq)?).await?;
    Ok(json!({
        "pdus": app.rooms.events_for_server(&found.state).await?,
        "auth_chain": app.rooms.events_for_server(&found.auth_chain).await?,
    }))
}

async fn state_ids(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    app.rooms.check_server_in_room(&room_id, &origin).await?;
    let found = app.rooms.state_for_server(&room_id, &event_param(&rq)?).await?;
    Ok(json!({"pdu_ids": found.state, "auth_chain_ids": found.auth_chain}))
}

async fn backfill(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let from = rq.params("v").into_iter().map(|v| v.try_into());
    let from: Vec<OwnedEventId> =
        from.collect::<Result<_, _>>().map_err(|_| Error::invalid_param("Query parameter v is not an event id"))?;
    let limit = rq.int_param("limit")?.ok_or_else(|| Error::missing_param("Query parameter limit is missing"))?;
    let pdus = app.rooms.backfill_for_server(&origin, &rq.room_id()?, &from, limit).await?;
    Ok(transaction(&app, pdus))
}

#[derive(Deserialize)]
struct Missing {
    #[serde(default)]
    earliest_events: Vec<OwnedEventId>,
    #[serde(default)]
    latest_events: Vec<OwnedEventId>,
    #[serde(default = "ten")]
    limit: i64,
    #[serde(default)]
    min_depth: i64,
}

fn ten() -> i64 {
    10
}

async fn missing(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let body: Missing = rq.json()?;
    let question = MissingQuestion {
        earliest: body.earliest_events,
        latest: body.latest_events,
        limit: body.limit,
        min_depth: body.min_depth,
    };
    Ok(json!({"events": app.rooms.missing_for_server(&origin, &rq.room_id()?, question).await?}))
}

async fn event_auth(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let (room_id, event_id) = (rq.room_id()?, rq.event_id()?);
    app.rooms.check_server_in_room(&room_id, &origin).await?;
    let event = app.store.event(&event_id).await?.filter(|e| e.room_id == room_id);
    let event = event.ok_or_else(|| Error::not_found(format!("Could not find event {event_id}")))?;
    let chain = app.rooms.auth_chain_of(&[&event.event_id]).await?;
    Ok(json!({"auth_chain": app.rooms.events_for_server(&chain).await?}))
}

async fn near(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    app.rooms.check_server_in_room(&room_id, &origin).await?;
    let at = rq.int_param("ts")?.ok_or_else(|| Error::missing_param("Query parameter ts is missing"))?;
    let dir = match rq.param("dir").unwrap_or("f") {
        "f" => store::pages::Dir::Forwards,
        "b" => store::pages::Dir::Backwards,
        _ => return Err(Error::invalid_param("Query parameter dir must be f or b")),
    };
    let found = app.store.event_near(room_id.as_str(), at, dir).await?;
    let (event_id, ts) =
        found.ok_or_else(|| Error::not_found(format!("Unable to find event from {at} in direction {dir}")))?;
    Ok(json!({"event_id": event_id, "origin_server_ts": ts}))
}
