//! What Synapse stores about a room version besides ruma's rules.

use ruma::RoomVersionId;
use ruma::room_version_rules::RoomVersionRules;

/// `event_json.format_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum EventFormat {
    /// Rooms v1 and v2: ids chosen by the server.
    V1 = 1,
    /// Rooms v3: ids in standard base64.
    V2 = 2,
    /// Rooms v4 to v11.
    V3 = 3,
    /// Rooms v12: room id derived from the create event.
    V4 = 4,
}

impl EventFormat {
    pub fn of(version: &RoomVersionId) -> Self {
        match version {
            RoomVersionId::V1 | RoomVersionId::V2 => Self::V1,
            RoomVersionId::V3 => Self::V2,
            RoomVersionId::V12 => Self::V4,
            _ => Self::V3,
        }
    }
}

/// Room versions this server creates and joins, in order.
pub const SUPPORTED: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// The rules of a supported room version.
pub fn rules(version: &RoomVersionId) -> Option<RoomVersionRules> {
    if SUPPORTED.contains(version) { version.rules() } else { None }
}
