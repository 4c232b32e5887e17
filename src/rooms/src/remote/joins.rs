//! Memberships of users of other servers in rooms this server is in: proposed to their server (`make_join` and its
//! like), and taken when it has signed them (`send_join`). And invites of users of this server.

use super::{Incoming, Judge, StateAnswer};
use crate::membership::AUTHORISED_VIA;
use crate::restricted::is_restricted;
use crate::{Rooms, Template};
use rules::build::rules_of;
use ruma::{RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Map, Value, json};
use types::{Error, InternalMetadata, Pdu, Result, canonical, json::raw};

/// A membership that was taken.
pub struct Taken {
    /// With our signature where it is needed.
    pub event: Value,
    /// State before it.
    pub state: StateAnswer,
    /// Servers in the room.
    pub servers: Vec<String>,
}

/// An invite as its sender's server sends it.
pub struct InviteQuestion<'a> {
    pub version: RoomVersionId,
    pub event: &'a Value,
    /// Stripped state of the room.
    pub state: Vec<Value>,
}

impl Rooms {
    /// The version of a room this server is in. 404 else.
    pub async fn active_room(&self, room_id: &RoomId) -> Result<RoomVersionId> {
        let unknown = || Error::not_found("Not an active room on this server");
        let version = self.room_version(room_id).await?.ok_or_else(unknown)?;
        let own = self.cx.config.server.name.as_str();
        if self.cx.store.is_server_in_room(room_id, own).await? { Ok(version) } else { Err(unknown()) }
    }

    /// A membership event for a user of another server, to be completed and signed there. `versions`: room versions
    /// the other server knows; None where it need not say.
    pub async fn propose_membership(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        membership: &str,
        versions: Option<&[&str]>,
    ) -> Result<Value> {
        if user_id.server_name() != origin {
            return Err(Error::forbidden("User not from origin server"));
        }
        let version = self.active_room(room_id).await?;
        self.check_server_allowed(room_id, origin).await?;
        if versions.is_some_and(|known| !known.contains(&version.as_str())) {
            let text = "Your homeserver does not support the features required to interact with this room";
            return Err(Error::client(400, "M_INCOMPATIBLE_ROOM_VERSION", text).with("room_version", version.as_str()));
        }
        let mut content = Map::from_iter([("membership".to_owned(), membership.into())]);
        if membership == "join"
            && let Some(voucher) = self.voucher_for(room_id, user_id).await?
        {
            content.insert(AUTHORISED_VIA.into(), voucher);
        }
        let template = Template::new(user_id.to_owned(), "m.room.member", raw(&content)?).state(user_id.as_str());
        Ok(json!({"room_version": version, "event": self.unsigned_event(room_id, &template).await?}))
    }

    /// Who of this server vouches for a join to a restricted room; None if nobody need.
    async fn voucher_for(&self, room_id: &RoomId, user_id: &UserId) -> Result<Option<Value>> {
        let member = ("m.room.member", user_id.as_str());
        let keys = [("m.room.join_rules", ""), ("m.room.power_levels", ""), ("m.room.create", ""), member];
        let state = self.current_events(room_id, &keys).await?;
        let of = |kind: &str, key: &str| state.get(&(kind.to_owned(), key.to_owned()));
        let before = of(member.0, member.1).and_then(|e| e.membership());
        let Some(join_rules) = of("m.room.join_rules", "").filter(|e| is_restricted(e)) else { return Ok(None) };
        if matches!(before.as_deref(), Some("join" | "invite")) {
            return Ok(None);
        }
        let voucher = self.authorise_restricted_join(room_id, user_id, join_rules, &state).await?;
        Ok(Some(voucher.as_str().into()))
    }

    /// An event on top of the room as it is, allowed by it, without hashes and signatures.
    async fn unsigned_event(&self, room_id: &RoomId, t: &Template) -> Result<Value> {
        let mut head = self.load(room_id).await?;
        let auth_ids = self.auth_ids(&head, t, false)?;
        let mut needed = auth_ids.clone();
        needed.extend(head.state_id("m.room.create", "").cloned());
        self.need(&mut head, &needed).await?;
        let built = self.build_on(&mut head, t, &auth_ids, InternalMetadata::default(), Map::new(), false).await?;
        self.authorise(&mut head, &built)?;
        let mut event: Map<String, Value> = serde_json::from_str(&built.json)?;
        event.retain(|key, _| !matches!(key.as_str(), "hashes" | "signatures" | "unsigned" | "event_id"));
        event.insert("origin".into(), self.cx.config.server.name.as_str().into());
        Ok(Value::Object(event))
    }

