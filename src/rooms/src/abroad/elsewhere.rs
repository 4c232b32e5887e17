//! Which process of this server changes memberships abroad: the one that writes the room, or, where Synapse
//! writes it, main. Asked with Synapse's replication endpoints.

use crate::{Rooms, Sent};
use config::StreamGroup;
use ruma::{EventId, OwnedServerName, RoomId, UserId};
use serde_json::{Map, Value, json};
use types::{Error, MASTER, Pdu, Requester, Result};

impl Rooms {
    /// The process to ask; None: this one does it.
    async fn abroad_elsewhere(&self, room_id: &RoomId) -> Option<&str> {
        if self.is_mine(room_id) {
            return None;
        }
        let owner = self.cx.owner(StreamGroup::Events, room_id.as_str());
        let other = if self.cx.peers.is_plexus(owner).await { owner } else { MASTER };
        (other != &*self.cx.instance).then_some(other)
    }

    async fn ask_abroad(
        &self,
        process: &str,
        name: &str,
        args: &[&str],
        room_id: &RoomId,
        body: Value,
    ) -> Result<Sent> {
        let Value::Object(body) = body else { return Err(Error::internal("a request must be an object")) };
        let answer = self.cx.peers.call(process, name, args, true, body).await?;
        let event_id = answer.get("event_id").and_then(Value::as_str).unwrap_or_default().try_into()?;
        Ok(Sent {
            event_id,
            room_id: room_id.to_owned(),
            stream_ordering: answer.get("stream_id").and_then(Value::as_i64).unwrap_or_default(),
            instance: self.cx.owner(StreamGroup::Events, room_id.as_str()).to_owned(),
        })
    }

    /// Lets another process join or knock, if that is its business.
    async fn ask_to_enter(
        &self,
        name: &str,
        who: &Requester,
        room_id: &RoomId,
        user_id: &UserId,
        servers: &[OwnedServerName],
        content: &Map<String, Value>,
    ) -> Option<Result<Sent>> {
        let process = self.abroad_elsewhere(room_id).await?;
        let body = json!({"requester": who, "remote_room_hosts": servers, "content": content});
        Some(self.ask_abroad(process, name, &[room_id.as_str(), user_id.as_str()], room_id, body).await)
    }

    /// Joins through other servers (`remote_join`).
    pub async fn join_through(
        &self,
        who: &Requester,
        room_id: &RoomId,
        user_id: &UserId,
        servers: Vec<OwnedServerName>,
        content: Map<String, Value>,
    ) -> Result<Sent> {
        if let Some(asked) = self.ask_to_enter("remote_join", who, room_id, user_id, &servers, &content).await {
            return asked;
        }
        // A room of a thousand events takes its time; a client that hangs up does not stop it.
        Box::pin(self.join_abroad(who, room_id, user_id, &servers, &content)).await
    }

    /// Knocks through other servers (`remote_knock`).
    pub async fn knock_through(
        &self,
        who: &Requester,
        room_id: &RoomId,
        user_id: &UserId,
        servers: Vec<OwnedServerName>,
        content: Map<String, Value>,
    ) -> Result<Sent> {
        if let Some(asked) = self.ask_to_enter("remote_knock", who, room_id, user_id, &servers, &content).await {
            return asked;
        }
        Box::pin(self.knock_abroad(room_id, user_id, &servers, &content)).await
    }

    /// Declines an invite of another server (`remote_reject_invite`).
    pub(crate) async fn decline_through(
        &self,
        who: &Requester,
        invite: &Pdu,
        content: Map<String, Value>,
    ) -> Result<Sent> {
        let room_id = &invite.room_id;
        if let Some(process) = self.abroad_elsewhere(room_id).await {
            let body = json!({"requester": who, "txn_id": null, "content": content});
            return self.ask_abroad(process, "remote_reject_invite", &[invite.event_id.as_str()], room_id, body).await;
        }
        Box::pin(self.decline(who, invite, &content)).await
    }

    /// Takes back a knock on a room abroad (`remote_rescind_knock`).
    pub(crate) async fn take_back_through(
        &self,
        who: &Requester,
        knock: &Pdu,
        content: Map<String, Value>,
    ) -> Result<Sent> {
        let room_id = &knock.room_id;
        if let Some(process) = self.abroad_elsewhere(room_id).await {
            let body = json!({"requester": who, "txn_id": null, "content": content});
            return self.ask_abroad(process, "remote_rescind_knock", &[knock.event_id.as_str()], room_id, body).await;
        }
        self.leave_alone(who, knock, &content).await
    }

    /// Ends an invite or a knock that another process names. 404 if there is no such event.
    pub async fn end_membership(
        &self,
        who: &Requester,
        event_id: &EventId,
        content: Map<String, Value>,
    ) -> Result<Sent> {
        let event = self.cx.store.event(event_id).await?.ok_or_else(|| Error::not_found("event_id: no such event"))?;
        match event.membership().as_deref() {
            Some("invite") => self.decline_through(who, &event, content).await,
            Some("knock") => self.take_back_through(who, &event, content).await,
            _ => Err(Error::bad_request("event_id: neither an invite nor a knock")),
        }
    }
}
