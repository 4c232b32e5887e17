//! Account data (spec: "Client Config").

use app::App;
use http::{On, Route, Rq, route};
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

const GLOBAL: &str = "/_matrix/client/(r0|v3|unstable)/user/{user_id}/account_data/{type}";
const ROOM: &str = "/_matrix/client/(r0|v3|unstable)/user/{user_id}/rooms/{room_id}/account_data/{type}";
const MSC3391: &str = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{type}";
const MSC3391_ROOM: &str =
    "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{type}";

pub fn routes() -> Vec<Route<App>> {
    let here = On::Writer("account_data");
    vec![
        route("GET", "AccountDataServlet", GLOBAL).on(here).user(get),
        route("PUT", "AccountDataServlet", GLOBAL).on(here).user(put),
        route("GET", "RoomAccountDataServlet", ROOM).on(here).user(get),
        route("PUT", "RoomAccountDataServlet", ROOM).on(here).user(put),
        route("DELETE", "UnstableAccountDataServlet", MSC3391).on(here).user(delete),
        route("DELETE", "UnstableRoomAccountDataServlet", MSC3391_ROOM).on(here).user(delete),
    ]
}

/// MSC3391: account data that can be deleted.
fn deletable(app: &App) -> bool {
    app.cx.config.experimental.on("msc3391_enabled")
}

fn check_own(who: &Requester, rq: &Rq, what: &str) -> Result<()> {
    if rq.arg("user_id")? == who.user_id.as_str() {
        return Ok(());
    }
    Err(Error::forbidden(format!("Cannot {what} account data for other users.")))
}

/// The room, if the path names one; 400 if that is no room id.
fn room(rq: &Rq) -> Result<Option<&str>> {
    let Some(room) = rq.arg_opt("room_id") else { return Ok(None) };
    rq.room_id().map_err(|_| Error::invalid_param(format!("{room} is not a valid room ID")))?;
    Ok(Some(room))
}

/// Some types have endpoints of their own.
fn check_settable(kind: &str) -> Result<()> {
    let refuse = |message: &'static str| Err(Error::client(405, "M_BAD_JSON", message));
    match kind {
        "m.fully_read" => {
            refuse("Cannot set m.fully_read through this API. Use /rooms/!roomId:server.name/read_markers")
        }
        "m.push_rules" => refuse("Cannot set m.push_rules through this API. Use /pushrules"),
        _ => Ok(()),
    }
}

async fn get(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_own(&who, &rq, "get")?;
    let (room, kind) = (room(&rq)?, rq.arg("type")?);
    let found = match (kind, room) {
        ("m.push_rules", None) => Some(app.sync.push_rules(&who.user_id).await?),
        ("m.push_rules", Some(_)) => Some(json!({})),
        _ => app.store.account_data(who.user_id.as_str(), room, kind).await?,
    };
    let found = found.filter(|content| !(deletable(&app) && *content == json!({})));
    let what = if room.is_some() { "Room account data not found" } else { "Account data not found" };
    found.ok_or_else(|| Error::not_found(what))
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    check_own(&who, &rq, "add")?;
    let (room, kind) = (room(&rq)?, rq.arg("type")?);
    check_settable(kind)?;
    let content: Map<String, Value> = rq.json()?;
    let user = who.user_id.as_str();
    if content.is_empty() && deletable(&app) {
        return app.accounts.remove_account_data(user, room, kind).await;
    }
    app.accounts.set_account_data(user, room, kind, &Value::Object(content)).await
}

async fn delete(app: App, who: Requester, rq: Rq) -> Result<()> {
    if !deletable(&app) {
        return Err(Error::unrecognized("Unrecognized request"));
    }
    check_own(&who, &rq, "delete")?;
    let (room, kind) = (room(&rq)?, rq.arg("type")?);
    check_settable(kind)?;
    app.accounts.remove_account_data(who.user_id.as_str(), room, kind).await
}
