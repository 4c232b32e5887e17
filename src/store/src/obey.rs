//! What every process must drop when a row arrives, or was written here: the one list.

use crate::{EventRow, Row, Store};

/// Names in the `caches` stream under which Synapse keeps what we keep in another cache.
const ALIASES: &[(&str, &str)] = &[
    ("get_push_rules_for_user", "bulk_get_push_rules"),
    ("get_user_deactivated_status", "get_user_by_id"),
    ("get_user_locked_status", "get_user_by_id"),
    ("get_user_suspended_status", "get_user_by_id"),
    ("is_guest", "get_user_by_id"),
    ("is_server_admin", "get_user_by_id"),
    ("is_user_approved", "get_user_by_id"),
    ("get_users_in_room_with_profiles", "get_users_in_room"),
];

impl Store {
    /// Obeys one row of any stream.
    pub(crate) fn obey(&self, row: &Row) {
        self.room_caches.obey(row);
        self.writer_caches.obey(row);
        match row {
            Row::Cache { name, keys, .. } => self.obey_cache_row(name, keys.as_deref()),
            Row::Event(e) => self.obey_event(e),
            Row::Backfill { event_id, redacts, .. } => {
                self.forget_event(event_id);
                redacts.iter().for_each(|r| self.forget_event(r));
            }
            Row::UnPartialStatedEvent { event_id, .. } => self.forget_event(event_id),
            _ => {}
        }
        // After the events: what is made from cached ones is kept there.
        self.sync.obey(row);
    }

    fn obey_event(&self, e: &EventRow) {
        if let Some(redacted) = &e.redacts {
            self.forget_event(redacted);
        }
        // An event may have been known as an outlier, or before it was rejected. One that is known as it is stays.
        if self
            .event_cache
            .get(e.event_id.as_str())
            .is_some_and(|known| known.outlier != e.outlier || known.rejected.is_some() != e.rejected)
        {
            self.forget_event(&e.event_id);
        }
    }

    fn obey_cache_row(&self, name: &str, keys: Option<&[String]>) {
        match name {
            // The room's history, or the room itself, was purged. Events are not cached by room.
            "ph_cache_fake" | "dr_cache_fake" => {
                self.event_cache.forget_all();
                if name == "dr_cache_fake" {
                    self.room_caches.local_memberships.forget_all();
                    if let Some(room_id) = keys.and_then(|k| k.first()) {
                        self.room_caches.blocked.forget(room_id);
                    }
                }
            }
            // Memberships of users; the rest of the current state is dropped by the caches for /sync.
            "cs_cache_fake" => {
                if let Some((room_id, users)) = keys.and_then(|k| k.split_first()) {
                    for user in users {
                        self.room_caches.local_memberships.forget(&(user.clone(), room_id.clone()));
                    }
                }
            }
            _ => {
                self.registry.forget(name, keys);
                if let Some((_, ours)) = ALIASES.iter().find(|(theirs, _)| *theirs == name) {
                    self.registry.forget(ours, keys);
                }
            }
        }
    }
}
