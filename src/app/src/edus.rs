//! Ephemeral messages of other servers: each kind goes to the process that writes its stream.

use crate::App;
use config::StreamGroup;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::time::Duration;
use store::receipts::Receipt;
use types::{Boxed, Error, OwnedRoomId, Result, ServerName, UserId};

/// How long a user of another server is shown as typing unless told otherwise.
const TYPING: Duration = Duration::from_secs(60);

impl App {
    /// Takes an ephemeral message, or lets the process take it that writes its stream (`fed_send_edu`).
    pub async fn take_edu(&self, origin: &ServerName, kind: &str, content: Value) -> Result<()> {
        let group = match kind {
            "m.typing" => StreamGroup::Typing,
            "m.receipt" => StreamGroup::Receipts,
            "m.presence" => StreamGroup::Presence,
            "m.direct_to_device" => StreamGroup::ToDevice,
            "m.device_list_update" | "m.signing_key_update" | "org.matrix.signing_key_update" => {
                StreamGroup::DeviceLists
            }
            _ => return Ok(()),
        };
        if self.cx.duties.writes(group) {
            return self.handle_edu(origin, kind, content).await;
        }
        let owner = self.cx.owner(group, "");
        let body = Map::from_iter([("origin".to_owned(), origin.as_str().into()), ("content".to_owned(), content)]);
        self.cx.peers.call(owner, "fed_send_edu", &[kind], true, body).await?;
        Ok(())
    }

    /// Takes an ephemeral message here.
    pub fn handle_edu<'a>(&'a self, origin: &'a ServerName, kind: &'a str, content: Value) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            match (kind, content) {
                ("m.typing", Value::Object(content)) => self.typing_edu(origin, &content).await,
                ("m.receipt", Value::Object(content)) => self.receipt_edu(origin, content).await,
                ("m.presence", Value::Object(content)) => self.sync.receive_presence(origin.as_str(), &content).await,
                ("m.direct_to_device", content @ Value::Object(_)) => {
                    self.devices.receive_to_device(origin.as_str(), &content).await
                }
                ("m.device_list_update", Value::Object(content)) => {
                    self.devices.take_device_update(origin, &content).await
                }
                ("m.signing_key_update" | "org.matrix.signing_key_update", Value::Object(content)) => {
                    self.devices.take_signing_key_update(origin, &content).await
                }
                (_, Value::Object(_)) => Ok(()),
                _ => Err(Error::bad_json("content: must be an object")),
            }
        })
    }

    /// Those of some users who are of this origin and in a room that this server is in and that lets the origin speak.
    async fn speakers<'a>(
        &self,
        origin: &ServerName,
        room_id: &str,
        users: impl Iterator<Item = &'a str>,
    ) -> Result<HashSet<&'a str>> {
        let of_origin = |user: &&str| <&UserId>::try_from(*user).is_ok_and(|u| u.server_name() == origin);
        let members: Vec<(&str, &str)> = users.filter(of_origin).map(|u| ("m.room.member", u)).collect();
        let Ok(room) = OwnedRoomId::try_from(room_id) else { return Ok(HashSet::new()) };
        let own = self.cx.config.server.name.as_str();
        if members.is_empty()
            || !self.store.is_server_in_room(&room, own).await?
            || self.rooms.check_server_allowed(&room, origin).await.is_err()
        {
            return Ok(HashSet::new());
        }
        let events = self.rooms.current_events(&room, &members).await?;
        let joined: HashSet<&str> = events
            .values()
            .filter(|e| e.membership().as_deref() == Some("join"))
            .filter_map(|e| e.state_key.as_deref())
            .collect();
        Ok(members.into_iter().map(|(_, user)| user).filter(|user| joined.contains(user)).collect())
    }

    async fn typing_edu(&self, origin: &ServerName, content: &Map<String, Value>) -> Result<()> {
        let text = |key: &str| {
            let value = content.get(key).and_then(Value::as_str);
            value.ok_or_else(|| Error::bad_json(format!("m.typing: {key} must be a string")))
        };
        let (room_id, user_id) = (text("room_id")?, text("user_id")?);
        // Our own processes hand typing of our users this way where the writer cannot be told otherwise.
        let own = origin == self.cx.config.server.name;
        if own || !self.speakers(origin, room_id, std::iter::once(user_id)).await?.is_empty() {
            let typing = content.get("typing").and_then(Value::as_bool).unwrap_or(false);
            self.sync.set_typing(room_id, user_id, typing.then_some(TYPING.as_millis() as i64));
        }
        Ok(())
    }

    /// `{room: {type: {user: {"event_ids": […], "data": {…}}}}}`
    async fn receipt_edu(&self, origin: &ServerName, content: Map<String, Value>) -> Result<()> {
        let own = origin == self.cx.config.server.name;
        for (room_id, kinds) in content {
            let kinds = kinds.as_object();
            let senders = kinds.into_iter().flat_map(Map::values).filter_map(Value::as_object).flat_map(Map::keys);
            let speakers =
                if own { HashSet::new() } else { self.speakers(origin, &room_id, senders.map(String::as_str)).await? };
            for (kind, users) in kinds.into_iter().flatten() {
                for (user_id, receipt) in users.as_object().into_iter().flatten() {
                    if !own && (kind != "m.read" || !speakers.contains(user_id.as_str())) {
                        continue;
                    }
                    let Some(event_id) = receipt["event_ids"].get(0).and_then(Value::as_str) else { continue };
                    let mut data = receipt["data"].as_object().cloned().unwrap_or_default();
                    let thread_id = data.remove("thread_id").and_then(|t| t.as_str().map(str::to_owned));
                    let receipt = Receipt {
                        room_id: room_id.clone(),
                        receipt_type: kind.clone(),
                        user_id: user_id.clone(),
                        event_id: event_id.to_owned(),
                        thread_id,
                        data: Value::Object(data),
                    };
                    self.store.add_receipt(&receipt).await?;
                }
            }
        }
        Ok(())
    }
}
