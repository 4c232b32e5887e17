//! Joining rooms through other servers.

use super::knock::first;
use super::{Abroad, Proposed, bad_answer, path, unanswered};
use crate::power::Levels;
use crate::remote::{Incoming, RemoteRoom};
use crate::{Rooms, Sent};
use futures::FutureExt;
use rules::build::rules_of;
use rules::proposal::outgoing;
use ruma::{OwnedServerName, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashSet;
use types::{Boxed, Error, Requester, Result};

/// Answer of `send_join`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    state: Vec<Value>,
    #[serde(default)]
    auth_chain: Vec<Value>,
    /// The join as the room has it, signed by who let us in.
    event: Option<Value>,
    #[serde(default)]
    members_omitted: bool,
}

impl Rooms {
    /// Joins through the first of `servers` that lets the user in.
    pub(crate) async fn join_abroad(
        &self,
        who: &Requester,
        room_id: &RoomId,
        user_id: &UserId,
        servers: &[OwnedServerName],
        content: &Map<String, Value>,
    ) -> Result<Sent> {
        self.check_complexity(who, room_id, servers).await?;
        let proposed = self.propose(Abroad { room_id, user_id, membership: "join", servers, content }).await?;
        let servers = self.servers_for_send_join(servers, &proposed)?;
        let restricted = rules_of(&proposed.version)?.authorization.restricted_join_rule;
        let go_on: &[&str] = if restricted { &["M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN"] } else { &[] };
        let proposed = &proposed;
        let ask = |server: OwnedServerName| async move { self.send_join(&server, proposed).await }.boxed();
        let joined = self.first_answer("send_join", &servers, go_on, ask).await?;
        let enters = !self.cx.store.is_server_in_room(room_id, self.cx.config.server.name.as_str()).await?;
        let sent = self.accept_room(joined).await?;
        if enters && let Some(follow) = self.writing.entered.get() {
            follow(room_id.to_owned()).await;
        }
        Ok(sent)
    }

    /// Only the server that vouches for a restricted join can put it into the room.
    fn servers_for_send_join(&self, servers: &[OwnedServerName], proposed: &Proposed) -> Result<Vec<OwnedServerName>> {
        let voucher = proposed.built.pdu.content_str(crate::membership::AUTHORISED_VIA);
        match voucher.and_then(|v| ruma::OwnedUserId::try_from(v).ok()) {
            Some(user) => Ok(vec![user.server_name().to_owned()]),
            None => Ok(first(servers, &proposed.server)),
        }
    }

    fn send_join<'a>(&'a self, server: &'a ServerName, proposed: &'a Proposed) -> Boxed<'a, Result<RemoteRoom>> {
        Box::pin(async move {
            let pdu = &proposed.built.pdu;
            let event = outgoing(&proposed.built.json)?;
            let args = [pdu.room_id.as_str(), pdu.event_id.as_str()];
            let v2 = format!("{}?omit_members=false", path("v2/send_join", &args));
            let answer = match self.fed.put(server.as_str(), &v2, &event).await {
                Err(e) if e.is_unrecognized() => {
                    let v1 = path("v1/send_join", &args);
                    // [200, answer]
                    let mut answer = self.fed.put(server.as_str(), &v1, &event).await.map_err(unanswered)?;
                    answer.get_mut(1).map(Value::take).unwrap_or_default()
                }
                other => other.map_err(unanswered)?,
            };
            let answer: Answer = serde_json::from_value(answer).map_err(|e| bad_answer(server, &e.to_string()))?;
            self.check_joined(server, proposed, answer).await
        })
    }

    /// Signatures, hashes, and that the room is the one we meant to join.
    async fn check_joined(&self, server: &ServerName, proposed: &Proposed, answer: Answer) -> Result<RemoteRoom> {
        if answer.members_omitted {
            return Err(bad_answer(server, "members were left out though the whole state was asked for"));
        }
        let version = &proposed.version;
        let own = &proposed.built;
        let now = self.cx.now_ms();
        let mut join = rules::incoming::read(&own.json, version, now)?;
        if let Some(signed) =
            answer.event.filter(|_| rules_of(version).is_ok_and(|r| r.authorization.restricted_join_rule))
        {
            let mut read = self.verify_events(version, vec![signed], server).await?;
            join =
                read.pop().filter(|e| e.pdu.event_id == own.pdu.event_id).ok_or_else(|| bad_answer(server, "event"))?;
        }
        let state = self.verify_events(version, answer.state, server).await?;
        let auth_chain = self.verify_events(version, answer.auth_chain, server).await?;
        let create = state
            .iter()
            .find(|e| e.pdu.is_state_of("m.room.create", ""))
            .ok_or_else(|| bad_answer(server, "no create event"))?;
        let says = create.pdu.content_str("room_version").unwrap_or_else(|| "1".to_owned());
        if says != version.as_str() {
            return Err(bad_answer(server, "the room is of another version than it said"));
        }
        let other_create =
            |e: &&Incoming| e.pdu.is_state_of("m.room.create", "") && e.pdu.event_id != create.pdu.event_id;
        if auth_chain.iter().any(|e| other_create(&e)) {
            return Err(bad_answer(server, "more than one create event"));
        }
        if state.iter().chain(&auth_chain).any(|e| e.pdu.room_id != own.pdu.room_id) {
            return Err(bad_answer(server, "events of another room"));
        }
        Ok(RemoteRoom { version: version.clone(), join, state, auth_chain })
    }

    /// 400 if the room is larger than `limit_remote_rooms` allows, as far as one of the servers tells.
    async fn check_complexity(&self, who: &Requester, room_id: &RoomId, servers: &[OwnedServerName]) -> Result<()> {
        let Some(limit) = &self.cx.config.rooms.limit_remote_rooms else { return Ok(()) };
        if limit.admins_can_join && self.is_server_admin(who).await? {
            return Ok(());
        }
        let path = path("unstable/rooms", &[room_id.as_str(), "complexity"]);
        for server in servers {
            let Ok(answer) = self.fed.get(server.as_str(), &path).await else { continue };
            let Some(v1) = answer.get("v1").and_then(Value::as_f64) else { continue };
            return if v1 > limit.complexity { Err(too_complex(&limit.complexity_error)) } else { Ok(()) };
        }
        Ok(())
    }

    /// Servers whose users may let somebody into a restricted room when none of ours can.
    pub(crate) async fn servers_that_can_invite(&self, room_id: &RoomId) -> Result<Vec<OwnedServerName>> {
        let levels = Levels::of(&self.current_events(room_id, &crate::power::KEYS).await?);
        let members = self.cx.store.joined_members(room_id.as_str()).await?;
        let own = &self.cx.config.server.name;
        let able = members.iter().filter(|m| levels.of_user(&m.user_id) >= levels.to_invite());
        let mut seen = HashSet::new();
        let servers = able.map(|m| m.user_id.server_name()).filter(|s| *s != own && seen.insert(*s));
        Ok(servers.map(ToOwned::to_owned).collect())
    }
}

fn too_complex(text: &str) -> Error {
    Error::client(400, "M_RESOURCE_LIMIT_EXCEEDED", text.to_owned())
}
