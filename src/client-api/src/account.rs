//! The own account (spec: "Account management").

use crate::proof::prove;
use app::App;
use http::{Access, App as _, On, Route, Rq, route};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

/// Session data: the hash of the new password, kept while other stages are done.
const PASSWORD_HASH: &str = "password_hash";
/// The stage that shows that an e-mail address is somebody's.
const EMAIL: &str = "m.login.email.identity";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "WhoamiRestServlet", "/_matrix/client/(r0|v3|unstable)/account/whoami").guest(whoami),
        route("POST", "PasswordRestServlet", "/_matrix/client/(r0|v3|unstable)/account/password")
            .on(On::Main)
            .open(change_password),
        route("POST", "DeactivateAccountRestServlet", "/_matrix/client/(r0|v3|unstable)/account/deactivate")
            .on(On::Main)
            .user(deactivate),
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

/// With a token its owner proves who they are; without, an e-mail address does.
async fn change_password(app: App, rq: Rq) -> Result<()> {
    let who = match rq.access_token() {
        Some(_) => Some(app.authenticate(&rq, Access::User).await?),
        None => None,
    };
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
    let proven = match &who {
        Some(who) => app.accounts.prove_owner(who, &proof, asked, false).await,
        None => app.accounts.check_ui_auth(&[vec![EMAIL.to_owned()]], &proof, asked, Map::new()).await,
    };
    let proven = match proven {
        Ok(proven) => proven,
        Err(e) => return Err(keep_password(&app, body.new_password.as_deref(), e).await?),
    };
    let hash = match (&body.new_password, &proven.session) {
        (Some(password), _) => Some(app.accounts.hash_password(password).await?),
        (None, Some(session)) => {
            app.accounts.ui_auth_data(session, PASSWORD_HASH).await?.and_then(|h| h.as_str().map(str::to_owned))
        }
        (None, None) => None,
    };
    let hash = hash.ok_or_else(|| Error::missing_param("Missing params: password"))?;
    let logout = proven.params.get("logout_devices").and_then(Value::as_bool).or(body.logout_devices).unwrap_or(true);
    let user_id = match &who {
        Some(who) => who.user_id.clone(),
        None => app.accounts.owner_by_stage(proven.stages.get(EMAIL)).await?,
    };
    app.accounts.set_password(&user_id, &hash, logout, who.as_ref()).await
}

/// Keeps the new password's hash with a session that has further stages to do: clients need not send it again.
/// Returns the error, which tells what is left to do.
async fn keep_password(app: &App, password: Option<&str>, e: Error) -> Result<Error> {
    let Error::Client(told) = &e else { return Ok(e) };
    let session = told.extra.get("session").and_then(Value::as_str);
    if let (true, Some(session), Some(password)) = (told.errcode.is_empty(), session, password)
        && app.accounts.ui_auth_data(session, PASSWORD_HASH).await?.is_none()
    {
        let hash = app.accounts.hash_password(password).await?;
        app.accounts.set_ui_auth_data(session, PASSWORD_HASH, json!(hash)).await?;
    }
    Ok(e)
}

#[derive(Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
    #[serde(default)]
    id_server: Option<String>,
}

async fn deactivate(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let body: Deactivate = rq.json_or_empty()?;
    if who.app_service.is_none() {
        prove(&app, &who, &rq, "deactivate your account", false).await?;
    }
    let unbound = app.accounts.deactivate(&who.user_id, body.erase, body.id_server.as_deref()).await?;
    Ok(json!({"id_server_unbind_result": if unbound { "success" } else { "no-support" }}))
}
