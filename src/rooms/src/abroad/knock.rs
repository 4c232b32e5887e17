//! Knocking on rooms through other servers.

use super::{Abroad, Proposed, path, unanswered};
use crate::{Rooms, Sent};
use futures::FutureExt;
use rules::proposal::outgoing;
use ruma::{OwnedServerName, RoomId, ServerName, UserId};
use serde_json::{Map, Value};
use types::Result;

impl Rooms {
    /// Knocks through the first of `servers` that takes it.
    pub(crate) async fn knock_abroad(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        servers: &[OwnedServerName],
        content: &Map<String, Value>,
    ) -> Result<Sent> {
        let wanted = Abroad { room_id, user_id, membership: "knock", servers, content };
        let Proposed { server, version, mut built } = self.propose(wanted).await?;
        let servers = first(servers, &server);
        let event = outgoing(&built.json)?;
        let to = path("v1/send_knock", &[room_id.as_str(), built.pdu.event_id.as_str()]);
        let (to, event) = (&to, &event);
        let ask = |server: OwnedServerName| {
            async move { self.fed.put(server.as_str(), to, event).await.map_err(unanswered) }.boxed()
        };
        let mut answer = self.first_answer("send_knock", &servers, &[], ask).await?;
        if let Some(Value::Array(state)) = answer.get_mut("knock_room_state").map(Value::take) {
            let state = state.iter().filter_map(stripped).collect();
            built.pdu.unsigned.insert("knock_room_state".into(), Value::Array(state));
            built.json = crate::prepared::with_unsigned(&built.json, &built.pdu.stored_unsigned())?;
        }
        self.accept_membership(&version, built.pdu, built.json).await
    }
}

/// `server` before all others.
pub(crate) fn first(servers: &[OwnedServerName], server: &ServerName) -> Vec<OwnedServerName> {
    let others = servers.iter().filter(|s| **s != *server).cloned();
    std::iter::once(server.to_owned()).chain(others).collect()
}

/// What clients see of a state event they only hear of (spec: "Stripped state"). None if it is not one.
pub(crate) fn stripped(event: &Value) -> Option<Value> {
    let keep = ["type", "state_key", "sender", "content"];
    let text = |key: &str| event.get(key).is_some_and(Value::is_string);
    if !(text("type") && text("state_key") && text("sender") && event.get("content").is_some_and(Value::is_object)) {
        return None;
    }
    let event = event.as_object()?;
    Some(Value::Object(
        event.iter().filter(|(k, _)| keep.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect(),
    ))
}
