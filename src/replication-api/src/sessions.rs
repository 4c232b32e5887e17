//! Sessions and registrations, which the main process completes for workers.

use crate::endpoint::{Object, nothing, object, post_once, take};
use accounts::NewSession;
use app::App;
use http::{Route, Rq};
use serde_json::Value;
use types::{Error, Result};

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post_once(
            "RegisterDeviceReplication",
            "/_synapse/replication/device_check_registered/{user_id}/{txn_id}",
            open,
        ),
        post_once(
            "ReplicationPostRegisterActionsServlet",
            "/_synapse/replication/post_register/{user_id}/{txn_id}",
            registered,
        ),
        post_once(
            "ReplicationNotifyAccountDeactivatedServlet",
            "/_synapse/replication/notify_account_deactivated/{user_id}/{txn_id}",
            deactivated,
        ),
    ]
}

/// What follows a registration by interactive authentication.
async fn registered(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let stages: Option<Object> = take(&mut body, "auth_result")?;
    app.accounts.after_ui_registration(&rq.user_id()?, &stages.unwrap_or_default()).await?;
    nothing()
}

async fn open(app: App, rq: Rq, body: Object) -> Result<Object> {
    let new: NewSession =
        serde_json::from_value(Value::Object(body)).map_err(|e| Error::bad_json(format!("Body: {e}")))?;
    object(&app.accounts.open_session_here(&rq.user_id()?, new).await?)
}

/// The main process leaves the rooms of deactivated users.
async fn deactivated(app: App, _: Rq, _: Object) -> Result<Object> {
    app.accounts.part_deactivated();
    nothing()
}
