//! The streams of the cluster: one line each says everything that is fixed about them.

/// A replication stream (names and order as on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Stream {
    Events,
    Backfill,
    Presence,
    PresenceFederation,
    Typing,
    Receipts,
    PushRules,
    Pushers,
    Caches,
    DeviceLists,
    ToDevice,
    Federation,
    AccountData,
    ProfileUpdates,
    StickyEvents,
    ThreadSubscriptions,
    UnPartialStatedRoom,
    UnPartialStatedEvent,
    QuarantinedMedia,
}

/// A table whose rows carry ids of a stream.
pub struct Source {
    pub table: &'static str,
    pub id: &'static str,
    /// Column with the writer's name; NULL reads as `master`.
    pub instance: &'static str,
}

/// What is fixed about a stream.
pub struct Definition {
    /// Name in RDATA and POSITION.
    pub name: &'static str,
    /// `stream_positions.stream_name`; None: no positions are kept.
    pub positions: Option<&'static str>,
    /// Sequence the ids come from; None: a counter in the writer's memory.
    pub sequence: Option<&'static str>,
    pub sources: &'static [Source],
    /// Key of `stream_writers` that names the writers; None: the main process writes it.
    pub writers: Option<&'static str>,
    /// Ids are negative in the database, positive on the wire.
    pub negative: bool,
}

const fn src(table: &'static str, id: &'static str, instance: &'static str) -> Source {
    Source { table, id, instance }
}

const fn db(
    name: &'static str,
    positions: &'static str,
    sequence: &'static str,
    writers: Option<&'static str>,
    sources: &'static [Source],
) -> Definition {
    Definition { name, positions: Some(positions), sequence: Some(sequence), sources, writers, negative: false }
}

const fn memory(name: &'static str, writers: Option<&'static str>) -> Definition {
    Definition { name, positions: None, sequence: None, sources: &[], writers, negative: false }
}

static DEFINITIONS: [Definition; Stream::ALL.len()] = [
    db("events", "events", "events_stream_seq", Some("events"), &[src("events", "stream_ordering", "instance_name")]),
    Definition {
        negative: true,
        ..db(
            "backfill",
            "backfill",
            "events_backfill_stream_seq",
            Some("events"),
            &[src("events", "stream_ordering", "instance_name")],
        )
    },
    db(
        "presence",
        "presence_stream",
        "presence_stream_sequence",
        Some("presence"),
        &[src("presence_stream", "stream_id", "instance_name")],
    ),
    memory("presence_federation", Some("presence")),
    memory("typing", Some("typing")),
    db(
        "receipts",
        "receipts",
        "receipts_sequence",
        Some("receipts"),
        &[src("receipts_linearized", "stream_id", "instance_name")],
    ),
    db(
        "push_rules",
        "push_rules_stream",
        "push_rules_stream_sequence",
        Some("push_rules"),
        &[src("push_rules_stream", "stream_id", "instance_name")],
    ),
    db(
        "pushers",
        "pushers",
        "pushers_sequence",
        None,
        &[src("pushers", "id", "instance_name"), src("deleted_pushers", "stream_id", "instance_name")],
    ),
    Definition {
        positions: None,
        ..db(
            "caches",
            "caches",
            "cache_invalidation_stream_seq",
            None,
            &[src("cache_invalidation_stream_by_instance", "stream_id", "instance_name")],
        )
    },
    db(
        "device_lists",
        "device_lists_stream",
        "device_lists_sequence",
        Some("device_lists"),
        &[
            src("device_lists_stream", "stream_id", "instance_name"),
            src("user_signature_stream", "stream_id", "instance_name"),
            src("device_lists_outbound_pokes", "stream_id", "instance_name"),
            src("device_lists_changes_in_room", "stream_id", "instance_name"),
            src("device_lists_remote_pending", "stream_id", "instance_name"),
        ],
    ),
    db(
        "to_device",
        "to_device",
        "device_inbox_sequence",
        Some("to_device"),
        &[
            src("device_inbox", "stream_id", "instance_name"),
            src("device_federation_outbox", "stream_id", "instance_name"),
        ],
    ),
    memory("federation", None),
    db(
        "account_data",
        "account_data",
        "account_data_sequence",
        Some("account_data"),
        &[
            src("room_account_data", "stream_id", "instance_name"),
            src("room_tags_revisions", "stream_id", "instance_name"),
            src("account_data", "stream_id", "instance_name"),
        ],
    ),
    db(
        "profile_updates",
        "profile_updates",
        "profile_updates_sequence",
        Some("events"),
        &[src("profile_updates", "stream_id", "instance_name")],
    ),
    db(
        "sticky_events",
        "sticky_events",
        "sticky_events_sequence",
        Some("events"),
        &[src("sticky_events", "stream_id", "instance_name")],
    ),
    db(
        "thread_subscriptions",
        "thread_subscriptions",
        "thread_subscriptions_sequence",
        Some("thread_subscriptions"),
        &[src("thread_subscriptions", "stream_id", "instance_name")],
    ),
    db(
        "un_partial_stated_room",
        "un_partial_stated_room_stream",
        "un_partial_stated_room_stream_sequence",
        None,
        &[src("un_partial_stated_room_stream", "stream_id", "instance_name")],
    ),
    db(
        "un_partial_stated_event",
        "un_partial_stated_event_stream",
        "un_partial_stated_event_stream_sequence",
        None,
        &[src("un_partial_stated_event_stream", "stream_id", "instance_name")],
    ),
    db(
        "quarantined_media",
        "quarantined_media",
        "quarantined_media_id_seq",
        Some("quarantined_media_changes"),
        &[src("quarantined_media_changes", "stream_id", "instance_name")],
    ),
];

impl Stream {
    /// All streams, in the order in which positions are announced.
    pub const ALL: [Stream; 19] = [
        Stream::Events,
        Stream::Backfill,
        Stream::Presence,
        Stream::PresenceFederation,
        Stream::Typing,
        Stream::Receipts,
        Stream::PushRules,
        Stream::Pushers,
        Stream::Caches,
        Stream::DeviceLists,
        Stream::ToDevice,
        Stream::Federation,
        Stream::AccountData,
        Stream::ProfileUpdates,
        Stream::StickyEvents,
        Stream::ThreadSubscriptions,
        Stream::UnPartialStatedRoom,
        Stream::UnPartialStatedEvent,
        Stream::QuarantinedMedia,
    ];

    pub fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.definition().name
    }

    pub fn by_name(name: &str) -> Option<Stream> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Ids live in the writer's memory and restart at 0 with it.
    pub fn is_memory(self) -> bool {
        self.definition().sequence.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_stand_in_the_order_of_the_enum() {
        for s in Stream::ALL {
            assert_eq!(Stream::by_name(s.name()), Some(s));
        }
        assert_eq!(Stream::QuarantinedMedia.name(), "quarantined_media");
        assert_eq!(Stream::DeviceLists.name(), "device_lists");
    }
}
