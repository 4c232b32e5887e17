//! Caches `/sync` reads through, under Synapse's names.

use crate::membership_for_user::RoomSummary;
use crate::shown::{Kept, ShownStates};
use crate::sync_state::StateIds;
use crate::sync_timeline::Recent;
use crate::unread::CachedCounts;
use crate::{Cache, Registry, Row};
use std::collections::HashSet;
use std::sync::Arc;

pub(crate) struct SyncCaches {
    /// User → rooms joined.
    pub joined_rooms: Cache<String, Arc<Vec<String>>>,
    /// Room → users joined.
    pub room_members: Cache<String, Arc<Vec<String>>>,
    pub room_summary: Cache<String, Arc<RoomSummary>>,
    /// Room → current state.
    pub current_state_ids: Cache<String, Arc<StateIds>>,
    pub shown: ShownStates,
    /// State group → its full state.
    pub group_states: Cache<i64, Arc<StateIds>>,
    /// Room → its newest events.
    pub recent: Cache<String, Arc<Recent>>,
    /// Event → its state group.
    pub event_groups: Cache<String, i64>,
    /// User → whether its data was erased.
    pub erased: Cache<String, bool>,
    /// Event → types of the relations that point at it; most have none.
    pub relation_types: Cache<String, Arc<[String]>>,
    /// (room, user) → notification counts.
    pub unread: Cache<(String, String), CachedCounts>,
    /// The rooms whose state is not fully known, under no name.
    pub partial: Cache<String, Arc<HashSet<String>>>,
}

impl SyncCaches {
    pub fn new(registry: &Registry) -> Self {
        Self {
            joined_rooms: registry.weighed("get_rooms_for_user", 500_000, |rooms| rooms.len().max(25)),
            room_members: registry.weighed("get_users_in_room", 500_000, |users| users.len().max(100)),
            room_summary: registry.cache("get_room_summary", 10_000),
            current_state_ids: registry
                .weighed("get_partial_current_state_ids", 500_000, |state| state.len().max(1_000)),
            shown: registry.weighed("shown_state_of_room", 4 << 20, Kept::weight),
            group_states: registry.weighed("*stateGroupCache*", 250_000, |state| state.len().max(1_000)),
            recent: registry.weighed("recent_events_of_room", 20_000, |recent| recent.weight().max(10)),
            event_groups: registry.cache("_get_state_group_for_event", 10_000),
            erased: registry.cache("is_user_erased", 10_000),
            relation_types: registry.weighed("relation_types_of_event", 10_000, |types| types.len().max(1)),
            unread: registry.cache("get_unread_event_push_actions_by_room_for_user", 20_000),
            partial: registry.cache("get_partial_rooms", 1),
        }
    }

    fn forget_state_of(&self, room_id: &str) {
        self.current_state_ids.forget(room_id);
        self.shown.forget(room_id);
    }

    fn forget_members_of(&self, room_id: &str) {
        self.room_members.forget(room_id);
        self.room_summary.forget(room_id);
    }

    /// Events of a room (None: of any) were deleted. Which ones is not said.
    fn forget_history_of(&self, room_id: Option<&str>) {
        match room_id {
            Some(room_id) => self.recent.forget(room_id),
            None => self.recent.forget_all(),
        }
        self.event_groups.forget_all();
        self.shown.forget_all();
    }

    /// An event came to a room, or changed there. A relation that is gone (redacted) only costs a look in vain.
    fn forget_event_of(&self, room_id: &str, relates_to: Option<&str>) {
        self.recent.forget(room_id);
        relates_to.iter().for_each(|parent| self.relation_types.forget(*parent));
    }

    /// What a row makes these caches forget.
    pub fn obey(&self, row: &Row) {
        match row {
            Row::Event(e) => {
                self.forget_event_of(&e.room_id, e.relates_to.as_deref());
                if e.redacts.is_some() {
                    self.shown.forget(&e.room_id);
                }
            }
            Row::Backfill { room_id, relates_to, .. } => {
                self.forget_event_of(room_id, relates_to.as_deref());
                self.shown.forget(room_id);
            }
            Row::UnPartialStatedEvent { event_id, .. } => {
                self.event_groups.forget(event_id);
                self.shown.forget_all();
            }
            Row::UnPartialStatedRoom { .. } => self.partial.forget_all(),
            // Of which room the event is nobody says.
            Row::Cache { name, .. } if name == "_get_event_cache" => self.shown.forget_all(),
            Row::State { room_id, kind, state_key, .. } => {
                self.forget_state_of(room_id);
                if kind == "m.room.member" {
                    self.forget_members_of(room_id);
                    self.joined_rooms.forget(state_key);
                }
            }
            Row::StateAll { room_id } => {
                self.forget_state_of(room_id);
                self.forget_members_of(room_id);
                self.joined_rooms.forget_all();
            }
            // "Current state of the room changed", with the users whose membership did.
            Row::Cache { name, keys: Some(keys), .. } if name == "cs_cache_fake" => {
                if let Some((room_id, users)) = keys.split_first() {
                    self.forget_state_of(room_id);
                    self.forget_members_of(room_id);
                    users.iter().for_each(|u| self.joined_rooms.forget(u));
                }
            }
            // "History of the room was purged."
            Row::Cache { name, keys, .. } if name == "ph_cache_fake" => {
                self.forget_history_of(keys.as_ref().and_then(|keys| keys.first()).map(String::as_str));
            }
            // "The room was purged."
            Row::Cache { name, keys: Some(keys), .. } if name == "dr_cache_fake" => {
                if let Some(room_id) = keys.first() {
                    self.forget_state_of(room_id);
                    self.forget_members_of(room_id);
                    self.forget_history_of(Some(room_id));
                    self.joined_rooms.forget_all();
                    self.partial.forget_all();
                }
            }
            _ => {}
        }
    }
}
