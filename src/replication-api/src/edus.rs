//! Ephemeral messages of other servers, for streams this process writes.

use crate::endpoint::{Object, nothing, post_once, take};
use app::App;
use http::{Route, Rq};
use serde_json::Value;
use types::{OwnedServerName, Result};

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![post_once(
        "ReplicationFederationSendEduRestServlet",
        "/_synapse/replication/fed_send_edu/{edu_type}/{txn_id}",
        send,
    )]
}

async fn send(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let origin: OwnedServerName = take(&mut body, "origin")?;
    let content: Value = take(&mut body, "content")?;
    app.handle_edu(&origin, rq.arg("edu_type")?, content).await?;
    nothing()
}
