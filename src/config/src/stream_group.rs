//! What `stream_writers` can move.

/// The streams that `stream_writers` can move, each with those that move along with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamGroup {
    /// Streams `events`, `backfill`, `profile_updates` and `sticky_events`; sharded by room id.
    Events,
    /// Stream `typing`; one writer.
    Typing,
    /// Stream `to_device`; one writer.
    ToDevice,
    /// Stream `account_data` (tags too); one writer.
    AccountData,
    /// Stream `receipts`; any writer writes any row.
    Receipts,
    /// Streams `presence` and `presence_federation`; one writer.
    Presence,
    /// Stream `push_rules`; one writer.
    PushRules,
    /// Stream `device_lists`; any writer writes any row.
    DeviceLists,
    /// Stream `thread_subscriptions`; any writer writes any row.
    ThreadSubscriptions,
    /// Stream `quarantined_media`; any writer writes any row.
    QuarantinedMediaChanges,
}

impl StreamGroup {
    /// All groups, in the order of the documentation.
    pub const ALL: [StreamGroup; 10] = [
        StreamGroup::Events,
        StreamGroup::Typing,
        StreamGroup::ToDevice,
        StreamGroup::AccountData,
        StreamGroup::Receipts,
        StreamGroup::Presence,
        StreamGroup::PushRules,
        StreamGroup::DeviceLists,
        StreamGroup::ThreadSubscriptions,
        StreamGroup::QuarantinedMediaChanges,
    ];

    /// The key under `stream_writers`.
    pub fn name(self) -> &'static str {
        match self {
            StreamGroup::Events => "events",
            StreamGroup::Typing => "typing",
            StreamGroup::ToDevice => "to_device",
            StreamGroup::AccountData => "account_data",
            StreamGroup::Receipts => "receipts",
            StreamGroup::Presence => "presence",
            StreamGroup::PushRules => "push_rules",
            StreamGroup::DeviceLists => "device_lists",
            StreamGroup::ThreadSubscriptions => "thread_subscriptions",
            StreamGroup::QuarantinedMediaChanges => "quarantined_media_changes",
        }
    }

    /// The group with a key.
    pub fn named(name: &str) -> Option<StreamGroup> {
        Self::ALL.into_iter().find(|g| g.name() == name)
    }

    /// The group a stream of the replication protocol belongs to. `None`: its writer can't be moved from main
    /// (`pushers`, `un_partial_stated_*`, `federation`), or every process writes it (`caches`).
    pub fn of_stream(stream: &str) -> Option<StreamGroup> {
        match stream {
            "events" | "backfill" | "profile_updates" | "sticky_events" => Some(StreamGroup::Events),
            "presence_federation" => Some(StreamGroup::Presence),
            "quarantined_media" => Some(StreamGroup::QuarantinedMediaChanges),
            other => Self::named(other),
        }
    }

    /// Whether only one writer is allowed.
    pub fn is_single(self) -> bool {
        use StreamGroup::*;
        matches!(self, Typing | ToDevice | AccountData | Presence | PushRules)
    }
}
