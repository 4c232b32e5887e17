//! Reading state, members and single events.

use crate::access::Access;
use crate::visibility::history_visibility;
use crate::{Look, Rooms, Visible};
use ruma::{EventId, OwnedEventId, RoomId, UserId};
use std::sync::Arc;
use types::{Error, Pdu, Requester, Result, RoomToken};

/// Which state to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    All,
    /// One event type.
    OfType(&'a str),
}

impl Rooms {
    /// A room's state as a user may see it: current, or as it was when the user left.
    pub async fn state_for(&self, user_id: &UserId, room_id: &RoomId, part: Part<'_>) -> Result<Vec<Arc<Pdu>>> {
        match self.check_may_look(user_id, room_id, true).await? {
            Access::Departed(left) => self.state_after_event(&left, part).await,
            Access::Joined(_) | Access::Peeking => {
                let states = self.cx.store.current_states(&[room_id.as_str()]).await?;
                self.load_state(states.values().flat_map(|s| s.iter()), part).await
            }
        }
    }

    /// State as of a `/sync` or pagination token, if the user could see the room then.
    pub async fn state_at(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        token: &RoomToken,
        part: Part<'_>,
    ) -> Result<Vec<Arc<Pdu>>> {
        let last = self.cx.store.last_event_at(room_id.as_str(), token).await?;
        let last = last.ok_or_else(|| Error::not_found(format!("Can't find event for token {token}")))?;
        if !self.saw_state_at(user_id, room_id, &last).await? {
            let text = format!("User {user_id} not allowed to view events in room {room_id} at token {token}");
            return Err(Error::forbidden(text));
        }
        self.state_after_event(&last, part).await
    }

    /// One state event as a user may see it.
    pub async fn state_event_for(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        kind: &str,
        key: &str,
    ) -> Result<Option<Arc<Pdu>>> {
        match self.check_may_look(user_id, room_id, true).await? {
            Access::Departed(left) => {
                let state = self.state_after_event(&left, Part::OfType(kind)).await?;
                Ok(state.into_iter().find(|e| e.state_key.as_deref() == Some(key)))
            }
            Access::Joined(_) | Access::Peeking => self.current_event(room_id, kind, key).await,
        }
    }

    /// State after an event.
    pub async fn state_after_event(&self, event_id: &EventId, part: Part<'_>) -> Result<Vec<Arc<Pdu>>> {
        let states = self.cx.store.states_after(&[event_id]).await?;
        self.load_state(states.values().flat_map(|s| s.iter()), part).await
    }

    async fn load_state<'s>(
        &self,
        state: impl Iterator<Item = (&'s (String, String), &'s OwnedEventId)>,
        part: Part<'_>,
    ) -> Result<Vec<Arc<Pdu>>> {
        let wanted = state.filter(|((kind, _), _)| match part {
            Part::All => true,
            Part::OfType(only) => kind == only,
        });
        let ids: Vec<&OwnedEventId> = wanted.map(|(_, id)| id).collect();
        self.cx.store.events_in_order(&ids).await
    }

    /// Whether the user could see the room's state at an event.
    async fn saw_state_at(&self, user_id: &UserId, room_id: &RoomId, event_id: &EventId) -> Result<bool> {
        let store = &self.cx.store;
        let groups = store.groups_of_events(&[event_id]).await?;
        let Some(group) = groups.get(event_id) else { return Ok(false) };
        let mut seen = store.seen_in_groups(&[*group], user_id.as_str()).await?;
        let seen = seen.remove(group).unwrap_or_default();
        let ids: Vec<&OwnedEventId> = [&seen.visibility, &seen.membership].into_iter().flatten().collect();
        let events = store.events(&ids).await?;
        let membership = seen.membership.as_ref().and_then(|id| events.get(id)).and_then(|e| e.membership());
        let membership = membership.as_deref().unwrap_or_default();
        let visibility = history_visibility(seen.visibility.as_ref().and_then(|id| events.get(id)).map(|e| &**e));
        Ok(match visibility.as_str() {
            _ if membership == "join" => true,
            "joined" => false,
            _ if membership == "invite" => true,
            "invited" => false,
            "world_readable" => true,
            // Shared: only those who are in it now.
            _ => self.is_joined(user_id, room_id).await?,
        })
    }

    pub async fn is_joined(&self, user_id: &UserId, room_id: &RoomId) -> Result<bool> {
        let now = self.cx.store.local_membership(user_id.as_str(), room_id.as_str()).await?;
        Ok(now.is_some_and(|m| m.membership == "join"))
    }

    /// An event a user asks for by id. None: there is none in that room. Refused: 403.
    pub async fn event_for(&self, user_id: &UserId, room_id: &RoomId, event_id: &EventId) -> Result<Option<Visible>> {
        let Some(event) = self.known_event(room_id, event_id).await? else { return Ok(None) };
        let peeking = !self.is_joined(user_id, room_id).await?;
        let look = Look { peeking, ..Look::default() };
        match self.is_visible(user_id, event, look).await? {
            Some(visible) => Ok(Some(visible)),
            None => Err(Error::forbidden("You don't have permission to access that event.")),
        }
    }

    /// Joined members with their profiles; only for those who are in the room themselves (or whose
    /// application service has a user in it).
    pub async fn joined_members_for(
        &self,
        who: &Requester,
        room_id: &RoomId,
    ) -> Result<Vec<store::memberships::Member>> {
        if who.app_service.is_none() {
            let access = self.check_may_look(&who.user_id, room_id, true).await?;
            if matches!(access, Access::Departed(_)) {
                let text = "Getting joined members while not being a current member of the room is forbidden.";
                return Err(Error::forbidden(text));
            }
        }
        let members = self.cx.store.joined_members(room_id.as_str()).await?;
        if who.app_service.is_some() && !members.iter().any(|m| m.user_id == who.user_id) {
            return Err(Error::forbidden("Appservice not in room"));
        }
        Ok(members)
    }

    /// An accepted event of this room.
    pub async fn known_event(&self, room_id: &RoomId, event_id: &EventId) -> Result<Option<Arc<Pdu>>> {
        let event = self.cx.store.event(event_id).await?;
        Ok(event.filter(|e| e.room_id == *room_id && e.rejected.is_none()))
    }
}
