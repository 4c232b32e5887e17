//! Syncing (spec: "Syncing", `GET /sync`).

use app::App;
use http::reply::Json;
use http::{On, Route, Rq, route};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use sync::Filter;
use sync::v2::{Answer, Request};
use types::{Error, Requester, Result, StreamToken};

pub fn routes() -> Vec<Route<App>> {
    vec![route("GET", "SyncRestServlet", "/_matrix/client/(r0|v3|unstable)/sync").on(On::SyncByUser).guest(get)]
}

async fn get(app: App, who: Requester, rq: Rq) -> Result<Json<Answer>> {
    if rq.param("from").is_some() {
        return Err(Error::bad_request("'from' is not a valid query parameter. Did you mean 'since'?"));
    }
    let timeout = rq.int_param("timeout")?.unwrap_or(0).max(0);
    let full_state = rq.bool_param("full_state")?.unwrap_or(false);
    let set_presence = rq.param("set_presence").unwrap_or("online");
    if !matches!(set_presence, "online" | "offline" | "unavailable") {
        return Err(Error::bad_request("Query parameter 'set_presence' must be one of [offline, online, unavailable]"));
    }
    let filter = filter(&app, &who, rq.param("filter")).await?;
    let since = rq.param("since").map(StreamToken::parse).transpose();
    let since = since.map_err(|_| Error::bad_request("Invalid stream token"))?;
    app.accounts.check_blocking(Some(who.user_id.as_str())).await?;
    let use_state_after = use_state_after(&app, &who, &rq).await?;
    let limiter = &app.accounts.limits().presence_per_user;
    let set_presence = if app.accounts.limit_user(limiter, &who).await.is_ok() { set_presence } else { "offline" };
    let user = who.user_id.to_string();
    let _syncing = app.sync.user_syncing(&user, who.device_id.as_deref(), set_presence).await;
    let request =
        Request { who, filter, since, full_state, timeout: Duration::from_millis(timeout as u64), use_state_after };
    Ok(Json(app.sync.sync(request).await?))
}

/// MSC4222, where it is switched on.
async fn use_state_after(app: &App, who: &Requester, rq: &Rq) -> Result<bool> {
    if rq.bool_param("org.matrix.msc4222.use_state_after")? != Some(true) {
        return Ok(false);
    }
    let on = app.cx.config.experimental.on("msc4222_enabled");
    Ok(on || app.store.has_feature(who.user_id.as_str(), "msc4222").await?)
}

/// The filter given in the query: JSON, or the id of a stored one.
async fn filter(app: &App, who: &Requester, given: Option<&str>) -> Result<Arc<Filter>> {
    let value: Value = match given {
        None => return Ok(sync::Sync::default_filter()),
        Some(json) if json.starts_with('{') => {
            serde_json::from_str(json).map_err(|_| Error::not_json("Invalid filter JSON"))?
        }
        Some(id) => {
            let none = || Error::invalid_param("No such filter");
            let id: i64 = id.parse().map_err(|_| none())?;
            app.store.stored_filter(who.user_id.as_str(), id).await?.ok_or_else(none)?
        }
    };
    Ok(Arc::new(Filter::parse(&value)?))
}
