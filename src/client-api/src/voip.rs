//! TURN servers (spec: "Voice over IP").

use app::App;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use http::{Route, Rq, route};
use serde_json::{Value, json};
use sha1::Sha1;
use types::{Error, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![route("GET", "VoipRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/voip/turnServer").guest(turn_server)]
}

async fn turn_server(app: App, who: Requester, _: Rq) -> Result<Value> {
    let turn = &app.cx.config.turn;
    if who.is_guest && !turn.allow_guests {
        return Err(Error::client(403, "M_GUEST_ACCESS_FORBIDDEN", "Guest access not allowed"));
    }
    if turn.uris.is_empty() || turn.user_lifetime_ms == 0 {
        return Ok(json!({}));
    }
    let (username, password) = match (&turn.shared_secret, &turn.username, &turn.password) {
        (Some(secret), _, _) => {
            let expiry = (app.cx.now_ms() + turn.user_lifetime_ms as i64) / 1000;
            let username = format!("{expiry}:{}", who.user_id);
            let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes())?;
            mac.update(username.as_bytes());
            (username, STANDARD.encode(mac.finalize().into_bytes()))
        }
        (None, Some(username), Some(password)) => (username.clone(), password.expose().to_owned()),
        _ => return Ok(json!({})),
    };
    Ok(json!({"username": username, "password": password, "ttl": turn.user_lifetime_ms / 1000, "uris": turn.uris}))
}
