//! Caches `/sync` reads through, under Synapse's names.

use crate::membership_for_user::RoomSummary;
use crate::sync_state::StateIds;
use crate::unread::CachedCounts;
use crate::{Cache, Registry, Row};
use std::sync::Arc;

pub(crate) struct SyncCaches {
    /// User → rooms joined.
    pub joined_rooms: Cache<String, Arc<Vec<String>>>,
    /// Room → users joined.
    pub room_members: Cache<String, Arc<Vec<String>>>,
    pub room_summary: Cache<String, Arc<RoomSummary>>,
    /// Room → current state.
    pub current_state_ids: Cache<String, Arc<StateIds>>,
    /// State group → its full state.
    pub group_states: Cache<i64, Arc<StateIds>>,
    /// (room, user) → notification counts.
    pub unread: Cache<(String, String), CachedCounts>,
}

impl SyncCaches {
    /// `sized` scales a capacity by the configured factor: entries, or for the weighed caches what is in their lists.
    pub fn new(registry: &Registry, sized: impl Fn(usize) -> usize) -> Self {
        Self {
            joined_rooms: registry.weighed("get_rooms_for_user", sized(500_000), |rooms| rooms.len().max(25)),
            room_members: registry.weighed("get_users_in_room", sized(500_000), |users| users.len().max(100)),
            room_summary: registry.cache("get_room_summary", sized(10_000)),
            current_state_ids: registry.weighed("get_partial_current_state_ids", sized(500_000), |state| state.len().max(1_000)),
            group_states: registry.weighed("*stateGroupCache*", sized(250_000), |state| state.len().max(1_000)),
            unread: registry.cache("get_unread_event_push_actions_by_room_for_user", sized(20_000)),
        }
    }

    fn forget_state_of(&self, room_id: &str) {
        self.current_state_ids.forget(room_id);
    }

    fn forget_members_of(&self, room_id: &str) {
        self.room_members.forget(room_id);
        self.room_summary.forget(room_id);
    }

    /// What a row makes these caches forget.
    pub fn obey(&self, row: &Row) {
        match row {
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
            // "The room was purged."
            Row::Cache { name, keys: Some(keys), .. } if name == "dr_cache_fake" => {
                if let Some(room_id) = keys.first() {
                    self.forget_state_of(room_id);
                    self.forget_members_of(room_id);
                    self.joined_rooms.forget_all();
                }
            }
            _ => {}
        }
    }
}
