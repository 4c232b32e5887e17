//! Where users want to be told of events (spec: "Push Notifications").

use app::App;
use http::{On, Route, Rq, route};
use serde_json::{Map, Value, json};
use store::devices::PusherKey;
use store::pushers::Pusher;
use types::{Error, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "PushersRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/pushers").on(On::Main).user(list),
        route("POST", "PushersSetRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/pushers/set")
            .on(On::Main)
            .user(set),
    ]
}

async fn list(app: App, who: Requester, _: Rq) -> Result<Value> {
    let msc3881 = app.store.has_feature(who.user_id.as_str(), "msc3881").await?
        || app.cx.config.experimental.on("msc3881_enabled");
    let pushers = app.store.pushers_of(who.user_id.as_str()).await?;
    let shown = pushers.into_iter().map(|p| {
        let mut shown = json!({
            "app_display_name": p.app_display_name,
            "app_id": p.app_id,
            "data": p.data,
            "device_display_name": p.device_display_name,
            "kind": p.kind,
            "lang": p.lang,
            "profile_tag": p.profile_tag,
            "pushkey": p.pushkey,
        });
        if msc3881 {
            shown["org.matrix.msc3881.enabled"] = json!(p.enabled);
            shown["org.matrix.msc3881.device_id"] = json!(p.device_id);
        }
        shown
    });
    Ok(json!({"pushers": shown.collect::<Vec<Value>>()}))
}

fn text(body: &Map<String, Value>, key: &str) -> Result<String> {
    match body.get(key) {
        None => Err(Error::missing_param(format!("Missing params: ['{key}']"))),
        Some(Value::String(s)) => Ok(s.clone()),
        Some(_) => Err(Error::invalid_param(format!("{key}: must be a string"))),
    }
}

async fn set(app: App, who: Requester, rq: Rq) -> Result<()> {
    let body: Map<String, Value> = rq.json()?;
    let user = who.user_id.as_str();
    if body.get("kind") == Some(&Value::Null) && body.contains_key("app_id") && body.contains_key("pushkey") {
        let key = PusherKey { app_id: text(&body, "app_id")?, pushkey: text(&body, "pushkey")? };
        return app.accounts.drop_pushers(user, &[key]).await;
    }
    let data = match body.get("data") {
        Some(Value::Object(data)) => Value::Object(data.clone()),
        Some(_) => return Err(Error::invalid_param("data: must be an object")),
        None => return Err(Error::missing_param("Missing params: ['data']")),
    };
    let pusher = Pusher {
        user_id: user.to_owned(),
        kind: text(&body, "kind")?,
        app_id: text(&body, "app_id")?,
        pushkey: text(&body, "pushkey")?,
        app_display_name: text(&body, "app_display_name")?,
        device_display_name: text(&body, "device_display_name")?,
        profile_tag: body.get("profile_tag").and_then(Value::as_str).unwrap_or_default().to_owned(),
        lang: Some(text(&body, "lang")?),
        data,
        enabled: body.get("org.matrix.msc3881.enabled").and_then(Value::as_bool).unwrap_or(true),
        device_id: who.device_id.clone(),
        ts: app.cx.now_ms(),
    };
    check(&pusher)?;
    // Handed on to it already if it could take the request.
    if !app.cx.duties.is_main {
        return Err(Error::unavailable("Only the main process sets pushers"));
    }
    if !body.get("append").and_then(Value::as_bool).unwrap_or(false) {
        for other in app.store.pushers_of_others(user, &pusher.app_id, &pusher.pushkey).await? {
            let key = PusherKey { app_id: pusher.app_id.clone(), pushkey: pusher.pushkey.clone() };
            app.accounts.drop_pushers(&other, &[key]).await?;
        }
    }
    app.store.set_pusher(&pusher, app.store.streams.current(store::Stream::Events)).await
}

/// What a push gateway must be like (spec: `POST /pushers/set`).
fn check(pusher: &Pusher) -> Result<()> {
    let refuse = |why: &str| Err(Error::missing_param(format!("Config Error: {why}")));
    if pusher.kind != "http" {
        return refuse("only pushers of kind http are supported");
    }
    let Some(url) = pusher.data.get("url").and_then(Value::as_str) else {
        return refuse("'url' required in data for HTTP pusher");
    };
    let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|i| &rest[i..]));
    let path = path.map(|p| p.split(['?', '#']).next().unwrap_or(p));
    if !(url.starts_with("https://") || url.starts_with("http://")) || path != Some("/_matrix/push/v1/notify") {
        return refuse("'url' must have a path of '/_matrix/push/v1/notify'");
    }
    Ok(())
}
