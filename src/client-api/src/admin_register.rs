//! Registration with the shared secret (Synapse's `/_synapse/admin/v1/register`).

use crate::login::{new_session, session_body};
use accounts::Registration;
use app::App;
use hmac::{Hmac, Mac};
use http::{On, Route, Rq, route};
use serde_json::{Map, Value, json};
use sha1::Sha1;
use types::{Error, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "UserRegisterServlet", "/_synapse/admin/v1/register").on(On::Main).open(nonce),
        route("POST", "UserRegisterServlet", "/_synapse/admin/v1/register").on(On::Main).open(register),
    ]
}

async fn nonce(app: App, _: Rq) -> Result<Value> {
    Ok(json!({"nonce": app.accounts.new_nonce()}))
}

/// A string of at most 512 characters without NUL.
fn text<'a>(body: &'a Map<String, Value>, key: &str) -> Result<&'a str> {
    match body.get(key) {
        None => Err(Error::bad_json(format!("{key} must be specified"))),
        Some(Value::String(s)) if s.chars().count() <= 512 && !s.contains('\0') => Ok(s),
        Some(_) => Err(Error::bad_request(format!("Invalid {key}"))),
    }
}

async fn register(app: App, rq: Rq) -> Result<Value> {
    let Some(secret) = &app.cx.config.registration.shared_secret else {
        return Err(Error::bad_request("Shared secret registration is not enabled"));
    };
    let body: Map<String, Value> = rq.json()?;
    let nonce = body.get("nonce").ok_or_else(|| Error::bad_json("nonce must be specified"))?;
    let nonce = nonce.as_str().filter(|n| app.accounts.use_nonce(n));
    let nonce = nonce.ok_or_else(|| Error::bad_request("unrecognised nonce"))?;
    let (username, password) = (text(&body, "username")?, text(&body, "password")?);
    let admin = match body.get("admin") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(b)) => *b,
        Some(_) => return Err(Error::bad_json("admin: must be a boolean")),
    };
    let user_type = body.get("user_type").and_then(Value::as_str).filter(|t| !t.is_empty());
    if let Some(kind) = user_type
        && !matches!(kind, "bot" | "support")
        && !app.cx.config.registration.extra_user_types.iter().any(|t| t == kind)
    {
        return Err(Error::bad_request("Invalid user type"));
    }
    let mac = body.get("mac").and_then(Value::as_str).ok_or_else(|| Error::bad_json("mac must be specified"))?;
    let mut expected = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes())?;
    let role = if admin { "admin" } else { "notadmin" };
    let parts = [Some(nonce), Some(username), Some(password), Some(role), user_type];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    expected.update(parts.join("\0").as_bytes());
    let given = hex::decode(mac).unwrap_or_default();
    if expected.verify_slice(&given).is_err() {
        return Err(Error::client(403, "M_UNKNOWN", "HMAC incorrect"));
    }
    let new = new_session(&app, &body)?;
    let user_id = app
        .accounts
        .register(Registration {
            localpart: Some(username.to_lowercase()),
            password_hash: Some(app.accounts.hash_password(password).await?),
            admin,
            user_type: user_type.map(str::to_owned),
            displayname: body.get("displayname").and_then(Value::as_str).map(str::to_owned),
            by_admin: true,
            ..Registration::default()
        })
        .await?;
    if body.get("inhibit_login").and_then(Value::as_bool).unwrap_or(false) {
        return Ok(json!({"user_id": user_id, "home_server": app.cx.config.server.name}));
    }
    let session = app.accounts.open_session(&user_id, new).await?;
    Ok(Value::Object(session_body(&app, &user_id, &session)))
}
