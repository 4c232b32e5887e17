//! Typing notifications (spec: "Typing Notifications").

use app::App;
use http::{On, Route, Rq, route};
use serde::Deserialize;
use types::{Error, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route(
            "PUT",
            "RoomTypingRestServlet",
            "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/typing/{user_id}",
        )
        .on(On::Writer("typing"))
        .user(put),
    ]
}

#[derive(Deserialize)]
struct Typing {
    typing: bool,
    /// ms
    timeout: Option<i64>,
}

const DEFAULT_TIMEOUT_MS: i64 = 30_000;

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    let (room_id, user_id) = (rq.room_id()?, rq.user_id()?);
    let body: Typing = rq.json()?;
    if user_id.server_name() != app.cx.config.server.name {
        return Err(Error::bad_request("User is not hosted on this homeserver"));
    }
    if user_id != who.user_id {
        return Err(Error::client(400, "M_FORBIDDEN", "Cannot set another user's typing state"));
    }
    app.sync.bump_active(who.user_id.as_str(), who.device_id.as_deref()).await;
    if who.shadow_banned {
        return Ok(());
    }
    if app.store.joined_among(user_id.as_str(), &[room_id.as_str()]).await?.is_empty() {
        return Err(Error::forbidden(format!("User {user_id} not in room {room_id}")));
    }
    let timeout = body.typing.then(|| body.timeout.unwrap_or(DEFAULT_TIMEOUT_MS));
    app.sync.tell_typing(room_id.as_str(), user_id.as_str(), timeout).await
}
