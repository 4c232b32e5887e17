//! Reading events: one, around one, pages of them, what relates to one.

use crate::paging;
use app::App;
use http::reply::Json;
use http::{On, Route, Rq, route};
use rooms::history::{Context, Messages};
use rooms::relate::{Relations, RelationsPage, ThreadsPage};
use rooms::{Render, Shape};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use store::pages::Dir;
use types::{Error, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let r = |name, path| route("GET", name, path).on(On::RoomRead);
    vec![
        r("RoomEventServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/event/{event_id}").guest(event),
        r("RoomEventContextServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/context/{event_id}")
            .guest(context),
        r("RoomMessageListRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/messages")
            .guest(messages),
        r("RelationPaginationServlet", "/_matrix/client/(v1|unstable)/rooms/{room_id}/relations/{parent_id}")
            .guest(relations),
        r(
            "RelationPaginationServlet",
            "/_matrix/client/(v1|unstable)/rooms/{room_id}/relations/{parent_id}/{relation_type}",
        )
        .guest(relations),
        r(
            "RelationPaginationServlet",
            "/_matrix/client/(v1|unstable)/rooms/{room_id}/relations/{parent_id}/{relation_type}/{event_type}",
        )
        .guest(relations),
        r("ThreadsServlet", "/_matrix/client/v1/rooms/{room_id}/threads").user(threads),
        r("TimestampLookupRestServlet", "/_matrix/client/v1/rooms/{room_id}/timestamp_to_event")
            .user(timestamp_to_event),
    ]
}

fn no_event() -> Error {
    Error::not_found("Event not found.")
}

async fn event(app: App, who: Requester, rq: Rq) -> Result<Box<RawValue>> {
    let event_id = paging::event_id(&rq, "event_id")?;
    // Not being allowed to see it looks like its not being there.
    let event = match app.rooms.event_for(&who.user_id, &rq.room_id()?, &event_id).await {
        Err(e) if e.status() == 403 => return Err(no_event()),
        other => other?.ok_or_else(no_event)?,
    };
    let bundles = app.rooms.bundle(&who.user_id, std::slice::from_ref(&event)).await?;
    app.rooms.render_event(&event, &bundles, Render::for_user(&who)).await
}

async fn context(app: App, who: Requester, rq: Rq) -> Result<Json<Context>> {
    let event_id = paging::event_id(&rq, "event_id")?;
    let (limit, filter) = (paging::limit(&rq, 10)?, paging::filter(&rq)?);
    let found = app.rooms.context(&who, &rq.room_id()?, &event_id, limit, filter.as_ref()).await?;
    found.map(Json).ok_or_else(no_event)
}

async fn messages(app: App, who: Requester, rq: Rq) -> Result<Json<Messages>> {
    let paging = paging::paging(&rq, 10, Dir::Forwards)?;
    let filter = paging::filter(&rq)?;
    let wants_raw = filter.as_ref().and_then(|f| f.event_format.as_deref()) == Some("federation");
    let shape = if wants_raw || rq.param("raw").is_some() { Shape::Raw } else { Shape::V1 };
    Ok(Json(app.rooms.messages(&who, &rq.room_id()?, &paging, filter.as_ref(), shape).await?))
}

async fn relations(app: App, who: Requester, rq: Rq) -> Result<Json<RelationsPage>> {
    let parent = paging::event_id(&rq, "parent_id")?;
    let recurse =
        rq.bool_param("recurse")?.unwrap_or(false) || rq.bool_param("org.matrix.msc3981.recurse")?.unwrap_or(false);
    let wanted = Relations {
        parent: &parent,
        rel_type: rq.arg_opt("relation_type"),
        kind: rq.arg_opt("event_type"),
        paging: paging::paging(&rq, 5, Dir::Backwards)?,
        recurse,
        with_original: rq.path.starts_with("/_matrix/client/unstable/"),
    };
    Ok(Json(app.rooms.relations(&who, &rq.room_id()?, &wanted).await?))
}

async fn threads(app: App, who: Requester, rq: Rq) -> Result<Json<ThreadsPage>> {
    let participated = match rq.param("include") {
        None | Some("all") => false,
        Some("participated") => true,
        Some(_) => {
            return Err(Error::invalid_param("Query parameter 'include' must be one of ['all', 'participated']"));
        }
    };
    let bad = || Error::bad_request("Invalid threads token");
    let from = match rq.param("from") {
        None => None,
        Some(t) => {
            let (depth, stream) = t.split_once('_').ok_or_else(bad)?;
            Some((depth.parse().map_err(|_| bad())?, stream.parse().map_err(|_| bad())?))
        }
    };
    Ok(Json(app.rooms.threads(&who, &rq.room_id()?, participated, paging::limit(&rq, 5)?, from).await?))
}

async fn timestamp_to_event(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let at = rq.int_param("ts")?.ok_or_else(|| Error::missing_param("Missing integer query parameter 'ts'"))?;
    let dir = paging::dir(&rq, Dir::Forwards)?;
    let (event_id, at) = app.rooms.event_near(&who.user_id, &rq.room_id()?, at, dir).await?;
    Ok(json!({"event_id": event_id, "origin_server_ts": at}))
}
