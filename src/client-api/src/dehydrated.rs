//! Dehydrated devices (MSC3814), if `experimental_features.msc3814_enabled`.

use crate::keys::named_keys;
use app::App;
use http::{Route, Rq, route};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::dehydrated::DehydratedKeys;
use store::e2e_keys::OneTimeKey;
use types::{Error, Requester, Result};

const DEVICE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";
const EVENTS: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "DehydratedDeviceV2Servlet", DEVICE).user(get),
        route("PUT", "DehydratedDeviceV2Servlet", DEVICE).user(put),
        route("DELETE", "DehydratedDeviceV2Servlet", DEVICE).user(delete),
        route("GET", "DehydratedDeviceEventsServlet", EVENTS).user(get_events),
        route("POST", "DehydratedDeviceEventsServlet", EVENTS).user(post_events),
    ]
}

fn check_enabled(app: &App) -> Result<()> {
    let on = app.cx.config.experimental.on("msc3814_enabled");
    if on { Ok(()) } else { Err(Error::unrecognized("Unrecognized request")) }
}

async fn get(app: App, who: Requester, _: Rq) -> Result<Value> {
    check_enabled(&app)?;
    let (device_id, device_data) = app.devices.dehydrated_device(who.user_id.as_str()).await?;
    Ok(json!({"device_id": device_id, "device_data": device_data}))
}

async fn delete(app: App, who: Requester, _: Rq) -> Result<Value> {
    check_enabled(&app)?;
    Ok(json!({"device_id": app.devices.delete_dehydrated_device(who.user_id.as_str()).await?}))
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_enabled(&app)?;
    let body: Map<String, Value> = rq.json()?;
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    let data = body.get("device_data").filter(|d| d["algorithm"].is_string());
    let data = data.ok_or_else(|| Error::bad_json("device_data must be an object with a string algorithm"))?;
    let device_id = text("device_id").ok_or_else(|| Error::bad_json("device_id must be a string"))?;
    let device_keys = body.get("device_keys").filter(|k| k.is_object()).cloned();
    if device_keys.is_none() {
        return Err(Error::bad_request("Device key(s) not found, these must be provided."));
    }
    let one_time = named_keys(&body, "one_time_keys")?;
    let one_time_keys = one_time.iter().filter_map(|(name, key)| {
        let (algorithm, key_id) = name.split_once(':')?;
        Some(OneTimeKey { algorithm: algorithm.to_owned(), key_id: key_id.to_owned(), json: key.to_string() })
    });
    let keys = DehydratedKeys {
        device_keys,
        one_time_keys: one_time_keys.collect(),
        fallback_keys: named_keys(&body, "fallback_keys")?,
    };
    let name = text("initial_device_display_name");
    app.devices.set_dehydrated_device(who.user_id.as_str(), device_id, data, name, &keys).await?;
    Ok(json!({"device_id": device_id}))
}

/// Most messages in one answer.
fn limit(rq: &Rq) -> Result<i64> {
    Ok(rq.int_param("limit")?.unwrap_or(100).clamp(1, 1000))
}

async fn get_events(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_enabled(&app)?;
    let found = app
        .devices
        .dehydrated_events(who.user_id.as_str(), rq.arg("device_id")?, rq.param("from"), limit(&rq)?)
        .await?;
    if found.limited {
        return Ok(json!({"events": found.events, "next_batch": found.next_batch}));
    }
    Ok(json!({"events": found.events}))
}

#[derive(Deserialize)]
struct From {
    next_batch: Option<String>,
}

async fn post_events(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_enabled(&app)?;
    let From { next_batch } = rq.json()?;
    let from = next_batch.as_deref();
    let found = app.devices.dehydrated_events(who.user_id.as_str(), rq.arg("device_id")?, from, limit(&rq)?).await?;
    Ok(json!({"events": found.events, "next_batch": found.next_batch}))
}
