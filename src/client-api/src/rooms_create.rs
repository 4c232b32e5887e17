//! Making rooms.

use app::App;
use http::reply::IntoReply;
use http::route::Rate;
use http::{On, Reply, Route, Rq, route};
use rooms::new_room::Wanted;
use serde_json::json;
use types::{Error, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let r = |method, path| route(method, "RoomCreateRestServlet", path).on(On::Writer("events")).limit(Rate::Message);
    vec![
        r("POST", "/_matrix/client/(api/v1|r0|v3|unstable)/createRoom").user(create),
        r("PUT", "/_matrix/client/(api/v1|r0|v3|unstable)/createRoom/{txn_id}").user(create_once),
    ]
}

async fn create(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let wanted: Wanted = rq.json()?;
    app.accounts.check_blocking(Some(who.user_id.as_str())).await?;
    app.accounts.limit_user(&app.accounts.limits().room_creation, &who).await?;
    check_invites(&app, &who, &wanted).await?;
    let room_id = app.rooms.create_room(&who, wanted).await?;
    json!({"room_id": room_id}).into_reply()
}

async fn create_once(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let run = create(app.clone(), who.clone(), rq.clone());
    app.txns.once(&who, &rq, run).await
}

/// Invites that come with a new room must fit into what may be sent at once.
async fn check_invites(app: &App, who: &Requester, wanted: &Wanted) -> Result<()> {
    let invites = wanted.invite.len() + wanted.invite_3pid.len();
    let most = app.cx.config.rate.invites_per_room.burst_count;
    if invites as u64 <= most || app.accounts.is_unlimited(who).await? {
        return Ok(());
    }
    Err(Error::bad_request("Cannot invite so many users at once"))
}
