//! Administrating accounts (Synapse's admin API: users, deactivation, passwords, suspension, whois).

use accounts::Registration;
use app::App;
use http::{Access, On, Reply, Route, Rq, route};
use httpcrate::StatusCode;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};
use store::threepids::Threepid;
use store::users::UserFlag;
use types::{Error, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    let admin = |method, name, path| route(method, name, path).on(On::Main);
    vec![
        admin("GET", "UserRestServletV2Get", "/_synapse/admin/v2/users/{user_id}").with_requester(Access::Admin, get),
        admin("PUT", "UserRestServletV2", "/_synapse/admin/v2/users/{user_id}").with_requester(Access::Admin, put),
        admin("POST", "DeactivateAccountRestServlet", "/_synapse/admin/v1/deactivate/{user_id}")
            .with_requester(Access::Admin, deactivate),
        admin("POST", "ResetPasswordRestServlet", "/_synapse/admin/v1/reset_password/{user_id}")
            .with_requester(Access::Admin, reset_password),
        admin("PUT", "SuspendAccountRestServlet", "/_synapse/admin/v1/suspend/{user_id}")
            .with_requester(Access::Admin, suspend),
        admin("GET", "UserAdminServlet", "/_synapse/admin/v1/users/{user_id}/admin")
            .with_requester(Access::Admin, is_admin),
        admin("PUT", "UserAdminServlet", "/_synapse/admin/v1/users/{user_id}/admin")
            .with_requester(Access::Admin, set_admin),
        admin("POST", "UserTokenRestServlet", "/_synapse/admin/v1/users/{user_id}/login")
            .with_requester(Access::Admin, login_as),
        admin("GET", "WhoisRestServlet", "/_synapse/admin/v1/whois/{user_id}").user(whois),
        admin("GET", "WhoisRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/admin/whois/{user_id}").user(whois),
    ]
}

/// A user of this server, by the path.
fn target(app: &App, rq: &Rq, what: &str) -> Result<OwnedUserId> {
    let user_id = rq.user_id()?;
    if app.accounts.is_local(user_id.as_str()) {
        return Ok(user_id);
    }
    Err(Error::bad_request(format!("Can only {what} local users")))
}

fn not_found() -> Error {
    Error::not_found("User not found")
}

async fn existing(app: &App, rq: &Rq, what: &str) -> Result<OwnedUserId> {
    let user_id = target(app, rq, what)?;
    app.store.user(user_id.as_str()).await?.map(|_| user_id).ok_or_else(not_found)
}

fn flag(body: &Map<String, Value>, key: &str) -> Result<Option<bool>> {
    match body.get(key) {
        None => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(_) => Err(Error::bad_json(format!("Param '{key}' must be a boolean, if given"))),
    }
}

/// An account as administrators see it.
async fn shown(app: &App, user_id: &UserId) -> Result<Value> {
    let id = user_id.as_str();
    let user = app.store.user(id).await?.ok_or_else(not_found)?;
    let profile = app.store.profile(id).await?.unwrap_or_default();
    let mut shown = json!({
        "name": id,
        "admin": user.is_admin,
        "deactivated": user.deactivated,
        "locked": user.locked,
        "shadow_banned": user.shadow_banned,
        "creation_ts": user.creation_ts,
        "appservice_id": user.appservice_id,
        "consent_server_notice_sent": user.consent_server_notice_sent,
        "consent_version": user.consent_version,
        "consent_ts": user.consent_ts,
        "user_type": user.user_type,
        "is_guest": user.is_guest,
        "suspended": user.suspended,
        "displayname": profile.displayname,
        "avatar_url": profile.avatar_url,
        "threepids": app.store.threepids(id).await?,
        "external_ids": app.store.external_ids(id).await?,
        "erased": app.store.is_erased(id).await?,
        "last_seen_ts": app.store.last_seen(id).await?,
    });
    if app.accounts.approves() {
        shown["approved"] = json!(user.approved);
    }
    Ok(shown)
}

async fn get(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let user_id = target(&app, &rq, "look up")?;
    shown(&app, &user_id).await
}

/// What a PUT may say, checked before anything is done.
struct Wanted {
    password: Option<String>,
    threepids: Option<Vec<(String, String)>>,
    admin: Option<bool>,
    deactivated: Option<bool>,
    locked: Option<bool>,
    logout_devices: bool,
    approved: Option<bool>,
    /// None: not mentioned; Some(None): taken away.
    user_type: Option<Option<String>>,
}

