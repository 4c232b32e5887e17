//! Joining, leaving, knocking and inviting across servers.

use app::App;
use http::{Reply, Route, Rq, route};
use rooms::remote::{InviteQuestion, Taken};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::{Error, OwnedServerName, Result, RoomVersionId};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "FederationMakeJoinServlet", "/_matrix/federation/v1/make_join/{room_id}/{user_id}")
            .server(make_join),
        route("GET", "FederationMakeLeaveServlet", "/_matrix/federation/v1/make_leave/{room_id}/{user_id}")
            .server(make_leave),
        route("GET", "FederationMakeKnockServlet", "/_matrix/federation/v1/make_knock/{room_id}/{user_id}")
            .server(make_knock),
        route("PUT", "FederationV1SendJoinServlet", "/_matrix/federation/v1/send_join/{room_id}/{event_id}")
            .server(send_join_v1),
        route("PUT", "FederationV2SendJoinServlet", "/_matrix/federation/v2/send_join/{room_id}/{event_id}")
            .server(send_join),
        route("PUT", "FederationV1SendLeaveServlet", "/_matrix/federation/v1/send_leave/{room_id}/{event_id}")
            .server(send_leave_v1),
        route("PUT", "FederationV2SendLeaveServlet", "/_matrix/federation/v2/send_leave/{room_id}/{event_id}")
            .server(send_leave),
        route("PUT", "FederationV1SendKnockServlet", "/_matrix/federation/v1/send_knock/{room_id}/{event_id}")
            .server(send_knock),
        route("PUT", "FederationV1InviteServlet", "/_matrix/federation/v1/invite/{room_id}/{event_id}")
            .server(invite_v1),
        route("PUT", "FederationV2InviteServlet", "/_matrix/federation/v2/invite/{room_id}/{event_id}").server(invite),
    ]
}

async fn make_join(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let versions = rq.params("ver");
    // Servers that say nothing know the first version only.
    let versions = if versions.is_empty() { vec!["1"] } else { versions };
    app.rooms.propose_membership(&origin, &rq.room_id()?, &rq.user_id()?, "join", Some(&versions)).await
}

async fn make_leave(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    app.rooms.propose_membership(&origin, &rq.room_id()?, &rq.user_id()?, "leave", None).await
}

async fn make_knock(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let versions = rq.params("ver");
    app.rooms.propose_membership(&origin, &rq.room_id()?, &rq.user_id()?, "knock", Some(&versions)).await
}

async fn take(app: &App, origin: &OwnedServerName, rq: &Rq, membership: &str) -> Result<Taken> {
    app.rooms.take_membership(origin, &rq.room_id()?, &rq.json::<Value>()?, membership).await
}

/// The state before a join, and what authorises it.
async fn joined(app: &App, taken: Taken) -> Result<Value> {
    let state = app.rooms.events_for_server(&taken.state.state).await?;
    let auth_chain = app.rooms.events_for_server(&taken.state.auth_chain).await?;
    Ok(json!({
        "origin": app.cx.config.server.name,
        "event": taken.event,
        "state": state,
        "auth_chain": auth_chain,
        "members_omitted": false,
        "servers_in_room": taken.servers,
    }))
}

async fn send_join(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let taken = take(&app, &origin, &rq, "join").await?;
    joined(&app, taken).await
}

async fn send_join_v1(app: App, origin: OwnedServerName, rq: Rq) -> Result<Reply> {
    let taken = take(&app, &origin, &rq, "join").await?;
    Reply::json(&json!([200, joined(&app, taken).await?]))
}

async fn send_leave(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    take(&app, &origin, &rq, "leave").await?;
    Ok(json!({}))
}

async fn send_leave_v1(app: App, origin: OwnedServerName, rq: Rq) -> Result<Reply> {
    take(&app, &origin, &rq, "leave").await?;
    Reply::json(&json!([200, {}]))
}

async fn send_knock(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    take(&app, &origin, &rq, "knock").await?;
    Ok(json!({"knock_room_state": app.rooms.knock_state(&room_id).await?}))
}

#[derive(Deserialize)]
struct Invite {
    room_version: RoomVersionId,
    event: Value,
    #[serde(default)]
    invite_room_state: Vec<Value>,
}

async fn invite(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let body: Invite = rq.json()?;
    let q = InviteQuestion { version: body.room_version, event: &body.event, state: body.invite_room_state };
    Ok(json!({"event": app.rooms.take_invite(&origin, &rq.room_id()?, q).await?}))
}

/// Only for rooms of versions 1 and 2: the body is the event.
async fn invite_v1(app: App, origin: OwnedServerName, rq: Rq) -> Result<Reply> {
    let event: Map<String, Value> = rq.json()?;
    let state = event.get("unsigned").and_then(|u| u.get("invite_room_state")).and_then(Value::as_array);
    let state = state.cloned().unwrap_or_default();
    let room_id = rq.room_id()?;
    let version = match app.rooms.room_version(&room_id).await? {
        Some(version @ (RoomVersionId::V1 | RoomVersionId::V2)) => version,
        None => RoomVersionId::V1,
        Some(other) => {
            let text = format!("Rooms of version {other} need /v2/invite");
            return Err(Error::client(400, "M_INCOMPATIBLE_ROOM_VERSION", text).with("room_version", other.as_str()));
        }
    };
    let event = Value::Object(event);
    let q = InviteQuestion { version, event: &event, state };
    Reply::json(&json!([200, {"event": app.rooms.take_invite(&origin, &room_id, q).await?}]))
}
