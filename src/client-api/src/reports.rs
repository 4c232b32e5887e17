//! Reporting events, rooms and users to the administrators of this server.

use crate::paging;
use app::App;
use http::{On, Route, Rq, route};
use serde::Deserialize;
use serde_json::{Map, Value};
use types::{Error, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let r = |name, path| route("POST", name, path).on(On::Main);
    vec![
        r("ReportEventRestServlet", "/_matrix/client/(r0|v3|unstable)/rooms/{room_id}/report/{event_id}").user(event),
        r("ReportRoomRestServlet", "/_matrix/client/v3/rooms/{room_id}/report").user(room),
        r("ReportUserRestServlet", "/_matrix/client/v3/users/{user_id}/report").user(user),
    ]
}

#[derive(Deserialize)]
struct Report {
    reason: String,
}

/// Longest reason for reporting a user, in characters.
const MAX_REASON: usize = 1000;

async fn event(app: App, who: Requester, rq: Rq) -> Result<()> {
    let body: Map<String, Value> = rq.json()?;
    let reason = match body.get("reason") {
        None => None,
        Some(Value::String(s)) => Some(s.as_str()),
        Some(_) => return Err(Error::bad_json("Param 'reason' must be a string")),
    };
    if body.get("score").is_some_and(|s| !s.is_i64()) {
        return Err(Error::bad_json("Param 'score' must be an integer"));
    }
    let unseen = || Error::not_found("Unable to report event: it does not exist or you aren't able to see it.");
    let room_id = rq.room_id()?;
    let event_id = paging::event_id(&rq, "event_id").map_err(|_| unseen())?;
    match app.rooms.event_for(&who.user_id, &room_id, &event_id).await {
        Err(e) if e.status() == 403 => return Err(unseen()),
        other => other?.ok_or_else(unseen)?,
    };
    let content = serde_json::to_string(&body)?;
    let (room_id, event_id, by) = (room_id.as_str(), event_id.as_str(), who.user_id.as_str());
    app.store.report_event(app.cx.now_ms(), room_id, event_id, by, reason, &content).await
}

async fn room(app: App, who: Requester, rq: Rq) -> Result<()> {
    let report: Report = rq.json()?;
    app.accounts.limit_user(&app.accounts.limits().reports, &who).await?;
    let room_id = rq.room_id()?;
    if app.store.room(room_id.as_str()).await?.is_none() {
        return Err(Error::not_found("Room does not exist"));
    }
    app.store.report_room(app.cx.now_ms(), room_id.as_str(), who.user_id.as_str(), &report.reason).await
}

async fn user(app: App, who: Requester, rq: Rq) -> Result<()> {
    let report: Report = rq.json()?;
    app.accounts.limit_user(&app.accounts.limits().reports, &who).await?;
    if report.reason.chars().count() > MAX_REASON {
        return Err(Error::bad_json("Reason must be less than 1000 characters"));
    }
    let target = rq.arg("user_id")?;
    // Who does not exist, or lives elsewhere, is not told apart from who does.
    if !app.accounts.is_local(target) || app.store.user(target).await?.is_none() {
        return Ok(());
    }
    app.store.report_user(app.cx.now_ms(), target, who.user_id.as_str(), &report.reason).await
}
