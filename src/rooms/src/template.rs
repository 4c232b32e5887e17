//! What callers say about an event they want; the rest is filled in where the room lives.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use types::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};

/// An event to be made in an existing room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Template {
    /// Usually the requester; the affected appservice user or an admin's target otherwise.
    pub sender: OwnedUserId,
    pub kind: String,
    /// Some: a state event.
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    /// Target of an `m.room.redaction`; placed where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// Client transaction id: the same (user, device, room, txn) gives the same event.
    pub txn_id: Option<String>,
    /// Appservices may set it. Milliseconds.
    pub origin_server_ts: Option<i64>,
    /// Stripped state for invites and the like is added to `unsigned` by the room; this is extra.
    pub unsigned: serde_json::Map<String, serde_json::Value>,
}

impl Template {
    pub fn new(sender: OwnedUserId, kind: impl Into<String>, content: Box<RawValue>) -> Self {
        Self {
            sender,
            kind: kind.into(),
            state_key: None,
            content,
            redacts: None,
            txn_id: None,
            origin_server_ts: None,
            unsigned: serde_json::Map::new(),
        }
    }

    pub fn state(mut self, state_key: impl Into<String>) -> Self {
        self.state_key = Some(state_key.into());
        self
    }
}

/// A room to be made with its first events, all in one transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewRoom {
    pub version: RoomVersionId,
    pub creator: OwnedUserId,
    /// Listed in the public directory.
    pub is_public: bool,
    /// An id chosen before (rooms up to v11 only); it must fall to this process.
    pub room_id: Option<OwnedRoomId>,
    /// The first is `m.room.create`; each is authorised by those before it.
    pub events: Vec<Template>,
}

/// Where an event ended up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    pub event_id: OwnedEventId,
    pub room_id: OwnedRoomId,
    /// Stream ordering; reading at or after it sees the event.
    pub stream_ordering: i64,
    /// Writer that persisted it.
    pub instance: String,
}
