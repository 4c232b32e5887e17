//! Rooms' current states, kept as clients see them.

use crate::membership_for_user::split_cached;
use crate::sync_state::StateIds;
use crate::{Cache, Store};
use ruma::OwnedEventId;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use types::shown::{Shown, ShownState};
use types::{Pdu, Result};

/// Larger states are not kept ready.
const MAX_EVENTS: usize = 1_000;
/// Rooms made ready at once: their events are in memory meanwhile.
const AT_ONCE: usize = 20;

/// A state made ready, and of which ids. The ids are not kept alive by it, but no others can take their address.
#[derive(Clone)]
pub(crate) struct Kept {
    of: Weak<StateIds>,
    shown: Arc<ShownState>,
    weight: usize,
}

impl Kept {
    /// Bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    fn is_of(&self, ids: &Arc<StateIds>) -> bool {
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(ids))
    }
}

/// Room → what clients see of its current state.
pub(crate) type ShownStates = Cache<String, Kept>;

impl Store {
    /// These states (of [`Store::current_states`]) as clients see them, without `m.room.aliases`, which no client gets.
    /// Large ones are left out.
    pub async fn shown_states(
        &self,
        states: &HashMap<String, Arc<StateIds>>,
    ) -> Result<HashMap<String, Arc<ShownState>>> {
        let small: Vec<&str> =
            states.iter().filter(|(_, ids)| ids.len() <= MAX_EVENTS).map(|(r, _)| r.as_str()).collect();
        let (kept, mut missing) = split_cached(&self.sync.shown, &small);
        let mut shown = HashMap::with_capacity(small.len());
        for (room, kept) in kept {
            if kept.is_of(&states[&room]) {
                shown.insert(room, kept.shown);
            } else {
                missing.extend(small.iter().find(|r| **r == room));
            }
        }
        for rooms in missing.chunks(AT_ONCE) {
            let stamps: Vec<_> = rooms.iter().map(|r| self.sync.shown.stamp(*r)).collect();
            let made = self.make_ready(rooms.iter().map(|r| &*states[*r])).await?;
            for ((room, stamp), made) in rooms.iter().zip(stamps).zip(made) {
                let weight = size_of::<Kept>() + room.len() + made.events.iter().map(Shown::weight).sum::<usize>();
                let kept = Kept { of: Arc::downgrade(&states[*room]), shown: Arc::new(made), weight };
                shown.insert((*room).to_owned(), kept.shown.clone());
                self.sync.shown.put_since(stamp, (*room).to_owned(), kept);
            }
        }
        Ok(shown)
    }

    async fn make_ready(&self, states: impl Iterator<Item = &StateIds>) -> Result<Vec<ShownState>> {
        let states: Vec<&StateIds> = states.collect();
        let ids: Vec<&OwnedEventId> = states.iter().flat_map(|ids| ids.values()).collect();
        let events = self.events(&ids).await?;
        let old: Vec<OwnedEventId> = events.values().filter_map(|e| e.replaces_state()).collect();
        let old = self.events(&old).await?;
        let mut made = Vec::with_capacity(states.len());
        for ids in states {
            let told = |e: &&Arc<Pdu>| e.kind != "m.room.aliases" && e.rejected.is_none();
            let mut list: Vec<&Arc<Pdu>> = ids.values().filter_map(|id| events.get(id)).filter(told).collect();
            list.sort_by_key(|e| e.stream());
            let mut state = ShownState::default();
            for event in list {
                let previous = event.replaces_state().and_then(|id| old.get(&id)).map(|e| &**e);
                match Shown::of(event, previous)? {
                    Some(shown) => state.events.push(shown),
                    None => state.others.push(event.event_id.clone()),
                }
            }
            state.events.shrink_to_fit();
            made.push(state);
        }
        Ok(made)
    }
}
