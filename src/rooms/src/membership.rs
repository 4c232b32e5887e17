//! Changing memberships: the policy of this server on top of the authorisation rules.

use crate::{Rooms, Sent, Template, restricted};
use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value};
use slog::warn;
use std::sync::Arc;
use store::standing::Standing;
use types::{Boxed, Error, Pdu, Requester, Result, json::raw};

/// What is to become of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Join,
    Invite,
    Leave,
    Kick,
    Ban,
    Unban,
    Knock,
}

impl Action {
    /// By the name in a path, or by a value of `membership`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "join" => Self::Join,
            "invite" => Self::Invite,
            "leave" => Self::Leave,
            "kick" => Self::Kick,
            "ban" => Self::Ban,
            "unban" => Self::Unban,
            "knock" => Self::Knock,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Kick => "kick",
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::Knock => "knock",
        }
    }

    /// The `membership` it leads to.
    pub fn membership(self) -> &'static str {
        match self {
            Self::Kick | Self::Unban => "leave",
            other => other.name(),
        }
    }
}

/// A change somebody asks for.
#[derive(Clone, Debug)]
pub struct Change {
    pub target: OwnedUserId,
    pub action: Action,
    /// Further keys of the content, such as `reason`.
    pub content: Map<String, Value>,
    pub txn_id: Option<String>,
    /// Application services may set it. Milliseconds.
    pub origin_server_ts: Option<i64>,
    /// Servers to join or knock through.
    pub via: Vec<OwnedServerName>,
}

impl Change {
    pub fn new(target: OwnedUserId, action: Action) -> Self {
        Self { target, action, content: Map::new(), txn_id: None, origin_server_ts: None, via: Vec::new() }
    }

    /// With servers to join or knock through.
    pub fn via(mut self, servers: Vec<OwnedServerName>) -> Self {
        self.via = servers;
        self
    }

    /// With a content given by the client.
    pub fn content(mut self, content: Map<String, Value>) -> Self {
        self.content = content;
        self
    }
}

/// Characters of a display name and of an avatar URL.
const MAX_DISPLAYNAME: usize = 256;
const MAX_AVATAR_URL: usize = 1000;

/// Key of the content that names who vouches for a join to a restricted room.
pub(crate) const AUTHORISED_VIA: &str = "join_authorised_via_users_server";

/// The target's membership event, with its membership.
struct Before {
    event: Arc<Pdu>,
    membership: String,
}

