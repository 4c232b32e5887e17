//! Profiles (spec: "Profiles").

use crate::proof::address;
use accounts::check_field_name;
use app::App;
use http::{Access, App as _, Route, Rq, route};
use ruma::OwnedUserId;
use serde_json::{Map, Value};
use types::{Error, Requester, Result};

const PROFILE: &str = "/_matrix/client/(api/v1|r0|v3|unstable)/profile/{user_id}";
/// Old versions know two fields only.
const NAME: &str = "/_matrix/client/(api/v1|r0|unstable)/profile/{user_id}/displayname";
const AVATAR: &str = "/_matrix/client/(api/v1|r0|unstable)/profile/{user_id}/avatar_url";
const FIELD: &str = "/_matrix/client/v3/profile/{user_id}/{field}";

pub fn routes() -> Vec<Route<App>> {
    let mut all = vec![route("GET", "ProfileRestServlet", PROFILE).open(get_all)];
    for path in [NAME, AVATAR, FIELD] {
        all.push(route("GET", "ProfileFieldRestServlet", path).open(get));
        all.push(route("PUT", "ProfileFieldRestServlet", path).guest(put));
        all.push(route("DELETE", "ProfileFieldRestServlet", path).guest(delete));
    }
    all
}

/// Who asks, if they say so or must.
async fn asking(app: &App, rq: &Rq) -> Result<Option<Requester>> {
    let must = app.cx.config.directory.require_auth_for_profile_requests;
    let who = match (must, rq.access_token()) {
        (true, _) => Some(app.authenticate(rq, Access::User).await?),
        (false, Some(_)) => Some(app.authenticate(rq, Access::Guest).await?),
        (false, None) => None,
    };
    let limiter = &app.accounts.limits().profile;
    match &who {
        Some(who) => app.accounts.limit_user(limiter, who).await?,
        None => limiter.check(&address(rq), app.cx.now_ms())?,
    }
    Ok(who)
}

fn target(rq: &Rq) -> Result<OwnedUserId> {
    rq.user_id().map_err(|_| Error::invalid_param("Invalid user id"))
}

/// The field in the path; paths of old versions end in it.
fn field(rq: &Rq) -> Result<&str> {
    let name = rq.arg_opt("field").unwrap_or_else(|| rq.path.rsplit('/').next().unwrap_or_default());
    check_field_name(name)?;
    Ok(name)
}

async fn get_all(app: App, rq: Rq) -> Result<Value> {
    let who = asking(&app, &rq).await?;
    let user_id = target(&rq)?;
    app.accounts.may_see_profile(who.as_ref().map(|w| &*w.user_id), &user_id).await?;
    Ok(Value::Object(app.accounts.profile(&user_id).await?))
}

async fn get(app: App, rq: Rq) -> Result<Value> {
    let who = asking(&app, &rq).await?;
    let (user_id, field) = (target(&rq)?, field(&rq)?);
    app.accounts.may_see_profile(who.as_ref().map(|w| &*w.user_id), &user_id).await?;
    Ok(Value::Object(app.accounts.profile_field(&user_id, field).await?))
}

/// Guests may only have a name; suspended users may change nothing.
async fn may_change(app: &App, who: &Requester, field: &str) -> Result<()> {
    if who.is_guest && field != "displayname" {
        return Err(Error::client(403, "M_GUEST_ACCESS_FORBIDDEN", "Guest access not allowed"));
    }
    if app.store.user(who.user_id.as_str()).await?.is_some_and(|u| u.suspended) {
        let message = "Updating profile while account is suspended is not allowed.";
        return Err(Error::client(403, "M_USER_SUSPENDED", message));
    }
    Ok(())
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    let (user_id, field) = (target(&rq)?, field(&rq)?);
    let mut body: Map<String, Value> = rq.json()?;
    let value = body.remove(field).ok_or_else(|| Error::missing_param(format!("Missing key '{field}'")))?;
    may_change(&app, &who, field).await?;
    if matches!(field, "displayname" | "avatar_url") {
        if !value.is_string() {
            return Err(Error::invalid_param(format!("'{field}' must be a string")));
        }
        app.accounts.limit_message(&who).await?;
    }
    app.accounts.set_profile_field(&who, &user_id, field, Some(value)).await
}

async fn delete(app: App, who: Requester, rq: Rq) -> Result<()> {
    let (user_id, field) = (target(&rq)?, field(&rq)?);
    may_change(&app, &who, field).await?;
    app.accounts.set_profile_field(&who, &user_id, field, None).await
}
