//! Proving one's identity to third parties (spec: "OpenID").

use app::App;
use http::{Route, Rq, route};
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result, credentials};

const LIFETIME_MS: i64 = 3_600_000;

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("POST", "IdTokenServlet", "/_matrix/client/(r0|v3|unstable)/user/{user_id}/openid/request_token")
            .user(request_token),
        route("GET", "OpenIdUserInfo", "/_matrix/federation/v1/openid/userinfo").open(userinfo),
    ]
}

async fn request_token(app: App, who: Requester, rq: Rq) -> Result<Value> {
    if rq.arg("user_id")? != who.user_id.as_str() {
        return Err(Error::forbidden("Cannot request tokens for other users."));
    }
    rq.json::<Map<String, Value>>()?;
    let token = credentials::letters(24);
    app.store.add_open_id_token(&token, who.user_id.as_str(), app.cx.now_ms() + LIFETIME_MS).await?;
    Ok(json!({
        "access_token": token,
        "token_type": "Bearer",
        "matrix_server_name": app.cx.config.server.name,
        "expires_in": LIFETIME_MS / 1000,
    }))
}

/// What the third party asks.
async fn userinfo(app: App, rq: Rq) -> Result<Value> {
    let token = rq.param("access_token");
    let token = token.ok_or_else(|| Error::client(401, "M_MISSING_TOKEN", "Access Token required"))?;
    let user = app.store.open_id_user(token, app.cx.now_ms()).await?;
    let user = user.ok_or_else(|| Error::unknown_token("Access Token unknown or expired"))?;
    Ok(json!({"sub": user}))
}