impl Rooms {
    /// Changes a membership. What is so already stays as it is and is answered with the event that made it so.
    pub fn change_membership<'a>(
        &'a self,
        who: &'a Requester,
        room_id: &'a RoomId,
        change: Change,
    ) -> Boxed<'a, Result<Sent>> {
        Box::pin(async move {
            let mut content = change.content.clone();
            self.check_suspended(who, &change).await?;
            self.check_profile(who, &mut content)?;
            content.remove(AUTHORISED_VIA);
            let store = &self.cx.store;
            let mut standing = store.standing(room_id.as_str(), change.target.as_str()).await?;
            let turn = self.writing.turns.of(room_id);
            let _turn = if standing.host_in_room {
                None
            } else {
                // Somebody of ours may be joining just now.
                let turn = turn.lock().await;
                standing = store.standing(room_id.as_str(), change.target.as_str()).await?;
                Some(turn)
            };
            let membership = change.action.membership();
            if standing.is_blocked && !matches!(membership, "leave" | "ban") {
                return Err(Error::client(403, "M_UNKNOWN", "This room has been blocked on this server"));
            }
            if self.names_are_added(membership) {
                add_names(&mut content, &standing);
            }
            if change.action == Action::Invite {
                self.check_may_invite(who, &change.target).await?;
            }
            content.insert("membership".into(), membership.into());
            if who.is_guest {
                content.insert("kind".into(), "guest".into());
            }
            let before = self.before(&standing).await?;
            if standing.host_in_room {
                check_transition(change.action, before.as_ref())?;
                if let Some(same) = same_as_before(who, &content, before.as_ref(), room_id) {
                    return Ok(same);
                }
                if change.action == Action::Join
                    && let Some(sent) =
                        self.join_known(who, room_id, &change, &standing, before.as_ref(), &mut content).await?
                {
                    return Ok(sent);
                }
            } else if let Some(sent) = self.change_abroad(who, room_id, &change, &content).await? {
                return Ok(sent);
            }
            let mut template =
                Template::new(who.user_id.clone(), "m.room.member", raw(&content)?).state(change.target.as_str());
            template.txn_id = change.txn_id;
            template.origin_server_ts = change.origin_server_ts;
            let sent = self.send(who, room_id, template).await?;
            if membership == "leave" && change.target == who.user_id && self.cx.config.rooms.forget_on_leave {
                store.forget_room(who.user_id.as_str(), room_id.as_str()).await?;
            }
            Ok(sent)
        })
    }

    /// Prepares a join to a room this server is in. Some: nobody here could let the user in, another server did.
    async fn join_known(
        &self,
        who: &Requester,
        room_id: &RoomId,
        change: &Change,
        standing: &Standing,
        before: Option<&Before>,
        content: &mut Map<String, Value>,
    ) -> Result<Option<Sent>> {
        let Err(refused) = self.prepare_join(who, room_id, &change.target, standing, before, content).await else {
            return Ok(None);
        };
        if matches!(refused.errcode(), Some("M_UNABLE_TO_GRANT_JOIN" | "M_UNABLE_TO_AUTHORISE_JOIN")) {
            let servers = self.servers_that_can_invite(room_id).await?;
            if !servers.is_empty() {
                return self.join_through(who, room_id, &change.target, servers, content.clone()).await.map(Some);
            }
        }
        Err(refused)
    }

    async fn check_suspended(&self, who: &Requester, change: &Change) -> Result<()> {
        let is_suspended = async |user: &UserId| -> Result<bool> {
            Ok(self.cx.store.user(user.as_str()).await?.is_some_and(|u| u.suspended))
        };
        let (user, doing) = match change.action {
            Action::Invite => (&who.user_id, "Sending invites"),
            Action::Join => (&change.target, "Joining rooms"),
            Action::Knock => (&change.target, "Knocking on rooms"),
            _ => return Ok(()),
        };
        if is_suspended(user).await? {
            let text = format!("{doing} while account is suspended is not allowed.");
            return Err(Error::client(403, "M_USER_SUSPENDED", text));
        }
        Ok(())
    }

    fn check_profile(&self, who: &Requester, content: &mut Map<String, Value>) -> Result<()> {
        if !self.cx.config.rooms.allow_per_room_profiles || who.shadow_banned {
            content.remove("displayname");
            content.remove("avatar_url");
        }
        let length = |key: &str| content.get(key).and_then(Value::as_str).map_or(0, |s| s.chars().count());
        if length("displayname") > MAX_DISPLAYNAME {
            return Err(Error::bad_json(format!("Displayname is too long (max {MAX_DISPLAYNAME})")));
        }
        if length("avatar_url") > MAX_AVATAR_URL {
            return Err(Error::bad_json(format!("Avatar URL is too long (max {MAX_AVATAR_URL})")));
        }
        Ok(())
    }

    /// Memberships whose events carry the target's name and avatar.
    fn names_are_added(&self, membership: &str) -> bool {
        match membership {
            "join" | "knock" => true,
            "invite" => self.cx.config.directory.include_profile_data_on_invite,
            _ => false,
        }
    }

    async fn check_may_invite(&self, who: &Requester, target: &UserId) -> Result<()> {
        if let Some(notices) = &self.cx.config.server_notices
            && self.is_local_user(target)
            && target.localpart() == notices.system_mxid_localpart
        {
            return Err(Error::client(403, "M_UNKNOWN", "Cannot invite this user"));
        }
        if self.cx.config.rooms.block_non_admin_invites && !self.is_server_admin(who).await? {
            return Err(Error::forbidden("Invites have been disabled on this server"));
        }
        Ok(())
    }

    async fn before(&self, standing: &Standing) -> Result<Option<Before>> {
        let Some(id) = standing.state.get("m.room.member") else { return Ok(None) };
        let event = self.cx.store.event(id).await?;
        Ok(event.map(|event| Before { membership: event.membership().unwrap_or_default(), event }))
    }

    /// Guests, and rooms whose members may join because they are in another room.
    async fn prepare_join(
        &self,
        who: &Requester,
        room_id: &RoomId,
        target: &UserId,
        standing: &Standing,
        before: Option<&Before>,
        content: &mut Map<String, Value>,
    ) -> Result<()> {
        let wanted: Vec<_> = standing.state.iter().filter(|(k, _)| *k != "m.room.member").map(|(_, id)| id).collect();
        let state = crate::access::by_key(self.cx.store.events(&wanted).await?.into_values());
        if who.is_guest {
            let access = state.get(&("m.room.guest_access".to_owned(), String::new()));
            if access.and_then(|e| e.content_str("guest_access")).as_deref() != Some("can_join") {
                return Err(Error::forbidden("Guest access not allowed"));
            }
        }
        if before.is_some_and(|b| matches!(b.membership.as_str(), "join" | "invite")) {
            return Ok(());
        }
        let rules = state.get(&("m.room.join_rules".to_owned(), String::new()));
        let Some(rules) = rules.filter(|e| restricted::is_restricted(e)) else { return Ok(()) };
        let via = self.authorise_restricted_join(room_id, target, rules, &state).await?;
        content.insert(AUTHORISED_VIA.into(), via.as_str().into());
        Ok(())
    }

    /// Lets this server's guests leave a room that is closed to them. Who cannot leave stays.
    pub async fn dismiss_guests(&self, room_id: &RoomId) {
        let guests = self.cx.store.guests_in(room_id.as_str()).await;
        let guests =
            guests.inspect_err(|e| warn!(self.cx.log, "guests were not found"; "room" => %room_id, "error" => %e));
        for guest in guests.unwrap_or_default() {
            let who = Requester { is_guest: true, ..Requester::for_user(&guest) };
            let change = Change::new(guest.clone(), Action::Leave);
            if let Err(e) = self.change_membership(&who, room_id, change).await {
                warn!(self.cx.log, "a guest did not leave"; "room" => %room_id, "guest" => %guest, "error" => %e);
            }
        }
    }

    /// Forgets a room that was left.
    pub async fn forget(&self, user_id: &UserId, room_id: &RoomId) -> Result<()> {
        let current = self.cx.store.local_membership(user_id.as_str(), room_id.as_str()).await?;
        if let Some(m) = current
            && !matches!(m.membership.as_str(), "leave" | "ban")
        {
            return Err(Error::bad_request(format!("User {user_id} in room {room_id}")));
        }
        self.cx.store.forget_room(user_id.as_str(), room_id.as_str()).await
    }
}

