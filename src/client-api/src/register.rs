//! Making accounts (spec: "Account registration and management").

use crate::login::{new_session, session_body};
use crate::proof::{address, ui_auth};
use accounts::{NewSession, Registration};
use app::App;
use http::{Route, Rq, route};
use ruma::UserId;
use serde_json::{Map, Value, json};
use types::{Error, Result};

/// Session data: the account this session registered.
const REGISTERED: &str = "registered_user_id";
/// Session data: the hash of the password, kept while other stages are done.
const PASSWORD_HASH: &str = "password_hash";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("POST", "RegisterRestServlet", "/_matrix/client/(r0|v3|unstable)/register").open(register),
        route("GET", "UsernameAvailabilityRestServlet", "/_matrix/client/(r0|v3|unstable)/register/available")
            .open(available),
        route(
            "GET",
            "RegistrationTokenValidityRestServlet",
            "/_matrix/client/(v1|unstable)/register/m.login.registration_token/validity",
        )
        .open(token_validity),
    ]
}

fn check_enabled(app: &App) -> Result<()> {
    if app.cx.config.registration.enabled { Ok(()) } else { Err(Error::forbidden("Registration has been disabled")) }
}

async fn available(app: App, rq: Rq) -> Result<Value> {
    check_enabled(&app)?;
    if !app.cx.config.registration.inhibit_user_in_use_error {
        let name = rq.param("username");
        let name = name.ok_or_else(|| Error::missing_param("Missing required string query parameter 'username'"))?;
        app.accounts.check_username(name, None, None, false).await?;
    }
    Ok(json!({"available": true}))
}

async fn token_validity(app: App, rq: Rq) -> Result<Value> {
    app.accounts.limits().registration_token_validity.check(&address(&rq), app.cx.now_ms())?;
    check_enabled(&app)?;
    let token = rq.param("token");
    let token = token.ok_or_else(|| Error::missing_param("Missing required string query parameter 'token'"))?;
    let found = app.store.registration_token(token).await?;
    Ok(json!({"valid": found.is_some_and(|t| t.is_valid(app.cx.now_ms()))}))
}

async fn register(app: App, rq: Rq) -> Result<Value> {
    let body: Map<String, Value> = rq.json()?;
    app.accounts.limits().registration.peek(&address(&rq), app.cx.now_ms())?;
    match rq.param("kind").unwrap_or("user") {
        "user" => {}
        "guest" => return guest(&app, &rq, &body).await,
        kind => return Err(Error::client(400, "M_UNRECOGNIZED", format!("Do not understand membership kind: {kind}"))),
    }
    // Mistakes in these are told before anything happens.
    new_session(&app, &body)?;
    let username = match body.get("username") {
        None => None,
        Some(Value::String(name)) if name.chars().count() <= 512 => Some(name.clone()),
        Some(_) => return Err(Error::bad_request("Invalid username")),
    };
    let token = rq.access_token();
    if body.get("type").and_then(Value::as_str) == Some("m.login.application_service") {
        let token = token.ok_or_else(|| {
            Error::bad_request("Appservice token must be provided when using a type of m.login.application_service")
        })?;
        let username = username.ok_or_else(|| Error::bad_request("Desired Username is missing or not a string"))?;
        return ghost(&app, &username, token, &body).await;
    }
    if token.is_some() {
        return Err(Error::bad_request(
            "An access token should not be provided on requests to /register (except if type is m.login.application_service)",
        ));
    }
    check_enabled(&app)?;
    Box::pin(person(&app, &rq, body, username.map(|u| u.to_lowercase()))).await
}

/// The answer to a registration, with a session unless the client wants none.
async fn answer(app: &App, user_id: &UserId, body: &Map<String, Value>, ghost: bool) -> Result<Value> {
    let inhibit = body.get("inhibit_login").and_then(Value::as_bool).unwrap_or(false);
    if inhibit || app.accounts.requires_approval() {
        return Ok(json!({"user_id": user_id, "home_server": app.cx.config.server.name}));
    }
    let new = NewSession { is_appservice_ghost: ghost, ..new_session(app, body)? };
    let session = app.accounts.open_session(user_id, new).await?;
    Ok(Value::Object(session_body(app, user_id, &session)))
}

async fn ghost(app: &App, username: &str, token: &str, body: &Map<String, Value>) -> Result<Value> {
    let (user_id, service) = app.accounts.register_ghost(username, token).await?;
    let inhibit = body.get("inhibit_login").and_then(Value::as_bool).unwrap_or(false);
    if service.msc4190 && !inhibit {
        let message = "This appservice has MSC4190 enabled, so the inhibit_login parameter must be set to true.";
        return Err(Error::client(400, "M_APPSERVICE_LOGIN_UNSUPPORTED", message));
    }
    answer(app, &user_id, body, true).await
}

