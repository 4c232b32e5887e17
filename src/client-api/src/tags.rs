//! Tags of rooms (spec: "Room Tagging").

use app::App;
use http::{On, Route, Rq, route};
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

const TAGS: &str = "/_matrix/client/(r0|v3|unstable)/user/{user_id}/rooms/{room_id}/tags";
const TAG: &str = "/_matrix/client/(r0|v3|unstable)/user/{user_id}/rooms/{room_id}/tags/{tag}";

/// Longest tag in bytes.
const MAX_TAG: usize = 255;

pub fn routes() -> Vec<Route<App>> {
    let here = On::Writer("account_data");
    vec![
        route("GET", "TagListServlet", TAGS).on(here).user(list),
        route("PUT", "TagServlet", TAG).on(here).user(put),
        route("DELETE", "TagServlet", TAG).on(here).user(delete),
    ]
}

fn check_own(who: &Requester, rq: &Rq, what: &str) -> Result<()> {
    if rq.arg("user_id")? == who.user_id.as_str() {
        return Ok(());
    }
    Err(Error::forbidden(format!("Cannot {what} tags for other users.")))
}

async fn list(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_own(&who, &rq, "get")?;
    Ok(json!({"tags": app.store.tags(who.user_id.as_str(), rq.arg("room_id")?).await?}))
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    check_own(&who, &rq, "add")?;
    let (room, tag) = (rq.arg("room_id")?, rq.arg("tag")?);
    if tag.len() > MAX_TAG {
        return Err(Error::invalid_param("tag parameter's length is over 255 bytes"));
    }
    if app.store.local_membership(who.user_id.as_str(), room).await?.is_none() {
        return Err(Error::forbidden(format!("User {} has no membership in room {room}", who.user_id)));
    }
    let content: Map<String, Value> = rq.json()?;
    app.accounts.add_tag(who.user_id.as_str(), room, tag, &Value::Object(content)).await
}

async fn delete(app: App, who: Requester, rq: Rq) -> Result<()> {
    check_own(&who, &rq, "add")?;
    app.accounts.remove_tag(who.user_id.as_str(), rq.arg("room_id")?, rq.arg("tag")?).await
}
