//! Messages to devices (spec: "Send-to-Device messaging").

use app::App;
use http::{On, Reply, Route, Rq, route};
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

async fn put(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let run = async {
        send(&app, &who, &rq).await?;
        Ok(Reply::empty())
    };
    app.txns.once(&who, &rq, run).await
}

async fn send(app: &App, who: &Requester, rq: &Rq) -> Result<()> {
    let Body { messages } = rq.json()?;
    let kind = rq.arg("message_type")?;
    let messages = messages
        .into_iter()
        .filter(|(user, _)| kind != "m.room_key_request" || may_ask_for_keys(app, who, user))
        .map(|(user, devices)| (user, devices.into_iter().map(|(d, content)| (d, Value::Object(content))).collect()))
        .collect();
    app.devices.send_to_device(who, kind, messages).await
}

/// `rc_key_requests`: what a device asks of other users beyond it is dropped without a word.
fn may_ask_for_keys(app: &App, who: &Requester, user: &str) -> bool {
    let device = who.device_id.as_deref().unwrap_or_default();
    let key = format!("{} {device}", who.user_id);
    user == who.user_id.as_str() || app.accounts.limits().key_requests.check(&key, app.cx.now_ms()).is_ok()
}
