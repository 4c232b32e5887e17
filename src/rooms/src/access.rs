//! May somebody look into a room at all?

use crate::Rooms;
use crate::visibility::history_visibility;
use ruma::{OwnedEventId, RoomId, UserId};
use std::collections::HashMap;
use std::sync::Arc;
use types::{Boxed, Error, Pdu, Result};

/// How somebody is (or was) in a room.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    /// Joined; this is the membership event.
    Joined(OwnedEventId),
    /// Left (and has not forgotten it): sees the room as it was at this event.
    Departed(OwnedEventId),
    /// Never was in it, but it is world readable.
    Peeking,
}

impl Access {
    pub fn is_peeking(&self) -> bool {
        *self == Access::Peeking
    }
}

/// Events of current state by (type, state key).
pub type CurrentEvents = HashMap<(String, String), Arc<Pdu>>;

impl Rooms {
    /// Members, and with `departed` former members.
    pub async fn check_in_room(&self, user_id: &UserId, room_id: &RoomId, departed: bool) -> Result<Access> {
        let store = &self.cx.store;
        if let Some(m) = store.local_membership(user_id.as_str(), room_id.as_str()).await? {
            if m.membership == "join" {
                return Ok(Access::Joined(m.event_id.clone()));
            }
            if departed && m.membership == "leave" && !store.has_forgotten(user_id.as_str(), room_id.as_str()).await? {
                return Ok(Access::Departed(m.event_id.clone()));
            }
        }
        Err(Error::forbidden(format!("User {user_id} not in room {room_id}")))
    }

    /// As [`Rooms::check_in_room`], and anybody if the room is world readable.
    pub async fn check_may_look(&self, user_id: &UserId, room_id: &RoomId, departed: bool) -> Result<Access> {
        match self.check_in_room(user_id, room_id, departed).await {
            Err(Error::Client(_)) => {
                if self.is_world_readable(room_id).await? {
                    return Ok(Access::Peeking);
                }
                Err(Error::forbidden(format!("User {user_id} not in room {room_id}, and room previews are disabled")))
            }
            other => other,
        }
    }

    pub async fn is_world_readable(&self, room_id: &RoomId) -> Result<bool> {
        let event = self.current_event(room_id, "m.room.history_visibility", "").await?;
        Ok(event.is_some_and(|e| history_visibility(Some(&e)) == "world_readable"))
    }

    /// One event of current state, as the database has it.
    pub async fn current_event(&self, room_id: &RoomId, kind: &str, state_key: &str) -> Result<Option<Arc<Pdu>>> {
        Ok(self.current_events(room_id, &[(kind, state_key)]).await?.into_values().next())
    }

    /// Some events of current state; missing ones are left out.
    pub fn current_events<'a>(
        &'a self,
        room_id: &'a RoomId,
        keys: &'a [(&'a str, &'a str)],
    ) -> Boxed<'a, Result<CurrentEvents>> {
        Box::pin(async move {
            let store = &self.cx.store;
            let mut states = store.current_states(&[room_id.as_str()]).await?;
            let Some(state) = states.remove(room_id.as_str()) else { return Ok(CurrentEvents::new()) };
            let wanted = keys.iter().filter_map(|(k, s)| state.get(&((*k).to_owned(), (*s).to_owned())));
            let ids: Vec<&OwnedEventId> = wanted.collect();
            Ok(by_key(store.events(&ids).await?.into_values()))
        })
    }

    /// 404 unless the room is known here.
    pub async fn check_known(&self, room_id: &RoomId) -> Result<store::rooms::RoomRow> {
        let room = self.cx.store.room(room_id.as_str()).await?;
        room.ok_or_else(|| Error::not_found(format!("Unknown room {room_id}")))
    }
}

/// State events by what they say.
pub fn by_key(events: impl Iterator<Item = Arc<Pdu>>) -> CurrentEvents {
    events.filter_map(|e| Some(((e.kind.clone(), e.state_key.clone()?), e))).collect()
}
