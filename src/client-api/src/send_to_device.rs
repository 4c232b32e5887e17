//! Messages to devices (spec: "Send-to-Device messaging").

use app::App;
use http::{On, Route, Rq, route};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::{Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route(
            "PUT",
            "SendToDeviceRestServlet",
            "/_matrix/client/(r0|v3|unstable)/sendToDevice/{message_type}/{txn_id}",
        )
        .on(On::Writer("to_device"))
        .guest(put),
    ]
}

#[derive(Deserialize)]
struct Body {
    messages: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    let Body { messages } = rq.json()?;
    let messages = messages
        .into_iter()
        .map(|(user, devices)| (user, devices.into_iter().map(|(d, content)| (d, Value::Object(content))).collect()))
        .collect();
    app.devices.send_to_device(&who, rq.arg("message_type")?, rq.arg("txn_id")?, messages).await
}
