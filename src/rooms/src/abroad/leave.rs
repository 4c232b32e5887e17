//! Declining invites of other servers and taking back knocks.

use super::{Abroad, path, unanswered};
use crate::{Rooms, Sent};
use futures::FutureExt;
use rules::build::{Draft, build, create_of_room, reference_to, rules_of};
use rules::proposal::outgoing;
use rules::{Built, Reference};
use ruma::{OwnedEventId, OwnedServerName};
use serde_json::{Map, Value, json};
use types::{Error, EventFormat, InternalMetadata, Pdu, Requester, Result, json::raw};

impl Rooms {
    /// Declines an invite from another server through the inviter's server. If that fails, the invite is gone
    /// here all the same.
    pub(crate) async fn decline(&self, who: &Requester, invite: &Pdu, content: &Map<String, Value>) -> Result<Sent> {
        let servers = [invite.sender.server_name().to_owned()];
        match self.leave_through(invite, &servers, content).await {
            Ok(built) => self.accept_membership(&invite.room_version, built.pdu, built.json).await,
            Err(e) => {
                slog::info!(self.cx.log, "an invite is declined without its server"; "room" => %invite.room_id, "error" => %e);
                self.leave_alone(who, invite, content).await
            }
        }
    }

    async fn leave_through(
        &self,
        invite: &Pdu,
        servers: &[OwnedServerName],
        content: &Map<String, Value>,
    ) -> Result<Built> {
        let user_id = target(invite)?;
        let wanted = Abroad { room_id: &invite.room_id, user_id: &user_id, membership: "leave", servers, content };
        let proposed = self.propose(wanted).await?;
        let event = outgoing(&proposed.built.json)?;
        let args = [invite.room_id.as_str(), proposed.built.pdu.event_id.as_str()];
        let (event, args) = (&event, &args);
        let ask = |server: OwnedServerName| {
            async move {
                let server = server.as_str();
                let answer = match self.fed.put(server, &path("v2/send_leave", args), event).await {
                    Err(e) if e.is_unrecognized() => self.fed.put(server, &path("v1/send_leave", args), event).await,
                    other => other,
                };
                answer.map_err(unanswered)
            }
            .boxed()
        };
        self.first_answer("send_leave", servers, &[], ask).await?;
        Ok(proposed.built)
    }

    /// Ends an invite or a knock with an event of our own that only we know of.
    pub(crate) async fn leave_alone(
        &self,
        who: &Requester,
        before: &Pdu,
        content: &Map<String, Value>,
    ) -> Result<Sent> {
        let user_id = target(before)?;
        let mut content = content.clone();
        content.insert("membership".into(), json!("leave"));
        let version = &before.room_version;
        let mut auth_ids: Vec<OwnedEventId> = before.auth_events.clone();
        auth_ids.push(before.event_id.clone());
        if rules_of(version)?.authorization.room_create_event_id_as_room_id {
            let create = create_of_room(&before.room_id)?;
            auth_ids.retain(|id| *id != create);
        }
        let names: Vec<&str> = auth_ids.iter().map(|id| id.as_str()).collect();
        let jsons = match EventFormat::of(version) {
            EventFormat::V1 => self.cx.store.event_jsons(&names).await?,
            _ => Default::default(),
        };
        let reference = |id: &OwnedEventId| match jsons.get(id.as_str()) {
            Some(json) => reference_to(id, json, version),
            None => Ok(Reference { id: id.clone(), hash: None }),
        };
        let auth_events = auth_ids.iter().map(reference).collect::<Result<Vec<_>>>()?;
        let now = self.cx.now_ms();
        let built = build(
            Draft {
                version,
                room_id: Some(&before.room_id),
                sender: &user_id,
                kind: "m.room.member",
                state_key: Some(user_id.as_str()),
                content: &raw(&content)?,
                redacts: None,
                origin_server_ts: now,
                depth: before.depth.saturating_add(1),
                prev_events: vec![reference(&before.event_id)?],
                auth_events,
                unsigned: Map::from_iter([("age_ts".to_owned(), json!(now))]),
                meta: InternalMetadata { device_id: who.device_id.clone(), ..InternalMetadata::default() },
                chosen_id: (EventFormat::of(version) == EventFormat::V1).then(|| self.new_event_id()).transpose()?,
            },
            &self.writing.signer,
        )?;
        self.accept_membership(version, built.pdu, built.json).await
    }
}

fn target(member: &Pdu) -> Result<ruma::OwnedUserId> {
    let key = member.state_key.as_deref().ok_or_else(|| Error::internal("a membership without a member"))?;
    Ok(key.try_into()?)
}
