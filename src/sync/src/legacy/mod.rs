//! What clients used before `/sync`: `/events` and `/initialSync` (deprecated in the spec).

mod events;
mod initial;

pub use events::{Stream, StreamRequest};
pub use initial::Snapshot;

use crate::presence;
use serde_json::{Value, json};
use store::PresenceRow;

/// An `m.presence` event with the user in its content, as these endpoints have it.
fn presence_event(p: &PresenceRow, now_ms: i64) -> Value {
    let mut content = presence::content(p, now_ms);
    content.insert("user_id".into(), p.user_id.as_str().into());
    json!({"type": "m.presence", "content": content})
}

/// Adds `room_id` to an ephemeral event.
fn in_room(mut event: Value, room_id: &str) -> Value {
    event["room_id"] = room_id.into();
    event
}