fn wanted(app: &App, body: &Map<String, Value>) -> Result<Wanted> {
    let password = match body.get("password") {
        None | Some(Value::Null) => None,
        Some(Value::String(p)) if p.chars().count() <= 512 => Some(p.clone()),
        Some(_) => return Err(Error::bad_request("Invalid password")),
    };
    let user_type = match body.get("user_type") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(t)) if is_user_type(app, t) => Some(Some(t.clone())),
        Some(_) => return Err(Error::bad_request("Invalid user type")),
    };
    let threepids = match body.get("threepids") {
        None | Some(Value::Null) => None,
        Some(Value::Array(list)) => Some(list.iter().map(threepid).collect::<Result<_>>()?),
        Some(_) => return Err(Error::bad_json("threepids: must be an array")),
    };
    let wanted = Wanted {
        password,
        threepids,
        admin: flag(body, "admin")?,
        deactivated: flag(body, "deactivated")?,
        locked: flag(body, "locked")?,
        logout_devices: flag(body, "logout_devices")?.unwrap_or(true),
        approved: flag(body, "approved")?.filter(|_| app.accounts.approves()),
        user_type,
    };
    if wanted.deactivated == Some(true) && wanted.locked == Some(true) {
        return Err(Error::bad_request("An user can't be deactivated and locked"));
    }
    Ok(wanted)
}

fn is_user_type(app: &App, kind: &str) -> bool {
    matches!(kind, "bot" | "support") || app.cx.config.registration.extra_user_types.iter().any(|t| t == kind)
}

fn threepid(value: &Value) -> Result<(String, String)> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    match (text("medium"), text("address")) {
        (Some("email"), Some(address)) => Ok(("email".to_owned(), accounts::canonical_email(address)?)),
        (Some("msisdn"), Some(address)) => Ok(("msisdn".to_owned(), address.to_owned())),
        (Some(_), Some(_)) => Err(Error::invalid_param("threepids: medium must be email or msisdn")),
        _ => Err(Error::missing_param("threepids: medium and address are needed")),
    }
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let user_id = rq.user_id()?;
    if !app.accounts.is_local(user_id.as_str()) {
        return Err(Error::bad_request("This endpoint can only be used with local users"));
    }
    let body: Map<String, Value> = rq.json()?;
    let wanted = wanted(&app, &body)?;
    let status = match app.store.user(user_id.as_str()).await? {
        Some(_) => {
            change(&app, &who, &user_id, &body, wanted).await?;
            StatusCode::OK
        }
        None => {
            make(&app, &who, &user_id, &body, wanted).await?;
            StatusCode::CREATED
        }
    };
    Reply::json_with(status, &shown(&app, &user_id).await?)
}

async fn make(app: &App, who: &Requester, user_id: &UserId, body: &Map<String, Value>, wanted: Wanted) -> Result<()> {
    let hash = match &wanted.password {
        Some(password) => Some(app.accounts.hash_password(password).await?),
        None => None,
    };
    let new = Registration {
        localpart: Some(user_id.localpart().to_owned()),
        password_hash: hash,
        admin: wanted.admin.unwrap_or(false),
        user_type: wanted.user_type.flatten(),
        displayname: body.get("displayname").and_then(Value::as_str).map(str::to_owned),
        by_admin: true,
        ..Registration::default()
    };
    app.accounts.register(new).await?;
    if wanted.approved == Some(false) {
        app.store.set_user_flag(user_id.as_str(), UserFlag::Approved, false).await?;
    }
    if let Some(threepids) = &wanted.threepids {
        set_threepids(app, user_id, threepids).await?;
    }
    if let Some(url @ Value::String(_)) = body.get("avatar_url") {
        app.accounts.set_profile_field(who, user_id, "avatar_url", Some(url.clone())).await?;
    }
    Ok(())
}

async fn change(app: &App, who: &Requester, user_id: &UserId, body: &Map<String, Value>, wanted: Wanted) -> Result<()> {
    let id = user_id.as_str();
    let user = app.store.user(id).await?.ok_or_else(not_found)?;
    for field in ["displayname", "avatar_url"] {
        if let Some(value) = body.get(field) {
            app.accounts.set_profile_field(who, user_id, field, Some(value.clone())).await?;
        }
    }
    if let Some(threepids) = &wanted.threepids {
        set_threepids(app, user_id, threepids).await?;
    }
    if let Some(admin) = wanted.admin.filter(|a| *a != user.is_admin) {
        if !admin && who.user_id == *user_id {
            return Err(Error::bad_request("You may not demote yourself."));
        }
        app.store.set_user_flag(id, UserFlag::Admin, admin).await?;
    }
    if let Some(password) = &wanted.password {
        let hash = app.accounts.hash_password(password).await?;
        app.accounts.set_password(user_id, &hash, wanted.logout_devices, Some(who)).await?;
    }
    match wanted.deactivated {
        Some(true) if !user.deactivated => app.accounts.deactivate(user_id, false, None).await.map(|_| ())?,
        Some(false) if user.deactivated => app.accounts.reactivate(user_id).await?,
        _ => {}
    }
    if let Some(locked) = wanted.locked.filter(|l| *l != user.locked) {
        app.store.set_user_flag(id, UserFlag::Locked, locked).await?;
    }
    if let Some(kind) = &wanted.user_type {
        app.store.set_user_type(id, kind.as_deref()).await?;
    }
    if let Some(approved) = wanted.approved {
        app.store.set_user_flag(id, UserFlag::Approved, approved).await?;
    }
    Ok(())
}

