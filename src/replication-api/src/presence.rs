//! Presence, which one process writes.

use crate::endpoint::{Object, nothing, post, take};
use app::App;
use http::{Route, Rq};
use serde_json::Value;
use types::Result;

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post("ReplicationBumpPresenceActiveTime", "/_synapse/replication/bump_presence_active_time/{user_id}", active),
        post("ReplicationPresenceSetState", "/_synapse/replication/presence_set_state/{user_id}", set),
    ]
}

async fn active(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let device_id: Option<String> = take(&mut body, "device_id")?;
    if app.sync.writes_presence() {
        app.sync.write_activity(rq.arg("user_id")?, device_id.as_deref()).await?;
    }
    nothing()
}

async fn set(app: App, rq: Rq, body: Object) -> Result<Object> {
    app.sync.presence_set_state(rq.arg("user_id")?, &Value::Object(body)).await?;
    nothing()
}
