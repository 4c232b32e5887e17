//! The own account (spec: "Account management", "Adding Account Administrative Contact Information").

use crate::proof::prove;
use app::App;
use http::{Access, App as _, On, Route, Rq, route};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

/// Session data: the hash of the new password, kept while other stages are done.
const PASSWORD_HASH: &str = "password_hash";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "WhoamiRestServlet", "/_matrix/client/(r0|v3|unstable)/account/whoami").guest(whoami),
        route("POST", "PasswordRestServlet", "/_matrix/client/(r0|v3|unstable)/account/password")
            .on(On::Main)
            .open(change_password),
        route("POST", "DeactivateAccountRestServlet", "/_matrix/client/(r0|v3|unstable)/account/deactivate")
            .on(On::Main)
            .user(deactivate),
        route("GET", "ThreepidRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid").user(threepids),
        route("POST", "ThreepidDeleteRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid/delete")
            .on(On::Main)
            .user(delete_threepid),
        route(
            "POST",
            "EmailPasswordRequestTokenRestServlet",
            "/_matrix/client/(r0|v3|unstable)/account/password/email/requestToken",
        )
        .on(On::Main)
        .open(no_mail_reset),
        route(
            "POST",
            "EmailThreepidRequestTokenRestServlet",
            "/_matrix/client/(r0|v3|unstable)/account/3pid/email/requestToken",
        )
        .on(On::Main)
        .open(no_mail),
        route(
            "POST",
            "MsisdnThreepidRequestTokenRestServlet",
            "/_matrix/client/(r0|v3|unstable)/account/3pid/msisdn/requestToken",
        )
        .on(On::Main)
        .open(no_sms),
    ]
}

async fn whoami(_: App, who: Requester, _: Rq) -> Result<Value> {
    let mut answer = json!({"user_id": who.user_id, "is_guest": who.is_guest});
    if let Some(device) = who.device_id {
        answer["device_id"] = json!(device);
    }
    Ok(answer)
}

#[derive(Deserialize)]
struct ChangePassword {
    #[serde(default)]
    new_password: Option<String>,
    #[serde(default)]
    logout_devices: Option<bool>,
}

/// Without a token only an e-mail address could prove who asks, and mail is not sent: the flow is shown.
async fn change_password(app: App, rq: Rq) -> Result<()> {
    if rq.access_token().is_none() {
        let proof = crate::proof::ui_auth(&rq, "modify your account password");
        let mut asked: Map<String, Value> = rq.json()?;
        asked.remove("new_password");
        let flows = [vec!["m.login.email.identity".to_owned()]];
        app.accounts.check_ui_auth(&flows, &proof, asked, Map::new()).await?;
        return Err(Error::forbidden("Password reset by e-mail is not available"));
    }
    let who = app.authenticate(&rq, Access::User).await?;
    let body: ChangePassword = rq.json()?;
    if body.new_password.as_ref().is_some_and(|p| p.chars().count() > 512) {
        return Err(Error::bad_json("new_password: longer than 512 characters"));
    }
    if let Some(password) = &body.new_password {
        app.accounts.check_new_password(password)?;
    }
    let mut asked: Map<String, Value> = rq.json()?;
    // The new password must not get into the database.
    asked.remove("new_password");
    let proof = crate::proof::ui_auth(&rq, "modify your account password");
    let proven = match app.accounts.prove_owner(&who, &proof, asked, false).await {
        Ok(proven) => proven,
        Err(Error::Client(e)) => {
            let session = e.extra.get("session").and_then(Value::as_str);
            if let (true, Some(session), Some(password)) = (e.errcode.is_empty(), session, &body.new_password)
                && app.accounts.ui_auth_data(session, PASSWORD_HASH).await?.is_none()
            {
                let hash = app.accounts.hash_password(password).await?;
                app.accounts.set_ui_auth_data(session, PASSWORD_HASH, json!(hash)).await?;
            }
            return Err(Error::Client(e));
        }
        Err(e) => return Err(e),
    };
    let hash = match (body.new_password, &proven.session) {
        (Some(password), _) => Some(app.accounts.hash_password(&password).await?),
        (None, Some(session)) => {
            app.accounts.ui_auth_data(session, PASSWORD_HASH).await?.and_then(|h| h.as_str().map(str::to_owned))
        }
        (None, None) => None,
    };
    let hash = hash.ok_or_else(|| Error::missing_param("Missing params: password"))?;
    let logout = proven.params.get("logout_devices").and_then(Value::as_bool).or(body.logout_devices).unwrap_or(true);
    app.accounts.set_password(&who.user_id, &hash, logout, Some(&who)).await
}

#[derive(Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
}

async fn deactivate(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let body: Deactivate = rq.json_or_empty()?;
    if who.app_service.is_none() {
        prove(&app, &who, &rq, "deactivate your account", false).await?;
    }
    app.accounts.deactivate(&who.user_id, body.erase).await?;
    Ok(json!({"id_server_unbind_result": "success"}))
}

async fn threepids(app: App, who: Requester, _: Rq) -> Result<Value> {
    Ok(json!({"threepids": app.store.threepids(who.user_id.as_str()).await?}))
}

#[derive(Deserialize)]
struct DeleteThreepid {
    medium: String,
    address: String,
}

async fn delete_threepid(app: App, who: Requester, rq: Rq) -> Result<Value> {
    if !app.cx.config.registration.enable_3pid_changes {
        return Err(Error::client(400, "M_FORBIDDEN", "3PID changes are disabled on this server"));
    }
    let body: DeleteThreepid = rq.json()?;
    let address = match body.medium.as_str() {
        "email" => accounts::canonical_email(&body.address)?,
        "msisdn" => body.address,
        _ => return Err(Error::bad_json("medium: must be email or msisdn")),
    };
    app.store.delete_threepids(who.user_id.as_str(), Some((&body.medium, &address))).await?;
    Ok(json!({"id_server_unbind_result": "success"}))
}

async fn no_mail_reset(_: App, _: Rq) -> Result<()> {
    Err(Error::bad_request("Email-based password resets have been disabled on this server"))
}

async fn no_mail(_: App, _: Rq) -> Result<()> {
    let message = "Adding an email to your account is disabled on this server";
    Err(Error::client(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", message))
}

async fn no_sms(_: App, _: Rq) -> Result<()> {
    let message = "Adding phone numbers to user account is not supported by this homeserver";
    Err(Error::client(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", message))
}
