//! Reading a room's state and members.

use app::App;
use http::reply::Json;
use http::{On, Route, Rq, route};
use rooms::read::Part;
use rooms::{Render, Shape};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result, StreamToken};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let r = |name, path| route("GET", name, path).on(On::RoomRead);
    vec![
        r("RoomStateRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/state").guest(state),
        r(
            "RoomStateEventRestServlet",
            "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/state/{event_type}(|/)",
        )
        .guest(event),
        r(
            "RoomStateEventRestServlet",
            "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/state/{event_type}/{state_key}",
        )
        .guest(event),
        r("RoomMemberListRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/members")
            .guest(members),
        r("JoinedRoomMemberListRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/joined_members")
            .user(joined_members),
        r("JoinedRoomsRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/joined_rooms")
            .on(On::Any)
            .guest(joined_rooms),
    ]
}

async fn state(app: App, who: Requester, rq: Rq) -> Result<Json<Vec<Box<RawValue>>>> {
    let state = app.rooms.state_for(&who.user_id, &rq.room_id()?, Part::All).await?;
    Ok(Json(app.rooms.render_state(&state, Render::for_user(&who))?))
}

async fn event(app: App, who: Requester, rq: Rq) -> Result<Box<RawValue>> {
    let (kind, key) = (rq.arg("event_type")?, rq.arg_opt("state_key").unwrap_or_default());
    let whole = match rq.param("format") {
        None | Some("content") => false,
        Some("event") => true,
        Some(_) => return Err(Error::invalid_param("Query parameter 'format' must be one of ['content', 'event']")),
    };
    let event = app.rooms.state_event_for(&who.user_id, &rq.room_id()?, kind, key).await?;
    let event = event.ok_or_else(|| Error::not_found("Event not found."))?;
    if !whole {
        return Ok(event.content.clone());
    }
    let how = Render::for_user(&who).shape(Shape::V2);
    let rendered = app.rooms.render_state(std::slice::from_ref(&event), how)?.pop();
    rendered.ok_or_else(|| Error::internal("an event was not rendered"))
}

async fn members(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    let part = Part::OfType("m.room.member");
    let mut members = match rq.param("at") {
        None => app.rooms.state_for(&who.user_id, &room_id, part).await?,
        Some(at) => {
            let token = StreamToken::parse(at)?;
            app.rooms.state_at(&who.user_id, &room_id, &token.room, part).await?
        }
    };
    let (only, not) = (rq.param("membership"), rq.param("not_membership"));
    members.retain(|e| {
        let membership = e.membership();
        (only.is_none() || membership.as_deref() == only) && (not.is_none() || membership.as_deref() != not)
    });
    let chunk = app.rooms.render_state(&members, Render::for_user(&who))?;
    Ok(json!({"chunk": chunk}))
}

async fn joined_members(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let joined = app.rooms.joined_members_for(&who, &rq.room_id()?).await?;
    let joined: Map<String, Value> = joined
        .into_iter()
        .map(|m| (m.user_id.to_string(), json!({"display_name": m.display_name, "avatar_url": m.avatar_url})))
        .collect();
    Ok(json!({"joined": joined}))
}

async fn joined_rooms(app: App, who: Requester, _rq: Rq) -> Result<Value> {
    let rooms = app.store.rooms_joined_by(who.user_id.as_str()).await?;
    Ok(json!({"joined_rooms": *rooms}))
}
