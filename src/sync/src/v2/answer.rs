//! The answer's shape.

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::OwnedEventId;
use types::shown::ShownState;

/// `{"events": […]}`
#[derive(Debug, Serialize)]
pub struct Events<T> {
    pub events: Vec<T>,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Self { events: Vec::new() }
    }
}

impl<T> Events<T> {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Body of `GET /sync`. Parts without content are left out.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    pub next_batch: String,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events<Value>,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub presence: Events<Value>,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub to_device: Events<Value>,
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    pub device_lists: DeviceLists,
    pub device_one_time_keys_count: BTreeMap<String, i64>,
    pub device_unused_fallback_key_types: Vec<String>,
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    pub rooms: Rooms,
}

impl Answer {
    /// Nothing a waiting client would want to be woken for.
    pub fn is_empty(&self) -> bool {
        self.account_data.is_empty()
            && self.presence.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_empty()
            && self.rooms.is_empty()
    }
}

#[derive(Debug, Default, Serialize)]
pub struct DeviceLists {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

impl DeviceLists {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub join: BTreeMap<String, Room>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invite: BTreeMap<String, Invited>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub knock: BTreeMap<String, Knocked>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leave: BTreeMap<String, Room>,
}

impl Rooms {
    pub fn is_empty(&self) -> bool {
        self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty() && self.leave.is_empty()
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Timeline {
    pub events: Vec<Box<RawValue>>,
    pub prev_batch: String,
    pub limited: bool,
}

/// State events of a room: what is kept ready, and others.
#[derive(Debug, Default)]
pub struct State {
    pub ready: Option<Ready>,
    pub events: Vec<Box<RawValue>>,
}

/// State kept ready, as it is told now.
#[derive(Debug)]
pub struct Ready {
    pub state: Arc<ShownState>,
    /// What the timeline has of it.
    pub except: Vec<OwnedEventId>,
    pub now_ms: i64,
}

impl State {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.ready.as_ref().is_none_or(|r| r.state.events.len() <= r.except.len())
    }
}

/// `{"events": […]}`
impl Serialize for State {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        struct List<'a>(&'a State);
        impl Serialize for List<'_> {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                let mut list = out.serialize_seq(None)?;
                if let Some(ready) = &self.0.ready {
                    ready.state.write(&ready.except, ready.now_ms, &mut list)?;
                }
                self.0.events.iter().try_for_each(|e| list.serialize_element(e))?;
                list.end()
            }
        }
        let mut object = out.serialize_struct("State", 1)?;
        object.serialize_field("events", &List(self))?;
        object.end()
    }
}

/// A joined or left room. State stands under one of two keys; the last parts are for joined rooms only.
#[derive(Debug, Default, Serialize)]
pub struct Room {
    pub timeline: Timeline,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    pub state_after: Option<State>,
    pub account_data: Events<Value>,
    #[serde(flatten)]
    pub joined: Option<JoinedParts>,
}

#[derive(Debug, Default, Serialize)]
pub struct JoinedParts {
    pub ephemeral: Events<Value>,
    pub unread_notifications: Unread,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread_thread_notifications: BTreeMap<String, Unread>,
    pub summary: Option<Summary>,
    #[serde(rename = "org.matrix.msc2654.unread_count", skip_serializing_if = "Option::is_none")]
    pub unread_count: Option<i64>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Unread {
    pub notification_count: i64,
    pub highlight_count: i64,
}

#[derive(Debug, Default, Clone, Serialize)]
pub struct Summary {
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    pub heroes: Option<Vec<String>>,
    #[serde(rename = "m.joined_member_count", skip_serializing_if = "Option::is_none")]
    pub joined: Option<i64>,
    #[serde(rename = "m.invited_member_count", skip_serializing_if = "Option::is_none")]
    pub invited: Option<i64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Invited {
    pub invite_state: Events<Value>,
}

#[derive(Debug, Default, Serialize)]
pub struct Knocked {
    pub knock_state: Events<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_without_content_are_left_out() {
        let mut answer = Answer { next_batch: "s1".into(), ..Answer::default() };
        assert_eq!(
            serde_json::to_value(&answer).unwrap(),
            json!({"next_batch": "s1", "device_one_time_keys_count": {}, "device_unused_fallback_key_types": []})
        );
        assert!(answer.is_empty());
        let room = Room { state: Some(State::default()), joined: Some(JoinedParts::default()), ..Room::default() };
        answer.rooms.join.insert("!a:b".into(), room);
        assert!(!answer.is_empty());
        assert_eq!(
            serde_json::to_value(&answer.rooms).unwrap()["join"]["!a:b"],
            json!({"timeline": {"events": [], "prev_batch": "", "limited": false}, "state": {"events": []},
                   "account_data": {"events": []}, "ephemeral": {"events": []}, "summary": null,
                   "unread_notifications": {"notification_count": 0, "highlight_count": 0}})
        );
    }
}
