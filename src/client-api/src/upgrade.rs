//! Room upgrades.

use app::App;
use http::route::Rate;
use http::{On, Route, Rq, route};
use ruma::RoomVersionId;
use serde::Deserialize;
use serde_json::{Value, json};
use types::room_version::SUPPORTED;
use types::{Error, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let path = "/_matrix/client/(r0|v3|unstable)/rooms/{room_id}/upgrade";
    vec![route("POST", "RoomUpgradeRestServlet", path).on(On::RoomShard).limit(Rate::Message).user(upgrade)]
}

#[derive(Deserialize)]
struct Upgrade {
    new_version: String,
    additional_creators: Option<Vec<String>>,
}

async fn upgrade(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let wanted: Upgrade = rq.json()?;
    let version = RoomVersionId::try_from(wanted.new_version).ok().filter(|v| SUPPORTED.contains(v));
    let version = version.ok_or_else(|| {
        Error::client(400, "M_UNSUPPORTED_ROOM_VERSION", "Your homeserver does not support this room version")
    })?;
    app.accounts.limit_user(&app.accounts.limits().room_creation, &who).await?;
    let old = rq.room_id()?;
    let room = app.rooms.upgrade(&who, &old, &version, wanted.additional_creators).await?;
    app.accounts.follow_upgrade(&room).await;
    Ok(json!({"replacement_room": room}))
}