async fn guest(app: &App, rq: &Rq, body: &Map<String, Value>) -> Result<Value> {
    if !app.cx.config.registration.allow_guest_access {
        return Err(Error::client(403, "M_UNKNOWN", "Guest access is disabled"));
    }
    let new = Registration { make_guest: true, address: Some(address(rq)), ..Registration::default() };
    let user_id = app.accounts.register(new).await?;
    let name = body.get("initial_device_display_name").and_then(Value::as_str);
    let new = NewSession { is_guest: true, initial_display_name: name.map(str::to_owned), ..NewSession::default() };
    let session = app.accounts.open_session(&user_id, new).await?;
    Ok(Value::Object(session_body(app, &user_id, &session)))
}

/// The password of a request, which leaves its body: it must not get into the database.
fn take_password(app: &App, body: &mut Map<String, Value>) -> Result<Option<String>> {
    match body.remove("password") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(p)) if p.chars().count() <= 512 => {
            app.accounts.check_new_password(&p)?;
            Ok(Some(p))
        }
        Some(_) => Err(Error::bad_request("Invalid password")),
    }
}

async fn person(app: &App, rq: &Rq, mut body: Map<String, Value>, username: Option<String>) -> Result<Value> {
    let accounts = &app.accounts;
    let password = take_password(app, &mut body)?;
    if password.is_none() {
        body.remove("initial_device_display_name");
    }
    let session = body.get("auth").and_then(|a| a.get("session")).and_then(Value::as_str).filter(|s| !s.is_empty());
    let (mut registered, mut kept_hash) = (None, None);
    if let Some(session) = session {
        let text = |v: Option<Value>| v.and_then(|v| v.as_str().map(str::to_owned));
        registered = text(accounts.ui_auth_data(session, REGISTERED).await?);
        kept_hash = text(accounts.ui_auth_data(session, PASSWORD_HASH).await?);
    }
    if let Some(name) = &username {
        let guest = body.get("guest_access_token").and_then(Value::as_str);
        let inhibit = app.cx.config.registration.inhibit_user_in_use_error;
        accounts.check_username(name, guest, registered.as_deref(), inhibit).await?;
    }
    let flows = accounts.registration_flows();
    let proven = accounts.check_ui_auth(&flows, &ui_auth(rq, "register a new account"), body, Map::new()).await;
    let proven = match proven {
        Ok(proven) => proven,
        Err(e) => {
            if let (None, Some(password), Some(session)) = (&kept_hash, &password, session_of(&e)) {
                let hash = accounts.hash_password(password).await?;
                accounts.set_ui_auth_data(&session, PASSWORD_HASH, json!(hash)).await?;
            }
            return Err(e);
        }
    };
    let session = proven.session.clone().unwrap_or_default();
    if let Some(user_id) = registered {
        return answer(app, <&UserId>::try_from(user_id.as_str())?, &proven.params, false).await;
    }
    let hash = match password {
        Some(password) => Some(accounts.hash_password(&password).await?),
        None => kept_hash,
    };
    let hash = hash.ok_or_else(|| Error::missing_param("Missing params: password"))?;
    let text = |key: &str| proven.params.get(key).and_then(Value::as_str).map(str::to_owned);
    accounts.check_new_addresses(&proven.stages).await?;
    let user_id = accounts
        .register(Registration {
            localpart: text("username").map(|u| u.to_lowercase()),
            password_hash: Some(hash),
            guest_access_token: text("guest_access_token"),
            address: Some(address(rq)),
            ..Registration::default()
        })
        .await?;
    accounts.set_ui_auth_data(&session, REGISTERED, json!(user_id)).await?;
    let result = answer(app, &user_id, &proven.params, false).await?;
    if let Some(Value::String(token)) = proven.stages.get("m.login.registration_token") {
        app.store.use_registration_token(token).await?;
        app.store.complete_ui_auth_stage(&session, "m.login.registration_token", &Value::Bool(true)).await?;
    }
    accounts.after_ui_registration(&user_id, &proven.stages).await?;
    accounts.check_approval_of_new()?;
    Ok(result)
}

/// The session that an incomplete authentication tells of.
fn session_of(e: &Error) -> Option<String> {
    match e {
        Error::Client(c) if c.errcode.is_empty() => c.extra.get("session")?.as_str().map(str::to_owned),
        _ => None,
    }
}
