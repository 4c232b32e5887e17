//! Requests that another process must answer.
//!
//! A whole client request travels to the writer's replication listener and is dispatched there as if the
//! client had come to it. The client's token travels along, so the writer authenticates it itself.

use crate::App;
use config::StreamGroup;
use http::{Incoming, On, Reply, Route, Rq, dispatch, route};
use httpcrate::{HeaderMap, HeaderName, HeaderValue, Method, header};
use replication::peers;
use types::{Error, MASTER, Result};

/// Where the receiving process takes them.
pub const FORWARD_PREFIX: &str = "/_synapse/replication/plexus_forward";

const CLIENT_IP: HeaderName = HeaderName::from_static("x-plexus-client-ip");
const CLIENT_AUTHORIZATION: HeaderName = HeaderName::from_static("x-plexus-authorization");
/// Where the writer's streams are after a write: the client's next request must find it wherever it goes.
const POSITIONS: HeaderName = HeaderName::from_static("x-plexus-positions");

impl App {
    /// The process that must answer, if that is not this one.
    pub(crate) fn owner_of(&self, on: On, rq: &Rq) -> Option<&str> {
        let owner = match on {
            On::RoomShard => self.cx.owner(StreamGroup::Events, rq.arg_opt("room_id")?),
            On::Writer(name) => {
                let group = StreamGroup::named(name)?;
                if self.cx.duties.writes(group) {
                    return None;
                }
                self.cx.owner(group, rq.arg_opt("user_id").unwrap_or_default())
            }
            On::Main => MASTER,
            _ => return None,
        };
        (owner != &*self.cx.instance).then_some(owner)
    }

    pub(crate) async fn forward_to(&self, instance: &str, rq: &Rq) -> Result<Reply> {
        let mut headers = HeaderMap::new();
        for name in [header::CONTENT_TYPE, header::USER_AGENT] {
            if let Some(value) = rq.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if let Some(value) = rq.headers.get(header::AUTHORIZATION) {
            headers.insert(CLIENT_AUTHORIZATION, value.clone());
        }
        if let Some(ip) = rq.ip {
            headers.insert(CLIENT_IP, HeaderValue::from_str(&ip.to_string())?);
        }
        let query = if rq.raw_query.is_empty() { String::new() } else { format!("?{}", rq.raw_query) };
        let target = format!("{FORWARD_PREFIX}{}{query}", rq.path);
        // A PUT with a transaction id is carried out once, however often it comes.
        let repeatable = rq.method == Method::GET || (rq.method == Method::PUT && rq.arg_opt("txn_id").is_some());
        let (method, body) = (rq.method.clone(), rq.body.clone());
        let mut answer = self.cx.peers.forward(instance, repeatable, method, &target, headers, body).await?;
        let at = answer.headers.iter().position(|(name, _)| *name == POSITIONS);
        if let Some((_, positions)) = at.map(|i| answer.headers.swap_remove(i))
            && self.cx.bus.is_up()
            && let Ok(positions) = serde_json::from_slice(positions.as_bytes())
        {
            peers::wait_for_positions(&self.store, instance, &positions).await;
        }
        Ok(Reply { status: answer.status, headers: answer.headers, body: answer.body })
    }
}

/// The receiving end, for every method a client may use.
pub(crate) fn routes() -> Vec<Route<App>> {
    ["GET", "PUT", "POST", "DELETE"]
        .into_iter()
        .map(|m| route(m, "PlexusForward", "/_synapse/replication/plexus_forward/{*path}").replication(receive))
        .collect()
}

async fn receive(app: App, rq: Rq) -> Result<Reply> {
    let table = app.clients.get().ok_or_else(|| Error::unavailable("This process serves no clients"))?.clone();
    let mut headers = rq.headers;
    let ip = headers.remove(CLIENT_IP).and_then(|v| v.to_str().ok()?.parse().ok());
    headers.remove(header::AUTHORIZATION);
    if let Some(token) = headers.remove(CLIENT_AUTHORIZATION) {
        headers.insert(header::AUTHORIZATION, token);
    }
    let path = rq.path.strip_prefix(FORWARD_PREFIX).unwrap_or_default().to_owned();
    let incoming =
        Incoming { method: rq.method, path, raw_query: rq.raw_query, headers, body: rq.body, ip, forwarded: true };
    let wrote = incoming.method != Method::GET;
    let mut reply = Box::pin(dispatch(&app, &table, incoming)).await;
    if wrote && reply.status.is_success() {
        let positions = serde_json::to_string(&peers::own_positions(&app.store))?;
        reply.headers.push((POSITIONS, HeaderValue::from_str(&positions)?));
    }
    Ok(reply)
}
