//! Events as the database holds them and as clients see them.

use crate::json::raw;
use crate::{Error, Result};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::sync::Arc;

/// `event_json.internal_metadata`. Absent keys mean the default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InternalMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_on_behalf_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proactively_send: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    pub soft_failed: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub out_of_band_membership: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub recheck_redaction: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub redacted: bool,
    /// Keys we do not know, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// A persisted (or about to be persisted) event, parsed once. Hashes, signatures and unknown
/// top-level keys live only in the JSON text of `event_json`.
#[derive(Clone, Debug)]
pub struct Pdu {
    pub event_id: OwnedEventId,
    pub room_id: OwnedRoomId,
    pub room_version: RoomVersionId,
    pub sender: OwnedUserId,
    /// The event's `type`.
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    /// Milliseconds since the epoch.
    pub origin_server_ts: i64,
    pub depth: i64,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    /// Target of a redaction, from the top level or (v11+) from content.
    pub redacts: Option<OwnedEventId>,
    /// `unsigned.age_ts`: when the event came here, ms since the epoch. Apart from the rest because most events have
    /// nothing else there, and an empty map takes no memory.
    pub age_ts: Option<i64>,
    /// The rest of the `unsigned` object as stored (`replaces_state`, `invite_room_state` …).
    pub unsigned: Map<String, Value>,
    pub meta: InternalMetadata,
    /// None until the persister has chosen it.
    pub stream_ordering: Option<i64>,
    /// Writer that persisted it; None reads as `master`.
    pub instance_name: Option<String>,
    pub outlier: bool,
    /// `events.rejection_reason`.
    pub rejected: Option<String>,
    /// The redaction that applies; `content` is pruned then.
    pub redacted_because: Option<Arc<Pdu>>,
}

/// The wire shape, both id styles of `prev_events`/`auth_events` (v1–v2 have `[id, hashes]` pairs).
#[derive(Deserialize)]
struct Wire<'a> {
    event_id: Option<OwnedEventId>,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
    origin_server_ts: i64,
    #[serde(default)]
    depth: i64,
    #[serde(default)]
    prev_events: Vec<Reference>,
    #[serde(default)]
    auth_events: Vec<Reference>,
    redacts: Option<OwnedEventId>,
    #[serde(default)]
    unsigned: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(OwnedEventId),
    Pair(OwnedEventId, serde::de::IgnoredAny),
}

impl Reference {
    fn id(self) -> OwnedEventId {
        match self {
            Reference::Id(id) | Reference::Pair(id, _) => id,
        }
    }
}

#[derive(Deserialize)]
struct RedactsContent {
    redacts: Option<OwnedEventId>,
}

impl Pdu {
    /// Parses the JSON of `event_json.json`. `event_id` is the column's value.
    pub fn parse(json: &str, event_id: &EventId, room_version: &RoomVersionId) -> Result<Self> {
        let w: Wire = serde_json::from_str(json)?;
        let event_id = w.event_id.unwrap_or_else(|| event_id.to_owned());
        let room_id = match w.room_id {
            Some(id) => id,
            // A v12 create event names its room by its own id.
            None => OwnedRoomId::try_from(format!("!{}", event_id.as_str().trim_start_matches('$')))?,
        };
        let redacts = match w.redacts {
            None if w.kind == "m.room.redaction" => {
                serde_json::from_str::<RedactsContent>(w.content.get()).ok().and_then(|c| c.redacts)
            }
            top => top,
        };
        let (age_ts, unsigned) = split_age(w.unsigned);
        Ok(Self {
            event_id,
            room_id,
            room_version: room_version.clone(),
            sender: w.sender,
            kind: w.kind,
            state_key: w.state_key,
            content: w.content.to_owned(),
            origin_server_ts: w.origin_server_ts,
            depth: w.depth,
            prev_events: w.prev_events.into_iter().map(Reference::id).collect(),
            auth_events: w.auth_events.into_iter().map(Reference::id).collect(),
            redacts,
            age_ts,
            unsigned,
            meta: InternalMetadata::default(),
            stream_ordering: None,
            instance_name: None,
            outlier: false,
            rejected: None,
            redacted_because: None,
        })
    }

