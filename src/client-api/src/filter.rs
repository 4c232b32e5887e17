//! Stored filters (spec: "Filtering").

use app::App;
use http::{Route, Rq, route};
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "GetFilterRestServlet", "/_matrix/client/(r0|v3|unstable)/user/{user_id}/filter/{filter_id}")
            .user(get),
        route("POST", "CreateFilterRestServlet", "/_matrix/client/(r0|v3|unstable)/user/{user_id}/filter").user(create),
    ]
}

fn check_own(who: &Requester, rq: &Rq, what: &str) -> Result<()> {
    if rq.user_id()? == who.user_id {
        return Ok(());
    }
    Err(Error::forbidden(format!("Cannot {what} filters for other users")))
}

async fn get(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_own(&who, &rq, "get")?;
    let id = rq.arg("filter_id")?.parse().map_err(|_| Error::bad_request("Invalid filter_id"))?;
    let found = app.store.stored_filter(who.user_id.as_str(), id).await?;
    found.ok_or_else(|| Error::not_found("No such filter"))
}

async fn create(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_own(&who, &rq, "create")?;
    let mut filter: Map<String, Value> = rq.json()?;
    sync::Filter::parse(&Value::Object(filter.clone()))?;
    if let Some(most) = app.cx.config.server.filter_timeline_limit {
        let limit = filter.get_mut("room").and_then(|r| r.get_mut("timeline")).and_then(|t| t.get_mut("limit"));
        if let Some(limit) = limit.filter(|l| l.as_f64().is_some_and(|n| n > most as f64)) {
            *limit = json!(most);
        }
    }
    let id = app.store.add_filter(&who.user_id, &filter).await?;
    Ok(json!({"filter_id": id.to_string()}))
}
