//! Device lists: changes noted by the processes that write them.

use crate::endpoint::{Object, nothing, object, post, post_once, take};
use app::App;
use http::{Route, Rq};
use types::Result;

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post("ReplicationNotifyDeviceUpdate", "/_synapse/replication/notify_device_update/{user_id}", update),
        post(
            "ReplicationNotifyUserSignatureUpdate",
            "/_synapse/replication/notify_user_signature_update/{user_id}",
            signature,
        ),
        post("ReplicationHandleNewDeviceUpdate", "/_synapse/replication/handle_new_device_update/", convert),
        post_once(
            "ReplicationMultiUserDevicesResync",
            "/_synapse/replication/multi_user_device_resync/{txn_id}",
            resync,
        ),
    ]
}

async fn update(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let device_ids: Vec<String> = take(&mut body, "device_ids")?;
    app.devices.notify_device_update(rq.arg("user_id")?, &device_ids).await?;
    nothing()
}

async fn signature(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let user_ids: Vec<String> = take(&mut body, "user_ids")?;
    app.devices.notify_user_signature_update(rq.arg("user_id")?, &user_ids).await?;
    nothing()
}

async fn convert(app: App, _: Rq, _: Object) -> Result<Object> {
    app.devices.handle_new_device_update().await?;
    nothing()
}

async fn resync(app: App, _: Rq, mut body: Object) -> Result<Object> {
    let user_ids: Vec<String> = take(&mut body, "user_ids")?;
    object(&app.devices.resync(&user_ids).await?)
}