    /// The `unsigned` object as it is stored.
    pub fn stored_unsigned(&self) -> Map<String, Value> {
        let mut unsigned = self.unsigned.clone();
        if let Some(age_ts) = self.age_ts {
            unsigned.insert("age_ts".into(), age_ts.into());
        }
        unsigned
    }

    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// True for `(kind, state_key)`.
    pub fn is_state_of(&self, kind: &str, state_key: &str) -> bool {
        self.kind == kind && self.state_key.as_deref() == Some(state_key)
    }

    /// Reads content into a type; the error is the caller's to judge.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(self.content.get())
    }

    /// A string field of content.
    pub fn content_str(&self, key: &str) -> Option<String> {
        serde_json::from_str(crate::json::member(self.content.get(), key)?.get()).ok()
    }

    /// `content.membership` of an `m.room.member` event.
    pub fn membership(&self) -> Option<String> {
        if self.kind == "m.room.member" { self.content_str("membership") } else { None }
    }

    /// `unsigned.replaces_state`: the state event this one replaced.
    pub fn replaces_state(&self) -> Option<OwnedEventId> {
        self.unsigned.get("replaces_state")?.as_str()?.try_into().ok()
    }

    /// Stream ordering of a persisted event.
    pub fn stream(&self) -> i64 {
        self.stream_ordering.unwrap_or_default()
    }
}

/// `age_ts`, and what else a stored `unsigned` object has.
pub fn split_age(mut unsigned: Map<String, Value>) -> (Option<i64>, Map<String, Value>) {
    let age_ts = unsigned.remove("age_ts").and_then(|v| v.as_i64());
    // A map that was emptied keeps its memory, a new one has none.
    (age_ts, if unsigned.is_empty() { Map::new() } else { unsigned })
}

/// Who an event is rendered for.
#[derive(Clone, Debug, Default)]
pub struct ClientFormat<'a> {
    /// Now, ms: for `unsigned.age`.
    pub now_ms: i64,
    /// `/sync` leaves `room_id` out.
    pub with_room_id: bool,
    /// Sender sees its own `transaction_id` if device (or token) match.
    pub device_id: Option<&'a str>,
    pub token_id: Option<i64>,
    pub user_id: Option<&'a str>,
    /// Keep `invite_room_state`/`knock_room_state` in unsigned.
    pub with_stripped_state: bool,
    /// Repeat some of `unsigned` at the top level, and the sender as `user_id`: what most room endpoints
    /// have answered since r0.
    pub legacy: bool,
}

/// Keys of `unsigned` that the legacy format repeats.
const LEGACY_KEYS: [&str; 6] =
    ["age", "redacted_because", "replaces_state", "prev_content", "invite_room_state", "knock_room_state"];

/// An event as clients see it; borrowed from where it is kept.
#[derive(Serialize)]
pub(crate) struct ClientEvent<'a> {
    pub content: &'a RawValue,
    pub event_id: &'a str,
    pub origin_server_ts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_id: Option<&'a str>,
    pub sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_key: Option<&'a str>,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub unsigned: Unsigned<'a>,
}

/// The `unsigned` object clients see.
#[derive(Serialize)]
pub(crate) struct Unsigned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
    #[serde(flatten)]
    pub rest: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct LegacyEvent<'a> {
    #[serde(flatten)]
    event: ClientEvent<'a>,
    user_id: &'a str,
    #[serde(flatten)]
    copied: Map<String, Value>,
}

