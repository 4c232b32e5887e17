//! Caches of what the writers of rooms look up.

use crate::push_rules_of::UserRules;
use crate::state_groups::GroupState;
use crate::{Cache, Registry, Row};
use ruma::RoomVersionId;
use std::sync::Arc;

pub(crate) struct WriterCaches {
    pub push_rules: Cache<String, Arc<UserRules>>,
    pub groups: Cache<i64, Arc<GroupState>>,
    pub versions: Cache<String, RoomVersionId>,
}

impl WriterCaches {
    pub fn new(registry: &Registry) -> Self {
        Self {
            push_rules: registry.cache("bulk_get_push_rules", 50_000),
            groups: registry.weighed("state_of_group", 250_000, |known| known.state.len().max(1_000)),
            versions: registry.cache("get_room_version_id", 20_000),
        }
    }

    /// What a row makes these caches forget.
    pub fn obey(&self, row: &Row) {
        match row {
            Row::PushRules { user_id } => self.push_rules.forget(user_id),
            Row::Cache { name, keys: Some(keys), .. } if name == "dr_cache_fake" => {
                if let Some(room_id) = keys.first() {
                    self.versions.forget(room_id);
                }
            }
            _ => {}
        }
    }
}
