//! Rooms one may join because one is in another room (spec: "Restricted rooms").

use crate::Rooms;
use crate::access::CurrentEvents;
use crate::power::Levels;
use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value};
use types::{Error, Pdu, Result};

/// Whether join rules let members of other rooms in, in this room version.
pub(crate) fn is_restricted(join_rules: &Pdu) -> bool {
    let rules = types::room_version::rules(&join_rules.room_version).map(|r| r.authorization);
    let Some(rules) = rules else { return false };
    match join_rules.content_str("join_rule").as_deref() {
        Some("restricted") => rules.restricted_join_rule,
        Some("knock_restricted") => rules.knock_restricted_join_rule,
        _ => false,
    }
}

/// Rooms whose members may join, and whether there are conditions this server does not know.
pub(crate) fn allowed_rooms(join_rules: &Pdu) -> (Vec<String>, bool) {
    let content: Map<String, Value> = join_rules.content_as().unwrap_or_default();
    let Some(Value::Array(allow)) = content.get("allow") else { return (Vec::new(), false) };
    let mut rooms = Vec::new();
    let mut has_unknown = false;
    for condition in allow.iter().filter(|c| c.is_object()) {
        if condition.get("type").and_then(Value::as_str) != Some("m.room_membership") {
            has_unknown = true;
        } else if let Some(room) = condition.get("room_id").and_then(Value::as_str) {
            rooms.push(room.to_owned());
        }
    }
    (rooms, has_unknown)
}

impl Rooms {
    /// A local member who may invite and so vouches for the join of `user_id`.
    pub(crate) async fn authorise_restricted_join(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        join_rules: &Pdu,
        state: &CurrentEvents,
    ) -> Result<OwnedUserId> {
        let levels = Levels::of(state);
        let members = self.cx.store.local_users_in(room_id.as_str()).await?;
        let voucher = members.into_iter().find(|m| levels.of_user(m) >= levels.to_invite());
        let Some(voucher) = voucher else {
            return Err(Error::client(
                400,
                "M_UNABLE_TO_GRANT_JOIN",
                "Unable to find a user which could issue an invite",
            ));
        };
        let (rooms, has_unknown) = allowed_rooms(join_rules);
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        if !rooms.is_empty() && !self.cx.store.joined_among(user_id.as_str(), &rooms).await?.is_empty() {
            return Ok(voucher);
        }
        if has_unknown {
            let text = "Unrecognized restricted join rules found.";
            return Err(Error::client(400, "M_UNABLE_TO_AUTHORISE_JOIN", text));
        }
        Err(Error::forbidden("You do not belong to any of the required rooms/spaces to join this room."))
    }
}
