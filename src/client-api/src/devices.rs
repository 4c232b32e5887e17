//! A user's devices (spec: "Device Management").

use crate::proof;
use app::App;
use http::{Reply, Route, Rq, route};
use httpcrate::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use store::devices::Device;
use types::{Requester, Result};

const DEVICE: &str = "/_matrix/client/(r0|v3|unstable)/devices/{device_id}";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "DevicesRestServlet", "/_matrix/client/(r0|v3|unstable)/devices").guest(list),
        route("GET", "DeviceRestServlet", DEVICE).guest(get),
        route("PUT", "DeviceRestServlet", DEVICE).guest(put),
        route("DELETE", "DeviceRestServlet", DEVICE).user(delete),
        route("POST", "DeleteDevicesRestServlet", "/_matrix/client/(r0|v3|unstable)/delete_devices").user(delete_many),
    ]
}

fn shown(user_id: &str, device: Device) -> Value {
    json!({
        "user_id": user_id,
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ip": device.last_seen_ip,
        "last_seen_ts": device.last_seen_ts,
    })
}

async fn list(app: App, who: Requester, _: Rq) -> Result<Value> {
    let user_id = who.user_id.as_str();
    let devices = app.devices.all(user_id).await?;
    Ok(json!({"devices": devices.into_iter().map(|d| shown(user_id, d)).collect::<Vec<_>>()}))
}

async fn get(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let user_id = who.user_id.as_str();
    Ok(shown(user_id, app.devices.one(user_id, rq.arg("device_id")?).await?))
}

#[derive(Deserialize)]
struct Rename {
    display_name: Option<String>,
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let Rename { display_name } = rq.json()?;
    let (user_id, device_id) = (who.user_id.as_str(), rq.arg("device_id")?);
    if who.app_service.is_some() {
        let new = app.devices.upsert(user_id, device_id, display_name.as_deref()).await?;
        return Reply::json_with(if new { StatusCode::CREATED } else { StatusCode::OK }, &json!({}));
    }
    app.devices.rename(user_id, device_id, display_name.as_deref()).await?;
    Ok(Reply::empty())
}

async fn delete(app: App, who: Requester, rq: Rq) -> Result<()> {
    if who.app_service.is_none() {
        proof::prove(&app, &who, &rq, "remove a device from your account", true).await?;
    }
    app.devices.delete_devices(who.user_id.as_str(), &[rq.arg("device_id")?.to_owned()]).await
}

#[derive(Deserialize)]
struct Many {
    devices: Vec<String>,
}

async fn delete_many(app: App, who: Requester, rq: Rq) -> Result<()> {
    let Many { devices } = rq.json_or_empty()?;
    if who.app_service.is_none() {
        proof::prove(&app, &who, &rq, "remove device(s) from your account", true).await?;
    }
    app.devices.delete_devices(who.user_id.as_str(), &devices).await
}