impl Pdu {
    /// Client format v2 (spec: "Room event format"). `extra` is merged into `unsigned`
    /// (`membership`, `m.relations`, `redacted_because`, `prev_content` …).
    pub fn to_client(&self, format: &ClientFormat<'_>, extra: Map<String, Value>) -> Result<Box<RawValue>> {
        let mut unsigned = self.unsigned.clone();
        let age = self.age_ts.map(|ts| format.now_ms - ts);
        if age.is_some() {
            unsigned.remove("age");
        }
        if !format.with_stripped_state {
            unsigned.remove("invite_room_state");
            unsigned.remove("knock_room_state");
        }
        if let (Some(txn), true) = (&self.meta.txn_id, self.sent_by(format)) {
            unsigned.insert("transaction_id".into(), txn.as_str().into());
        }
        if let Some(because) = &self.redacted_because {
            unsigned.insert("redacted_by".into(), because.event_id.as_str().into());
            let event = because.to_client(format, Map::new())?;
            unsigned.insert("redacted_because".into(), serde_json::from_str(event.get())?);
        }
        unsigned.extend(extra);
        let content = self.content_with_redacts()?;
        let event = ClientEvent {
            content: content.as_deref().unwrap_or(&self.content),
            event_id: self.event_id.as_str(),
            origin_server_ts: self.origin_server_ts,
            redacts: self.redacts.as_deref().map(EventId::as_str),
            room_id: (format.with_room_id || self.names_room()).then_some(self.room_id.as_str()),
            sender: self.sender.as_str(),
            state_key: self.state_key.as_deref(),
            kind: &self.kind,
            unsigned: Unsigned { age, rest: &unsigned },
        };
        if !format.legacy {
            return raw(&event);
        }
        let mut copied: Map<String, Value> =
            LEGACY_KEYS.iter().filter_map(|k| Some(((*k).to_owned(), unsigned.get(*k)?.clone()))).collect();
        copied.extend(age.map(|age| ("age".to_owned(), age.into())));
        raw(&LegacyEvent { user_id: event.sender, event, copied })
    }

    /// A v12 create event, whose room id follows from it: Synapse shows it even where events have none.
    pub(crate) fn names_room(&self) -> bool {
        self.kind == "m.room.create" && crate::EventFormat::of(&self.room_version) == crate::EventFormat::V4
    }

    /// Clients find a redaction's target in both places, wherever the room version keeps it.
    fn content_with_redacts(&self) -> Result<Option<Box<RawValue>>> {
        let Some(target) = self.redacts.as_deref().filter(|_| self.kind == "m.room.redaction") else { return Ok(None) };
        let mut content: Map<String, Value> = self.content_as().unwrap_or_default();
        content.insert("redacts".into(), target.as_str().into());
        Ok(Some(raw(&content)?))
    }

    fn sent_by(&self, format: &ClientFormat<'_>) -> bool {
        if format.user_id != Some(self.sender.as_str()) {
            return false;
        }
        match (&self.meta.device_id, self.meta.token_id) {
            (Some(device), _) => format.device_id == Some(device),
            (None, Some(token)) => format.token_id == Some(token),
            (None, None) => false,
        }
    }

    /// `{content, sender, state_key, type}` as in invites and knocks (spec: "Stripped state").
    pub fn to_stripped(&self) -> Result<Value> {
        let state_key = self.state_key.as_deref().ok_or_else(|| Error::internal("stripped state of a message"))?;
        Ok(serde_json::json!({
            "content": serde_json::from_str::<Value>(self.content.get())?,
            "sender": self.sender,
            "state_key": state_key,
            "type": self.kind,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(json: &str, format: &ClientFormat<'_>) -> Value {
        let pdu = Pdu::parse(json, ruma::event_id!("$e"), &RoomVersionId::V10).unwrap();
        serde_json::from_str(pdu.to_client(format, Map::new()).unwrap().get()).unwrap()
    }

    const REDACTION: &str = r#"{"type":"m.room.redaction","sender":"@a:b","room_id":"!r:b","content":{"reason":"x"},
        "redacts":"$old","origin_server_ts":5,"depth":3,"unsigned":{"age_ts":90},"hashes":{"sha256":"y"}}"#;

    #[test]
    fn the_legacy_format_repeats_unsigned_and_no_format_shows_the_graph() {
        let shown =
            client(REDACTION, &ClientFormat { now_ms: 100, with_room_id: true, legacy: true, ..Default::default() });
        assert_eq!(shown["age"], 10);
        assert_eq!(shown["unsigned"]["age"], 10);
        assert_eq!(shown["user_id"], "@a:b");
        assert!(shown.get("hashes").is_none() && shown.get("depth").is_none());
        let plain = client(REDACTION, &ClientFormat { now_ms: 100, ..Default::default() });
        assert!(plain.get("user_id").is_none() && plain.get("room_id").is_none() && plain.get("age").is_none());
    }

    #[test]
    fn a_redaction_names_its_target_twice() {
        let shown = client(REDACTION, &ClientFormat::default());
        assert_eq!(shown["redacts"], "$old");
        assert_eq!(shown["content"]["redacts"], "$old");
        assert_eq!(shown["content"]["reason"], "x");
    }
}
