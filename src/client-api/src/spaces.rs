//! Summaries of rooms and the hierarchy of spaces.

use app::App;
use http::route::{Access, App as _};
use http::{On, Route, Rq, route};
use rooms::summary::Hierarchy;
use serde_json::Value;
use types::{Error, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let summary = "RoomSummaryRestServlet";
    let r = |name, path| route("GET", name, path).on(On::RoomRead);
    vec![
        r("RoomHierarchyRestServlet", "/_matrix/client/v1/rooms/{room_id}/hierarchy").guest(hierarchy),
        r(summary, "/_matrix/client/v1/room_summary/{room}").open(room_summary),
        r(summary, "/_matrix/client/unstable/im.nheko.summary/summary/{room}").open(room_summary),
        r(summary, "/_matrix/client/unstable/im.nheko.summary/rooms/{room}/summary").open(room_summary),
    ]
}

/// A non-negative integer parameter.
fn natural(rq: &Rq, name: &str) -> Result<Option<i64>> {
    match rq.int_param(name)? {
        Some(n) if n < 0 => Err(Error::invalid_param(format!("Query parameter '{name}' must be a positive integer."))),
        n => Ok(n),
    }
}

async fn hierarchy(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    let wanted = Hierarchy {
        room_id: &room_id,
        suggested_only: rq.bool_param("suggested_only")?.unwrap_or(false),
        max_depth: natural(&rq, "max_depth")?,
        limit: natural(&rq, "limit")?,
        from: rq.param("from"),
    };
    app.rooms.hierarchy(&who.user_id, &wanted).await
}

async fn room_summary(app: App, rq: Rq) -> Result<Value> {
    let who = match rq.access_token() {
        Some(_) => Some(app.authenticate(&rq, Access::Guest).await?),
        None => None,
    };
    let (room_id, of_alias) = app.rooms.resolve_room(rq.arg("room")?).await?;
    let named = rq.params("via").into_iter().chain(rq.params("server_name"));
    let via: Vec<String> = named.chain(of_alias.iter().map(String::as_str)).map(str::to_owned).collect();
    Ok(Value::Object(app.rooms.summary(who.as_ref().map(|w| &*w.user_id), &room_id, &via).await?))
}
