//! Caches of what is known of rooms and of who is in them, under Synapse's names.

use crate::memberships::MembershipCache;
use crate::{Cache, Registry, Row};
use std::collections::HashSet;
use std::sync::Arc;

pub(crate) struct RoomCaches {
    pub local_memberships: MembershipCache,
    pub blocked: Cache<String, bool>,
    pub ignored: Cache<String, Arc<HashSet<String>>>,
}

impl RoomCaches {
    pub fn new(registry: &Registry) -> Self {
        Self {
            local_memberships: registry.cache("get_local_current_membership_for_user_in_room", 50_000),
            blocked: registry.cache("is_room_blocked", 10_000),
            ignored: registry.cache("ignored_users", 10_000),
        }
    }

    /// What a row makes these caches forget.
    pub fn obey(&self, row: &Row) {
        match row {
            Row::Event(e) if e.kind == "m.room.member" => {
                if let Some(user_id) = &e.state_key {
                    self.local_memberships.forget(&(user_id.clone(), e.room_id.clone()));
                }
            }
            Row::State { room_id, kind, state_key, .. } if kind == "m.room.member" => {
                self.local_memberships.forget(&(state_key.clone(), room_id.clone()));
            }
            Row::StateAll { .. } => self.local_memberships.forget_all(),
            Row::AccountData { user_id, kind, .. } if kind == "m.ignored_user_list" => self.ignored.forget(user_id),
            _ => {}
        }
    }
}
