//! Administrating registration tokens (Synapse's admin API).

use app::App;
use http::{Access, On, Route, Rq, route};
use serde_json::{Map, Value, json};
use store::registration_tokens::RegistrationToken;
use types::{Error, Requester, Result, credentials};

const ONE: &str = "/_synapse/admin/v1/registration_tokens/{token}";

pub fn routes() -> Vec<Route<App>> {
    let admin = |method, name, path| route(method, name, path).on(On::Main);
    vec![
        admin("GET", "ListRegistrationTokensRestServlet", "/_synapse/admin/v1/registration_tokens")
            .with_requester(Access::Admin, list),
        admin("POST", "NewRegistrationTokenRestServlet", "/_synapse/admin/v1/registration_tokens/new")
            .with_requester(Access::Admin, make),
        admin("GET", "RegistrationTokenRestServlet", ONE).with_requester(Access::Admin, get),
        admin("PUT", "RegistrationTokenRestServlet", ONE).with_requester(Access::Admin, put),
        admin("DELETE", "RegistrationTokenRestServlet", ONE).with_requester(Access::Admin, delete),
    ]
}

async fn list(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let (now, valid) = (app.cx.now_ms(), rq.bool_param("valid")?);
    let all = app.store.registration_tokens().await?;
    let shown: Vec<RegistrationToken> =
        all.into_iter().filter(|t| valid.is_none_or(|valid| t.is_valid(now) == valid)).collect();
    Ok(json!({"registration_tokens": shown}))
}

fn uses(body: &Map<String, Value>) -> Result<Option<i32>> {
    match body.get("uses_allowed") {
        None | Some(Value::Null) => Ok(None),
        Some(n) => {
            let n = n.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0);
            n.map(Some).ok_or_else(|| Error::invalid_param("uses_allowed must be a non-negative integer or null"))
        }
    }
}

fn expiry(body: &Map<String, Value>, now_ms: i64) -> Result<Option<i64>> {
    match body.get("expiry_time") {
        None | Some(Value::Null) => Ok(None),
        Some(n) => match n.as_i64() {
            None => Err(Error::invalid_param("expiry_time must be an integer or null")),
            Some(t) if t < now_ms => Err(Error::invalid_param("expiry_time must not be in the past")),
            Some(t) => Ok(Some(t)),
        },
    }
}

fn token(body: &Map<String, Value>) -> Result<String> {
    match body.get("token") {
        None => {
            let length = body.get("length").map_or(Some(16), Value::as_i64);
            let length = length.ok_or_else(|| Error::invalid_param("length must be an integer"))?;
            if !(1..=64).contains(&length) {
                return Err(Error::invalid_param("length must be greater than zero and not greater than 64"));
            }
            Ok(credentials::letters(length as usize))
        }
        Some(Value::String(token)) if token.is_empty() || token.len() > 64 => {
            Err(Error::invalid_param("token must not be empty and must not be longer than 64 characters"))
        }
        Some(Value::String(token)) => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
            if token.bytes().all(fits) {
                return Ok(token.clone());
            }
            Err(Error::invalid_param("token must consist only of letters, digits and . _ ~ -"))
        }
        Some(_) => Err(Error::invalid_param("token must be a string")),
    }
}

async fn make(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let body: Map<String, Value> = rq.json()?;
    let (token, uses, expiry) = (token(&body)?, uses(&body)?, expiry(&body, app.cx.now_ms())?);
    if !app.store.add_registration_token(&token, uses, expiry).await? {
        return Err(Error::invalid_param(format!("Token already exists: {token}")));
    }
    Ok(json!({"token": token, "uses_allowed": uses, "pending": 0, "completed": 0, "expiry_time": expiry}))
}

fn unknown(token: &str) -> Error {
    Error::not_found(format!("No such registration token: {token}"))
}

async fn get(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let token = rq.arg("token")?;
    Ok(json!(app.store.registration_token(token).await?.ok_or_else(|| unknown(token))?))
}

async fn put(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let body: Map<String, Value> = rq.json()?;
    let token = rq.arg("token")?;
    let mut found = app.store.registration_token(token).await?.ok_or_else(|| unknown(token))?;
    if body.contains_key("uses_allowed") {
        found.uses_allowed = uses(&body)?;
    }
    if body.contains_key("expiry_time") {
        found.expiry_time = expiry(&body, app.cx.now_ms())?;
    }
    if !app.store.set_registration_token(&found).await? {
        return Err(unknown(token));
    }
    Ok(json!(found))
}

async fn delete(app: App, _: Requester, rq: Rq) -> Result<()> {
    let token = rq.arg("token")?;
    if app.store.delete_registration_token(token).await? { Ok(()) } else { Err(unknown(token)) }
}