fn add_names(content: &mut Map<String, Value>, standing: &Standing) {
    for (key, value) in [("displayname", &standing.displayname), ("avatar_url", &standing.avatar_url)] {
        if let (Some(value), false) = (value, content.contains_key(key)) {
            content.insert(key.into(), value.as_str().into());
        }
    }
}

/// Changes that make no sense from where the target stands.
fn check_transition(action: Action, before: Option<&Before>) -> Result<()> {
    let bad_state = |text: String| Err(Error::client(403, "M_BAD_STATE", text));
    let Some(before) = before else {
        return match action {
            Action::Kick => Err(Error::forbidden("The target user is not in the room")),
            _ => Ok(()),
        };
    };
    let membership = before.membership.as_str();
    if action == Action::Unban && membership != "ban" {
        return bad_state(format!("Cannot unban user who was not banned (membership={membership})"));
    }
    if membership == "ban" && !matches!(action, Action::Ban | Action::Unban | Action::Leave) {
        return bad_state(format!("Cannot {} user who was banned", action.name()));
    }
    if action == Action::Kick && matches!(membership, "ban" | "leave") {
        return Err(Error::forbidden("The target user is not in the room"));
    }
    Ok(())
}

/// The event that stands, if the wanted one would say the same.
fn same_as_before(
    who: &Requester,
    content: &Map<String, Value>,
    before: Option<&Before>,
    room_id: &RoomId,
) -> Option<Sent> {
    let event = &before?.event;
    if event.sender != who.user_id || event.content_as::<Map<String, Value>>().ok()? != *content {
        return None;
    }
    Some(Sent {
        event_id: event.event_id.clone(),
        room_id: room_id.to_owned(),
        stream_ordering: event.stream_ordering?,
        instance: event.instance_name.clone().unwrap_or_else(|| types::MASTER.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(membership: &str) -> Before {
        let json = format!(
            r#"{{"type":"m.room.member","state_key":"@u:a","sender":"@u:a","room_id":"!r:a",
                "content":{{"membership":"{membership}"}},"origin_server_ts":1}}"#
        );
        let event = Pdu::parse(&json, ruma::event_id!("$e"), &ruma::RoomVersionId::V10).unwrap();
        Before { membership: membership.into(), event: Arc::new(event) }
    }

    #[test]
    fn senseless_changes_are_refused_with_synapses_codes() {
        for (action, from, code) in [
            (Action::Unban, Some("join"), Some("M_BAD_STATE")),
            (Action::Unban, Some("ban"), None),
            (Action::Join, Some("ban"), Some("M_BAD_STATE")),
            (Action::Invite, Some("ban"), Some("M_BAD_STATE")),
            (Action::Kick, None, Some("M_FORBIDDEN")),
            (Action::Kick, Some("leave"), Some("M_FORBIDDEN")),
            (Action::Kick, Some("join"), None),
            (Action::Leave, Some("ban"), None),
            (Action::Ban, None, None),
        ] {
            let before = from.map(before);
            let result = check_transition(action, before.as_ref());
            assert_eq!(
                result.err().and_then(|e| e.errcode().map(str::to_owned)).as_deref(),
                code,
                "{action:?} {from:?}"
            );
        }
    }

    #[test]
    fn joining_twice_answers_with_the_first_event() {
        let who = Requester::for_user(ruma::user_id!("@u:a"));
        let mut was = before("join");
        let mut event = (*was.event).clone();
        event.stream_ordering = Some(7);
        was.event = Arc::new(event);
        let content: Map<String, Value> = serde_json::from_str(r#"{"membership":"join"}"#).unwrap();
        let room = ruma::room_id!("!r:a");
        assert_eq!(same_as_before(&who, &content, Some(&was), room).unwrap().stream_ordering, 7);
        let other: Map<String, Value> = serde_json::from_str(r#"{"membership":"join","displayname":"x"}"#).unwrap();
        assert!(same_as_before(&who, &other, Some(&was), room).is_none());
        let stranger = Requester::for_user(ruma::user_id!("@s:a"));
        assert!(same_as_before(&stranger, &content, Some(&was), room).is_none());
    }
}
