//! Who and what moved last when: lets a sync look only at rooms and users that changed since its token,
//! without asking the database.

use crate::{Row, Stream, Streams};
use dashmap::DashMap;
use std::sync::atomic::{AtomicI64, Ordering};

/// Entries kept for each kind; beyond it everything is taken to have changed up to then.
const CAPACITY: usize = 100_000;

/// Last stream id at which each entity changed.
pub struct Changes {
    last: DashMap<Box<str>, i64>,
    /// Nothing is known of changes up to here.
    known_after: AtomicI64,
}

impl Changes {
    fn new(known_after: i64) -> Self {
        Self { last: DashMap::new(), known_after: AtomicI64::new(known_after) }
    }

    fn note(&self, entity: &str, id: i64) {
        match self.last.get_mut(entity) {
            Some(mut at) => *at = (*at).max(id),
            None => {
                if self.last.len() >= CAPACITY {
                    let newest = self.last.iter().map(|e| *e.value()).max().unwrap_or(id);
                    self.known_after.fetch_max(newest.max(id), Ordering::AcqRel);
                    self.last.clear();
                }
                self.last.entry(entity.into()).and_modify(|at| *at = (*at).max(id)).or_insert(id);
            }
        }
    }

    /// Whether the entity may have changed after position `since`.
    pub fn since(&self, entity: &str, since: i64) -> bool {
        since < self.known_after.load(Ordering::Acquire) || self.last.get(entity).is_some_and(|at| *at > since)
    }
}

/// The kinds of changes `/sync` asks for.
pub struct Changed {
    /// Room id → events.
    pub rooms: Changes,
    /// User id → own membership events.
    pub members: Changes,
    /// Room id → receipts.
    pub receipts: Changes,
    /// User id → account data and tags.
    pub account_data: Changes,
    /// User id → push rules.
    pub push_rules: Changes,
    /// User id → to-device messages.
    pub to_device: Changes,
    /// User id → devices and cross-signing keys (also signatures made by them).
    pub devices: Changes,
}

impl Changed {
    pub(crate) fn new(streams: &Streams) -> Self {
        let at = |s: Stream| Changes::new(streams.token(s).max().max(streams.own(s)));
        Self {
            rooms: at(Stream::Events),
            members: at(Stream::Events),
            receipts: at(Stream::Receipts),
            account_data: at(Stream::AccountData),
            push_rules: at(Stream::PushRules),
            to_device: at(Stream::ToDevice),
            devices: at(Stream::DeviceLists),
        }
    }

    /// Takes a row into account; before readers can see its position.
    pub(crate) fn note(&self, id: i64, row: &Row) {
        match row {
            Row::Event(e) => {
                self.rooms.note(&e.room_id, id);
                if let ("m.room.member", Some(user)) = (e.kind.as_str(), &e.state_key) {
                    self.members.note(user, id);
                }
            }
            Row::State { room_id, kind, state_key, .. } => {
                self.rooms.note(room_id, id);
                if kind == "m.room.member" {
                    self.members.note(state_key, id);
                }
            }
            Row::StateAll { room_id } => self.rooms.note(room_id, id),
            Row::Receipt { room_id, .. } => self.receipts.note(room_id, id),
            Row::AccountData { user_id, .. } => self.account_data.note(user_id, id),
            Row::PushRules { user_id } => self.push_rules.note(user_id, id),
            Row::ToDevice { entity } => self.to_device.note(entity, id),
            Row::DeviceList { user_id, .. } => self.devices.note(user_id, id),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_not_to_have_changed_is_skipped() {
        let c = Changes::new(10);
        assert!(c.since("a", 9));
        assert!(!c.since("a", 10));
        c.note("a", 12);
        assert!(c.since("a", 11));
        assert!(!c.since("a", 12));
        assert!(!c.since("b", 10));
    }
}
