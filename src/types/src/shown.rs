//! State events kept ready for clients.

use crate::event::{ClientEvent, Unsigned};
use crate::{Pdu, Result};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A state event as any client sees it in `/sync` (format v2 without room id) at any time: only `unsigned.age` is
/// worked out when it is told. Takes a third of the memory of the [`Pdu`].
#[derive(Debug)]
pub struct Shown {
    pub event_id: OwnedEventId,
    content: Box<RawValue>,
    origin_server_ts: i64,
    /// Only where the event names its room everywhere.
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    state_key: Box<str>,
    kind: Box<str>,
    age_ts: Option<i64>,
    unsigned: Map<String, Value>,
}

impl Shown {
    /// None for what looks different to different clients, has ages within, or is no state. `previous`: the event it
    /// replaced.
    pub fn of(event: &Pdu, previous: Option<&Pdu>) -> Result<Option<Self>> {
        let plain = event.redacted_because.is_none() && event.meta.txn_id.is_none() && event.redacts.is_none();
        let Some(state_key) = event.state_key.as_deref().filter(|_| plain) else { return Ok(None) };
        let mut unsigned = event.unsigned.clone();
        unsigned.retain(|key, _| !matches!(key.as_str(), "age" | "invite_room_state" | "knock_room_state"));
        if let Some(old) = previous {
            unsigned.insert("prev_content".into(), serde_json::from_str(old.content.get())?);
            unsigned.insert("prev_sender".into(), old.sender.as_str().into());
        }
        Ok(Some(Self {
            event_id: event.event_id.clone(),
            content: event.content.clone(),
            origin_server_ts: event.origin_server_ts,
            room_id: event.names_room().then(|| event.room_id.clone()),
            sender: event.sender.clone(),
            state_key: state_key.into(),
            kind: event.kind.as_str().into(),
            age_ts: event.age_ts,
            unsigned,
        }))
    }

    /// The event as it is told at `now_ms`.
    pub fn at(&self, now_ms: i64) -> impl Serialize + '_ {
        ClientEvent {
            content: &self.content,
            event_id: self.event_id.as_str(),
            origin_server_ts: self.origin_server_ts,
            redacts: None,
            room_id: self.room_id.as_deref().map(|id| id.as_str()),
            sender: self.sender.as_str(),
            state_key: Some(&self.state_key),
            kind: &self.kind,
            unsigned: Unsigned { age: self.age_ts.map(|ts| now_ms - ts), rest: &self.unsigned },
        }
    }

    /// About how many bytes this takes.
    pub fn weight(&self) -> usize {
        let strings =
            self.event_id.as_str().len() + self.sender.as_str().len() + self.state_key.len() + self.kind.len();
        // An entry of a map has a node of eleven, and its key and value beside it.
        let unsigned = if self.unsigned.is_empty() { 0 } else { 700 + 100 * self.unsigned.len() };
        size_of::<Self>() + 80 + strings + self.content.get().len() + unsigned
    }
}

/// State of a room kept ready.
#[derive(Debug, Default)]
pub struct ShownState {
    pub events: Vec<Shown>,
    /// Those that cannot be kept ready.
    pub others: Vec<OwnedEventId>,
}

impl ShownState {
    /// Writes the events, without some, as elements of a JSON array.
    pub fn write<S: serde::ser::SerializeSeq>(
        &self,
        except: &[OwnedEventId],
        now_ms: i64,
        out: &mut S,
    ) -> Result<(), S::Error> {
        let mut told = self.events.iter().filter(|e| !except.contains(&e.event_id));
        told.try_for_each(|e| out.serialize_element(&e.at(now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientFormat;
    use ruma::{RoomVersionId, event_id};
    use serde_json::json;

    fn event(version: &RoomVersionId, unsigned: Value) -> Pdu {
        let json = json!({
            "type": "m.room.create", "state_key": "", "sender": "@a:b", "room_id": "!r:b", "content": {"x": 1},
            "origin_server_ts": 5, "unsigned": unsigned,
        });
        Pdu::parse(&json.to_string(), event_id!("$e"), version).unwrap()
    }

    fn shown(event: &Pdu, previous: Option<&Pdu>, now_ms: i64) -> Option<Value> {
        let shown = Shown::of(event, previous).unwrap()?;
        Some(serde_json::to_value(shown.at(now_ms)).unwrap())
    }

    #[test]
    fn it_is_the_client_format_at_any_time() {
        for version in [RoomVersionId::V10, RoomVersionId::V12] {
            let event = event(&version, json!({"age_ts": 10, "replaces_state": "$old", "invite_room_state": []}));
            for now_ms in [11, 99] {
                let format = ClientFormat { now_ms, ..ClientFormat::default() };
                let rendered = event.to_client(&format, Map::new()).unwrap();
                assert_eq!(shown(&event, None, now_ms), Some(serde_json::from_str(rendered.get()).unwrap()));
            }
            let with_previous = shown(&event, Some(&event), 20).unwrap();
            assert_eq!(
                with_previous["unsigned"],
                json!({"age": 10, "replaces_state": "$old", "prev_content": {"x": 1}, "prev_sender": "@a:b"})
            );
        }
    }

    #[test]
    fn what_differs_between_clients_or_has_ages_within_is_not_kept_ready() {
        let mut sent = event(&RoomVersionId::V10, json!({}));
        sent.meta.txn_id = Some("t".into());
        assert!(shown(&sent, None, 1).is_none());
        let mut redacted = event(&RoomVersionId::V10, json!({}));
        redacted.redacted_because = Some(std::sync::Arc::new(redacted.clone()));
        assert!(shown(&redacted, None, 1).is_none());
        let mut message = event(&RoomVersionId::V10, json!({}));
        message.state_key = None;
        assert!(shown(&message, None, 1).is_none());
    }
}