    /// Takes a membership event its sender's server has signed. 403 if it is not allowed in the room.
    pub async fn take_membership(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event: &Value,
        membership: &str,
    ) -> Result<Taken> {
        let version = self.active_room(room_id).await?;
        self.check_server_allowed(room_id, origin).await?;
        let mut event = self.verified(origin, &version, event).await?;
        check_own_membership(&event.pdu, origin, room_id, membership)?;
        if membership == "join" {
            self.countersign_restricted(room_id, &mut event).await?;
        }
        event.pdu.meta.send_on_behalf_of = Some(origin.to_string());
        let pdu = event.pdu.clone();
        let signed = event.json.clone();
        self.fetch_surroundings(origin, &pdu).await?;
        let placed = self.place_event(event, None, Judge::Live).await?;
        if placed.prepared.pdu.rejected.is_some() || placed.prepared.pdu.meta.soft_failed {
            return Err(Error::forbidden(format!("The room does not allow {} to {membership}", pdu.sender)));
        }
        let state = self.state_answer(&placed.before).await?;
        self.hand_remote(room_id, vec![placed.prepared], false).await?;
        let servers = self.cx.store.servers_in_room(room_id.as_str()).await?;
        let event = super::answer::wire_event(&pdu, &signed, false, self.cx.now_ms())?;
        Ok(Taken { event, state, servers })
    }

    /// Signs a join to a restricted room that names a user of this server as its voucher.
    async fn countersign_restricted(&self, room_id: &RoomId, event: &mut Incoming) -> Result<()> {
        let rules = rules_of(&event.pdu.room_version)?.authorization;
        let voucher = event.pdu.content_str(AUTHORISED_VIA).filter(|_| rules.restricted_join_rule);
        let Some(voucher) = voucher.and_then(|v| ruma::OwnedUserId::try_from(v).ok()) else { return Ok(()) };
        if voucher.server_name() != self.cx.config.server.name {
            return Ok(());
        }
        let user_id = event.pdu.sender.clone();
        // 403 if the user is in none of the rooms any more.
        self.voucher_for(room_id, &user_id).await?;
        self.sign_incoming(event)
    }

    /// Adds our signature to an event of another server.
    fn sign_incoming(&self, event: &mut Incoming) -> Result<()> {
        self.writing.signer.sign_event(&mut event.object, &event.pdu.room_version)?;
        let mut whole = canonical::parse(&event.json)?;
        whole.extend(event.object.get("signatures").map(|s| ("signatures".to_owned(), s.clone())));
        event.json = canonical::text(&whole);
        Ok(())
    }

    /// What a knocking user may know of the room.
    pub async fn knock_state(&self, room_id: &RoomId) -> Result<Vec<Value>> {
        let mut head = self.load(room_id).await?;
        self.stripped_state(&mut head, "").await
    }

    /// Takes an invite of a user of this server: signed, stored, shown to the user. Answers with the signed event.
    pub async fn take_invite(&self, origin: &ServerName, room_id: &RoomId, q: InviteQuestion<'_>) -> Result<Value> {
        rules_of(&q.version).map_err(|_| {
            let text = "This homeserver does not support the room's version";
            Error::client(400, "M_INCOMPATIBLE_ROOM_VERSION", text).with("room_version", q.version.as_str())
        })?;
        self.check_server_allowed(room_id, origin).await?;
        let mut event = self.verified(origin, &q.version, q.event).await?;
        let pdu = &event.pdu;
        if pdu.room_id != room_id || pdu.membership().as_deref() != Some("invite") {
            return Err(Error::bad_json("event: not an invite to this room"));
        }
        if pdu.sender.server_name() != origin {
            return Err(Error::bad_request("The invite event was not from the server sending it"));
        }
        let own = &self.cx.config.server.name;
        let target = pdu.state_key.as_deref().and_then(|k| <&UserId>::try_from(k).ok());
        if target.is_none_or(|u| u.server_name() != own) {
            return Err(Error::bad_request("The invite event must be for this server"));
        }
        if self.cx.store.is_blocked(room_id.as_str()).await? {
            return Err(Error::forbidden("This room has been blocked on this server"));
        }
        if self.cx.config.rooms.block_non_admin_invites {
            return Err(Error::forbidden("This server does not accept room invites"));
        }
        self.sign_incoming(&mut event)?;
        let answer = super::answer::wire_event(&event.pdu, &event.json, false, self.cx.now_ms())?;
        if self.cx.store.is_server_in_room(room_id, own.as_str()).await? {
            // It comes again as any event of the room.
            return Ok(answer);
        }
        let Incoming { mut pdu, json, .. } = event;
        pdu.unsigned.insert("invite_room_state".into(), stripped(&q.state).into());
        let json = crate::prepared::with_unsigned(&json, &pdu.stored_unsigned())?;
        self.accept_membership(&q.version, pdu, json).await?;
        Ok(answer)
    }
}

/// State of an invite as clients see it; servers may send whole events.
fn stripped(state: &[Value]) -> Vec<Value> {
    let keys = ["type", "state_key", "content", "sender"];
    state
        .iter()
        .filter_map(Value::as_object)
        .map(|e| {
            Value::Object(
                e.iter().filter(|(k, _)| keys.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect(),
            )
        })
        .collect()
}

fn check_own_membership(pdu: &Pdu, origin: &ServerName, room_id: &RoomId, membership: &str) -> Result<()> {
    let wrong = |what: &str| Err(Error::bad_request(format!("event: {what}")));
    if pdu.room_id != room_id {
        return wrong("not of this room");
    }
    if pdu.membership().as_deref() != Some(membership) {
        return wrong("not the membership of this endpoint");
    }
    if pdu.state_key.as_deref() != Some(pdu.sender.as_str()) {
        return wrong("state_key is not the sender");
    }
    if pdu.sender.server_name() != origin {
        return Err(Error::forbidden("User not from origin server"));
    }
    Ok(())
}
