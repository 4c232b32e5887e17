//! Events as they come from other servers: their shape, their size, their content hash and their id. Signatures are
//! checked apart, since that takes the other server's keys.

use crate::build::{MAX_DEPTH, MAX_PDU, check_sizes, rules_of};
use crate::hash::{content_hash, reference_hash};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Map, Value};
use types::canonical::{self, Json, Object, redacted};
use types::{Error, EventFormat, Pdu, Result};

/// An event of another server, as far as it can be judged by itself.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub pdu: Pdu,
    /// For `event_json.json`.
    pub json: String,
    /// What the signatures are made over, and the signatures.
    pub object: Object,
}

/// Events refer to no more than these (spec: "PDUs").
const MAX_PREV: usize = 20;
const MAX_AUTH: usize = 10;

/// What may stand in `unsigned`; the rest is dropped.
const STRIPPED: [&str; 2] = ["invite_room_state", "knock_room_state"];

/// Reads an event of the Server-Server API. One whose content hash is wrong is taken in its redacted form, as the
/// spec wants it. `now_ms`: when it came in. 400 M_BAD_JSON for what cannot be an event of this version.
pub fn read(json: &str, version: &RoomVersionId, now_ms: i64) -> Result<Incoming> {
    let bad = |what: String| Error::bad_json(format!("event: {what}"));
    let rules = rules_of(version)?;
    let mut object = canonical::parse(json).map_err(|e| bad(e.to_string()))?;
    let unsigned = object.remove("unsigned");
    if canonical::is_strict(version) {
        canonical::check_strict(&object)?;
    }
    let whole = object.get("hashes").and_then(sha256).is_some_and(|claimed| content_hash(&object) == claimed);
    if !whole {
        object = redacted(&object, &rules.redaction)?;
    }
    let event_id: OwnedEventId = match EventFormat::of(version) {
        EventFormat::V1 => match object.get("event_id") {
            Some(Json::String(id)) => id.as_str().try_into().map_err(|_| bad("event_id".into()))?,
            _ => return Err(bad("event_id is missing".into())),
        },
        _ => {
            let hash = reference_hash(&object, &rules)?;
            format!("${hash}").try_into()?
        }
    };
    let signed = canonical::text(&object);
    if signed.len() > MAX_PDU {
        return Err(Error::too_large("event too large"));
    }
    let membership = membership_of(&object);
    let unsigned = kept(unsigned.as_ref().and_then(Json::as_object), membership, now_ms)?;
    let json = crate::build::with_unsigned(signed, &unsigned)?;
    let mut pdu = Pdu::parse(&json, &event_id, version).map_err(|e| bad(e.to_string()))?;
    pdu.event_id = event_id;
    check_shape(&pdu)?;
    check_sizes(&pdu)?;
    Ok(Incoming { pdu, json, object })
}

/// The id of what is refused as an event, to tell its sender by it. None for what has none.
pub fn id_of(json: &str, version: &RoomVersionId) -> Option<OwnedEventId> {
    let rules = rules_of(version).ok()?;
    let object = canonical::parse(json).ok()?;
    if EventFormat::of(version) == EventFormat::V1 {
        return match object.get("event_id") {
            Some(Json::String(id)) => id.as_str().try_into().ok(),
            _ => None,
        };
    }
    format!("${}", reference_hash(&object, &rules).ok()?).try_into().ok()
}

fn sha256(hashes: &Json) -> Option<&str> {
    hashes.as_object()?.get("sha256")?.as_str()
}

fn membership_of(object: &Object) -> Option<&str> {
    object.get("type").and_then(Json::as_str).filter(|kind| *kind == "m.room.member")?;
    object.get("content")?.as_object()?.get("membership")?.as_str()
}

/// What of `unsigned` is believed: the event's age, and the room's state in invites and knocks.
fn kept(unsigned: Option<&Object>, membership: Option<&str>, now_ms: i64) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    let Some(unsigned) = unsigned else { return Ok(out) };
    if let Some(age) = unsigned.get("age").and_then(Json::as_i64) {
        out.insert("age_ts".into(), now_ms.saturating_sub(age).into());
    }
    if matches!(membership, Some("invite" | "knock")) {
        for key in STRIPPED {
            if let Some(state) = unsigned.get(key) {
                out.insert(key.into(), serde_json::from_str(&state.to_string())?);
            }
        }
    }
    Ok(out)
}

