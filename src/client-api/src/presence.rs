//! Presence (spec: "Presence").

use app::App;
use http::{On, Route, Rq, route};
use serde_json::{Map, Value, json};
use sync::presence;
use types::{Error, Requester, Result};

const STATUS: &str = "/_matrix/client/(api/v1|r0|v3|unstable)/presence/{user_id}/status";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "PresenceStatusRestServlet", STATUS).user(get),
        route("PUT", "PresenceStatusRestServlet", STATUS).on(On::Writer("presence")).user(put),
    ]
}

async fn get(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let user_id = rq.user_id()?;
    if !app.cx.config.presence.enabled {
        return Ok(json!({"presence": "offline"}));
    }
    if user_id != who.user_id && !app.sync.share_a_room(user_id.as_str(), who.user_id.as_str()).await? {
        return Err(Error::forbidden("You are not allowed to see their presence."));
    }
    let state = app.sync.presence_of(user_id.as_str()).await?;
    Ok(Value::Object(presence::content(&state, app.cx.now_ms())))
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    let user_id = rq.user_id()?;
    if user_id != who.user_id {
        return Err(Error::forbidden("Can only set your own presence state"));
    }
    let limiter = &app.accounts.limits().presence_per_user;
    app.accounts.limit_user(limiter, &who).await?;
    let mut body: Map<String, Value> = rq.json()?;
    let Some(Value::String(state)) = body.remove("presence") else {
        return Err(Error::bad_request("Unable to parse state: presence must be a string"));
    };
    let status = match body.remove("status_msg") {
        None => None,
        Some(Value::String(s)) => Some(s),
        Some(_) => return Err(Error::bad_request("status_msg must be a string.")),
    };
    if let Some(key) = body.keys().next() {
        return Err(Error::bad_request(format!("Unable to parse state: unknown key {key}")));
    }
    let device = who.device_id.as_deref();
    app.sync.set_presence(user_id.as_str(), device, &state, status.as_deref(), false).await
}
