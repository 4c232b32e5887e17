//! Inviting users of other servers: their server signs the invite before anybody else sees it.

use super::{bad_answer, path};
use crate::head::Head;
use crate::make::Made;
use crate::{Rooms, Template};
use fedclient::FedError;
use rules::proposal::{countersign, outgoing};
use ruma::{ServerName, UserId};
use serde_json::{Map, Value, json};
use types::{Error, EventFormat, Result};

impl Rooms {
    /// Whether an event to be made invites a user of another server.
    pub(crate) fn invites_abroad(&self, t: &Template) -> bool {
        let content: Map<String, Value> = serde_json::from_str(t.content.get()).unwrap_or_default();
        let membership = content.get("membership").and_then(Value::as_str);
        self.invited_abroad(&t.kind, t.state_key.as_deref(), membership).is_some()
    }

    /// The user of another server whom an event invites.
    fn invited_abroad<'a>(
        &self,
        kind: &str,
        state_key: Option<&'a str>,
        membership: Option<&str>,
    ) -> Option<&'a UserId> {
        if kind != "m.room.member" || membership != Some("invite") {
            return None;
        }
        let user = <&UserId>::try_from(state_key?).ok()?;
        (!self.is_local_user(user)).then_some(user)
    }

    /// Has a new invite signed by the invited user's server, which may refuse it.
    pub(crate) async fn have_invite_signed(&self, head: &mut Head, made: &mut Made) -> Result<()> {
        let pdu = made.event.pdu.clone();
        let Some(user) = self.invited_abroad(&pdu.kind, pdu.state_key.as_deref(), pdu.membership().as_deref()) else {
            return Ok(());
        };
        let server = user.server_name();
        let state = self.state_for_invite(head, pdu.sender.as_str()).await?;
        let event = outgoing(&made.event.json)?;
        let body = json!({"event": event, "room_version": head.version, "invite_room_state": state});
        let args = [pdu.room_id.as_str(), pdu.event_id.as_str()];
        let answer = match self.fed.put(server.as_str(), &path("v2/invite", &args), &body).await {
            Err(e) if e.is_unrecognized() => {
                if EventFormat::of(&head.version) != EventFormat::V1 {
                    let text = "User's homeserver does not support this room version";
                    return Err(Error::client(400, "M_UNSUPPORTED_ROOM_VERSION", text));
                }
                let mut event = event;
                event["unsigned"] = json!({"invite_room_state": state});
                let answer = self.fed.put(server.as_str(), &path("v1/invite", &args), &event).await;
                // [200, answer]
                answer.map(|mut a| a.get_mut(1).map(Value::take).unwrap_or_default())
            }
            other => other,
        };
        let answer = answer.map_err(|e| refused(server, e))?;
        let signed = answer.get("event").ok_or_else(|| bad_answer(server, "event"))?;
        // Only the signature is taken; but what cannot be an event of the room's version is refused for what it is.
        rules::incoming::read(&signed.to_string(), &head.version, self.cx.now_ms())?;
        let json = countersign(&made.event.json, signed, server.as_str())?;
        self.check_signed_by(server, &head.version, &json).await?;
        made.event.json = json;
        Ok(())
    }

    /// State events in full, by which the invited user knows the room.
    async fn state_for_invite(&self, head: &mut Head, inviter: &str) -> Result<Vec<Value>> {
        let ids = self.stripped_ids(head, inviter);
        let names: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let jsons = self.cx.store.event_jsons(&names).await?;
        ids.iter().filter_map(|id| jsons.get(id.as_str())).map(|json| outgoing(json)).collect()
    }
}

/// What the inviting user is told.
fn refused(server: &ServerName, e: FedError) -> Error {
    match e {
        FedError::Refused(e) if e.status == 400 && matches!(&*e.errcode, "M_MISSING_PARAM" | "M_INVALID_PARAM") => {
            let text = format!("Invite was rejected by the recipient's server {server}: {}", e.message);
            Error::client(400, "M_UNKNOWN", text).with("destination_server", server.as_str())
        }
        FedError::BackingOff { .. } | FedError::Unreachable { .. } => {
            Error::client(502, "M_UNKNOWN", format!("Can't connect to server {server}"))
        }
        other => other.into(),
    }
}