fn check_shape(pdu: &Pdu) -> Result<()> {
    if !(0..=MAX_DEPTH).contains(&pdu.depth) {
        return Err(Error::bad_json("event: depth is out of range"));
    }
    if pdu.prev_events.len() > MAX_PREV {
        return Err(Error::bad_json("event: too many prev_events"));
    }
    if pdu.auth_events.len() > MAX_AUTH {
        return Err(Error::bad_json("event: too many auth_events"));
    }
    if pdu.prev_events.is_empty() && pdu.kind != "m.room.create" {
        return Err(Error::bad_json("event: prev_events must not be empty"));
    }
    if pdu.kind == "m.room.member" && pdu.state_key.is_none() {
        return Err(Error::bad_json("event: a membership event must be a state event"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Draft, Reference, Signer, build};
    use serde_json::json;
    use types::InternalMetadata;
    use types::json::raw;

    const PKCS8: [u8; 48] = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    ];

    fn message(version: &RoomVersionId) -> (OwnedEventId, Value) {
        let signer = Signer::new("s.test".try_into().unwrap(), &PKCS8, "1").unwrap();
        let built = build(
            Draft {
                version,
                room_id: Some(ruma::room_id!("!r:s.test")),
                sender: ruma::user_id!("@u:s.test"),
                kind: "m.room.message",
                state_key: None,
                content: &raw(&json!({"body": "hi"})).unwrap(),
                redacts: None,
                origin_server_ts: 1_000,
                depth: 3,
                prev_events: vec![Reference { id: "$p:s.test".try_into().unwrap(), hash: Some("abc".into()) }],
                auth_events: vec![],
                unsigned: Map::new(),
                meta: InternalMetadata::default(),
                chosen_id: Some("$x:s.test".try_into().unwrap()),
            },
            &signer,
        )
        .unwrap();
        (built.pdu.event_id, serde_json::from_str(&built.json).unwrap())
    }

    #[test]
    fn an_event_keeps_its_id_and_loses_what_it_may_not_say() {
        for version in [RoomVersionId::V1, RoomVersionId::V3, RoomVersionId::V10] {
            let (id, mut event) = message(&version);
            event["unsigned"] = json!({"age": 100, "invite_room_state": [], "m.relations": {}});
            let read = read(&event.to_string(), &version, 5_000).unwrap();
            assert_eq!(read.pdu.event_id, id);
            assert_eq!(Value::Object(read.pdu.stored_unsigned()), json!({"age_ts": 4_900}));
        }
    }

    #[test]
    fn changed_content_leaves_the_redacted_event() {
        let (id, mut event) = message(&RoomVersionId::V10);
        event["content"]["body"] = "ho".into();
        let read = read(&event.to_string(), &RoomVersionId::V10, 0).unwrap();
        assert_eq!((read.pdu.event_id, read.pdu.content.get()), (id, "{}"));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let (_, event) = message(&RoomVersionId::V10);
        let with = |key: &str, value: Value| {
            let mut event = event.clone();
            event[key] = value;
            read(&event.to_string(), &RoomVersionId::V10, 0).map(|_| ()).unwrap_err()
        };
        assert_eq!(with("depth", json!(-1)).errcode(), Some("M_BAD_JSON"));
        assert_eq!(with("depth", json!(1.5)).errcode(), Some("M_BAD_JSON"));
        assert_eq!(with("prev_events", json!([])).errcode(), Some("M_BAD_JSON"));
        assert_eq!(with("auth_events", json!(vec!["$a"; 11])).errcode(), Some("M_BAD_JSON"));
        assert_eq!(with("sender", json!("nobody")).errcode(), Some("M_BAD_JSON"));
        assert!(read("[]", &RoomVersionId::V10, 0).is_err());
    }
}