/// Makes these the user's addresses, and no others.
async fn set_threepids(app: &App, user_id: &UserId, wanted: &[(String, String)]) -> Result<()> {
    let has = app.store.threepids(user_id.as_str()).await?;
    for gone in has.iter().filter(|t| !wanted.iter().any(|(m, a)| *m == t.medium && *a == t.address)) {
        app.store.delete_threepids(user_id.as_str(), Some((&gone.medium, &gone.address))).await?;
    }
    let now = app.cx.now_ms();
    for (medium, address) in wanted.iter().filter(|(m, a)| !has.iter().any(|t| t.medium == *m && t.address == *a)) {
        let new = Threepid { medium: medium.clone(), address: address.clone(), validated_at: now, added_at: now };
        app.store.add_threepid(user_id.as_str(), &new).await?;
    }
    Ok(())
}

async fn deactivate(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let user_id = existing(&app, &rq, "deactivate").await?;
    let body: Map<String, Value> = rq.json_or_empty()?;
    app.accounts.deactivate(&user_id, flag(&body, "erase")?.unwrap_or(false), None).await?;
    Ok(json!({"id_server_unbind_result": "success"}))
}

async fn reset_password(app: App, who: Requester, rq: Rq) -> Result<()> {
    let user_id = rq.user_id()?;
    let body: Map<String, Value> = rq.json()?;
    let password = match body.get("new_password") {
        Some(Value::String(p)) => p,
        Some(_) => return Err(Error::invalid_param("new_password: must be a string")),
        None => return Err(Error::missing_param("Missing params: ['new_password']")),
    };
    app.store.user(user_id.as_str()).await?.ok_or_else(|| Error::not_found("Unknown user"))?;
    let hash = app.accounts.hash_password(password).await?;
    let logout = flag(&body, "logout_devices")?.unwrap_or(true);
    app.accounts.set_password(&user_id, &hash, logout, Some(&who)).await
}

async fn suspend(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let user_id = existing(&app, &rq, "suspend").await?;
    let body: Map<String, Value> = rq.json()?;
    let suspend = flag(&body, "suspend")?.ok_or_else(|| Error::missing_param("suspend: missing"))?;
    app.store.set_user_flag(user_id.as_str(), UserFlag::Suspended, suspend).await?;
    let mut answer = Map::new();
    answer.insert(format!("user_{user_id}_suspended"), json!(suspend));
    Ok(Value::Object(answer))
}

async fn is_admin(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let user_id = target(&app, &rq, "look up")?;
    Ok(json!({"admin": app.store.is_admin(user_id.as_str()).await?}))
}

async fn set_admin(app: App, who: Requester, rq: Rq) -> Result<()> {
    let user_id = existing(&app, &rq, "change").await?;
    let body: Map<String, Value> = rq.json()?;
    let admin = flag(&body, "admin")?.ok_or_else(|| Error::missing_param("Missing params: ['admin']"))?;
    if who.user_id == user_id && !admin {
        return Err(Error::bad_request("You may not demote yourself."));
    }
    app.store.set_user_flag(user_id.as_str(), UserFlag::Admin, admin).await.map(|_| ())
}

async fn login_as(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let user_id = existing(&app, &rq, "log in as").await?;
    let body: Map<String, Value> = rq.json_or_empty()?;
    let until = match body.get("valid_until_ms") {
        None | Some(Value::Null) => None,
        Some(n) => Some(n.as_i64().ok_or_else(|| Error::bad_request("'valid_until_ms' parameter must be an int"))?),
    };
    if who.user_id == user_id {
        return Err(Error::bad_request("Cannot use admin API to login as self"));
    }
    Ok(json!({"access_token": app.accounts.mint_token(&who.user_id, &user_id, until).await?}))
}

async fn whois(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let user_id = rq.user_id()?;
    if user_id != who.user_id {
        app.accounts.require_admin(who.user_id.as_str()).await?;
    }
    target(&app, &rq, "whois")?;
    let seen = app.store.sightings(user_id.as_str(), 0).await?;
    let connections: Vec<Value> =
        seen.iter().map(|s| json!({"ip": s.ip, "last_seen": s.last_seen, "user_agent": s.user_agent})).collect();
    Ok(json!({"user_id": user_id, "devices": {"": {"sessions": [{"connections": connections}]}}}))
}
