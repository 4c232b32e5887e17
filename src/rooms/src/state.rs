//! Reading rooms, on any process.

use crate::{Rooms, StateMap};
use ruma::{EventId, RoomId, RoomVersionId};
use std::sync::Arc;
use types::{Pdu, Result};

impl Rooms {
    /// A room's version; None if the room is unknown.
    pub async fn room_version(&self, room_id: &RoomId) -> Result<Option<RoomVersionId>> {
        self.cx.store.room_version(room_id).await
    }

    /// Current state of a room, as committed.
    pub async fn current_state(&self, room_id: &RoomId) -> Result<StateMap> {
        self.cx.store.current_state(room_id).await
    }

    /// One event of the current state, as committed.
    pub async fn state_event(&self, room_id: &RoomId, kind: &str, state_key: &str) -> Result<Option<Arc<Pdu>>> {
        match self.cx.store.current_state_id(room_id, kind, state_key).await? {
            Some(id) => self.cx.store.event(&id).await,
            None => Ok(None),
        }
    }

    /// State after a state event, or at a message. None if it is not known (outliers).
    pub async fn state_after(&self, event_id: &EventId) -> Result<Option<StateMap>> {
        let groups = self.cx.store.groups_of_events(&[event_id]).await?;
        match groups.get(event_id) {
            Some(group) => Ok(Some(self.cx.store.state_of_group(*group).await?.state.clone())),
            None => Ok(None),
        }
    }

    /// State before an event. None if it is not known.
    pub async fn state_before(&self, event: &Pdu) -> Result<Option<StateMap>> {
        let Some(key) = &event.state_key else { return self.state_after(&event.event_id).await };
        let store = &self.cx.store;
        let groups = store.groups_of_events(&[&event.event_id]).await?;
        let Some(group) = groups.get(&event.event_id) else { return Ok(None) };
        if event.rejected.is_some() {
            return Ok(Some(store.state_of_group(*group).await?.state.clone()));
        }
        if let Some(before) = store.group_before(&event.event_id, *group).await? {
            return Ok(Some(store.state_of_group(before).await?.state.clone()));
        }
        if let [prev] = &event.prev_events[..] {
            return self.state_after(prev).await;
        }
        // The group holds its state in full: take the event out again.
        let mut state = store.state_of_group(*group).await?.state.clone();
        let entry = (event.kind.clone(), key.clone());
        match event.unsigned.get("replaces_state").and_then(|v| v.as_str()) {
            Some(replaced) => state.insert(entry, replaced.try_into()?),
            None => state.remove(&entry),
        };
        Ok(Some(state))
    }
}
