//! Logging in and out, refreshing (spec: "Login", "Refreshing access tokens", "Logout").

use crate::proof::{address, prove};
use accounts::{Login, NewSession, Session};
use app::App;
use http::{Access, App as _, On, Route, Rq, route};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

const LOGIN: &str = "/_matrix/client/(api/v1|r0|v3|unstable)/login";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "LoginRestServlet", LOGIN).open(flows),
        route("POST", "LoginRestServlet", LOGIN).open(login),
        route("POST", "LoginTokenRequestServlet", "/_matrix/client/v1/login/get_token").user(get_token),
        route("POST", "RefreshTokenServlet", "/_matrix/client/(r0|v3|unstable)/refresh").on(On::Main).open(refresh),
        route("POST", "LogoutRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/logout")
            .on(On::Main)
            .with_requester(Access::Locked, logout),
        route("POST", "LogoutAllRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/logout/all")
            .on(On::Main)
            .with_requester(Access::Locked, logout_all),
    ]
}

async fn flows(app: App, _: Rq) -> Result<Value> {
    let auth = &app.cx.config.auth;
    let mut flows = Vec::new();
    let providers = app.accounts.providers();
    if !providers.is_empty() {
        // The older name of single sign-on by CAS, which is the one way there is.
        flows.push(json!({"type": "m.login.cas"}));
        flows.push(
            json!({"type": "m.login.sso", "identity_providers": providers.iter().map(provider).collect::<Vec<_>>()}),
        );
    }
    match (&auth.login_via_existing_session, providers.is_empty()) {
        (Some(_), _) => flows.push(json!({"type": "m.login.token", "get_login_token": true})),
        (None, false) => flows.push(json!({"type": "m.login.token"})),
        (None, true) => {}
    }
    if auth.password_login && auth.localdb_enabled {
        flows.push(json!({"type": "m.login.password"}));
    }
    flows.push(json!({"type": "m.login.application_service"}));
    Ok(json!({"flows": flows}))
}

fn provider(p: &accounts::Provider) -> Value {
    let mut shown = json!({"id": p.id, "name": p.name});
    for (key, value) in [("icon", &p.icon), ("brand", &p.brand)] {
        if let Some(value) = value {
            shown[key] = json!(value);
        }
    }
    shown
}

/// The session fields of a login's or registration's body.
pub(crate) fn new_session(app: &App, body: &Map<String, Value>) -> Result<NewSession> {
    let text = |key: &str| match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(_) => Err(Error::invalid_param(format!("{key}: must be a string"))),
    };
    let refresh = match body.get("refresh_token") {
        None => false,
        Some(Value::Bool(b)) => *b,
        Some(_) => return Err(Error::bad_request("`refresh_token` should be true or false.")),
    };
    let enabled = app.cx.config.sessions.refreshable_access_token_lifetime_ms.is_some();
    Ok(NewSession {
        device_id: text("device_id")?,
        initial_display_name: text("initial_device_display_name")?,
        should_issue_refresh_token: refresh && enabled,
        ..NewSession::default()
    })
}

/// The session fields of a login's or registration's answer.
pub(crate) fn session_body(app: &App, user_id: &UserId, session: &Session) -> Map<String, Value> {
    let mut answer = Map::from_iter([
        ("user_id".to_owned(), json!(user_id)),
        ("access_token".to_owned(), json!(session.access_token)),
        ("home_server".to_owned(), json!(app.cx.config.server.name)),
        ("device_id".to_owned(), json!(session.device_id)),
    ]);
    if let Some(until) = session.valid_until_ms {
        answer.insert("expires_in_ms".into(), json!(until - app.cx.now_ms()));
    }
    if let Some(token) = &session.refresh_token {
        answer.insert("refresh_token".into(), json!(token));
    }
    answer
}

async fn login(app: App, rq: Rq) -> Result<Value> {
    let body: Map<String, Value> = rq.json()?;
    let new = new_session(&app, &body)?;
    let by_address = || app.accounts.limits().login_address.check(&address(&rq), app.cx.now_ms());
    let (login, limited) = match body.get("type").and_then(Value::as_str) {
        None => return Err(Error::bad_request("Missing JSON keys.")),
        Some("m.login.application_service") => {
            let who = app.authenticate(&rq, Access::User).await?;
            let service = who.app_service.as_deref().and_then(|id| app.accounts.app_service(id)).ok_or_else(|| {
                Error::unknown_token("This login method is only valid for application services")
                    .with("soft_logout", false)
            })?;
            if service.rate_limited {
                by_address()?;
            }
            let user_id = app.accounts.app_service_login(service, &body)?;
            (Login { user_id, ..Login::default() }, service.rate_limited)
        }
        Some("m.login.token") => {
            by_address()?;
            let token = body.get("token").and_then(Value::as_str);
            let token = token.ok_or_else(|| Error::bad_request("Missing JSON keys."))?;
            (app.accounts.token_login(token).await?, true)
        }
        Some(_) => {
            by_address()?;
            let user_id = app.accounts.password_login(&body, false).await?;
            (Login { user_id, ..Login::default() }, true)
        }
    };
    let (user_id, session) = app.accounts.complete_login(login, new, limited).await?;
    let mut answer = session_body(&app, &user_id, &session);
    if let Some(well_known) = crate::well_known::client(&app) {
        answer.insert("well_known".into(), well_known);
    }
    Ok(Value::Object(answer))
}

async fn get_token(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let Some(existing) = app.cx.config.auth.login_via_existing_session.clone() else {
        return Err(Error::unrecognized("Unrecognized request"));
    };
    if existing.require_ui_auth {
        prove(&app, &who, &rq, "grant a new access token for your account", false).await?;
    }
    let key = format!("get_token {}", who.user_id);
    app.accounts.limits().login_account.check(&key, app.cx.now_ms())?;
    let token = app.accounts.make_login_token(&who.user_id, existing.token_timeout_ms, None).await?;
    Ok(json!({
        "login_token": token,
        "expires_in": existing.token_timeout_ms / 1000,
        "expires_in_ms": existing.token_timeout_ms,
    }))
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: Option<Value>,
}

async fn refresh(app: App, rq: Rq) -> Result<Value> {
    if app.cx.config.sessions.refreshable_access_token_lifetime_ms.is_none() {
        return Err(Error::unrecognized("Unrecognized request"));
    }
    let token = match rq.json::<Refresh>()?.refresh_token {
        None => return Err(Error::missing_param("Missing params: ['refresh_token']")),
        Some(Value::String(token)) => token,
        Some(_) => return Err(Error::invalid_param("Invalid param: refresh_token")),
    };
    let session = app.accounts.refresh(&token).await?;
    let mut answer = json!({"access_token": session.access_token, "refresh_token": session.refresh_token});
    if let Some(until) = session.valid_until_ms {
        answer["expires_in_ms"] = json!(until - app.cx.now_ms());
    }
    Ok(answer)
}

async fn logout(app: App, who: Requester, rq: Rq) -> Result<()> {
    match &who.device_id {
        // A token that belongs to no device, or to nobody's own (minted, guests').
        None => app.accounts.drop_token(rq.access_token().unwrap_or_default()).await,
        Some(device) => app.devices.delete_devices(who.user_id.as_str(), std::slice::from_ref(device)).await,
    }
}

async fn logout_all(app: App, who: Requester, _: Rq) -> Result<()> {
    app.devices.delete_all_devices(who.user_id.as_str(), None).await?;
    app.accounts.drop_all_tokens(&who.user_id, None).await
}
