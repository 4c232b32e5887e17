//! From a draft to a signed event: canonical JSON, hashes, signature, event id.

use crate::hash::{content_hash, reference_hash, signed_text};
use ruma::room_version_rules::RoomVersionRules;
use ruma::signatures::{Ed25519KeyPair, KeyPair};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, UserId};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use types::canonical::{self, Json, MAX_INT, Object};
use types::event::split_age;
use types::{Error, EventFormat, InternalMetadata, Pdu, Result, room_version};

/// Depth is a canonical JSON number.
pub const MAX_DEPTH: i64 = MAX_INT;
/// Bytes of a whole event (spec: "Size limits").
pub const MAX_PDU: usize = 65_536;
/// Bytes of sender, room id, state key, type and event id.
const MAX_FIELD: usize = 255;

/// The server's name and the key its events are signed with.
pub struct Signer {
    pub server_name: OwnedServerName,
    pub(crate) key: Ed25519KeyPair,
}

impl Signer {
    /// `pkcs8`: the private key as PKCS#8 version 1; `version`: the part of the key id after `ed25519:`.
    pub fn new(server_name: OwnedServerName, pkcs8: &[u8], version: &str) -> Result<Self> {
        Ok(Self { server_name, key: Ed25519KeyPair::from_der(pkcs8, version.to_owned())? })
    }

    /// Adds our signature to a finished event.
    pub fn sign_event(&self, event: &mut Object, version: &RoomVersionId) -> Result<()> {
        let signature = self.key.sign(signed_text(event, &rules_of(version)?.redaction)?.as_bytes());
        let ours = inner(inner(event, "signatures")?, self.server_name.as_str())?;
        ours.insert(signature.id(), Json::String(signature.base64()));
        Ok(())
    }

    /// Adds the content hash and our signature.
    pub(crate) fn hash_and_sign(&self, event: &mut Object, version: &RoomVersionId) -> Result<()> {
        let hash = content_hash(event);
        inner(event, "hashes")?.insert("sha256".into(), Json::String(hash));
        self.sign_event(event, version)
    }
}

/// An event referred to by another. The reference hash is needed in rooms v1 and v2 only.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub id: OwnedEventId,
    /// Unpadded base64.
    pub hash: Option<String>,
}

/// Everything that goes into a new event.
pub struct Draft<'a> {
    pub version: &'a RoomVersionId,
    /// None for the create event of a v12 room.
    pub room_id: Option<&'a RoomId>,
    pub sender: &'a UserId,
    pub kind: &'a str,
    pub state_key: Option<&'a str>,
    pub content: &'a RawValue,
    pub redacts: Option<&'a EventId>,
    /// Milliseconds since the epoch.
    pub origin_server_ts: i64,
    pub depth: i64,
    pub prev_events: Vec<Reference>,
    pub auth_events: Vec<Reference>,
    /// `age_ts`, `replaces_state`, …: stored with the event, not part of its hash.
    pub unsigned: Map<String, Value>,
    pub meta: InternalMetadata,
    /// Event id in rooms v1 and v2, where the server chooses it.
    pub chosen_id: Option<OwnedEventId>,
}

/// A finished event.
#[derive(Clone, Debug)]
pub struct Built {
    pub pdu: Pdu,
    /// For `event_json.json`.
    pub json: String,
    /// How later events refer to it.
    pub reference: Reference,
}

/// The object under a key, which is made if it is not there.
fn inner<'a>(object: &'a mut Object, key: &str) -> Result<&'a mut Object> {
    match object.entry(key.to_owned()).or_insert_with(|| Json::Object(Object::new())) {
        Json::Object(inner) => Ok(inner),
        _ => Err(Error::bad_json(format!("event: {key} must be an object"))),
    }
}

fn references(list: &[Reference], format: EventFormat) -> Json {
    let one = |r: &Reference| match format {
        EventFormat::V1 => {
            let hash = Object::from([("sha256".to_owned(), Json::String(r.hash.clone().unwrap_or_default()))]);
            Json::Array(vec![r.id.as_str().into(), Json::Object(hash)])
        }
        _ => r.id.as_str().into(),
    };
    Json::Array(list.iter().map(one).collect())
}

/// Content as canonical JSON of the room version; numbers that it cannot have are the client's fault.
fn canonical_content(content: &RawValue, version: &RoomVersionId) -> Result<Object> {
    let refused = |e: Error| Error::bad_json(format!("content: {e}"));
    let content = canonical::parse(content.get()).map_err(refused)?;
    if canonical::is_strict(version) {
        canonical::check_strict(&content).map_err(refused)?;
    }
    Ok(content)
}

/// The rules of a version this server supports.
pub fn rules_of(version: &RoomVersionId) -> Result<RoomVersionRules> {
    room_version::rules(version).ok_or_else(|| {
        Error::client(400, "M_UNSUPPORTED_ROOM_VERSION", format!("Homeserver does not support room version {version}"))
            .with("room_version", version.as_str())
    })
}

/// What is hashed and signed, and its content as it is stored.
fn unsigned_object(draft: &Draft<'_>, depth: i64, rules: &RoomVersionRules) -> Result<(Object, Box<RawValue>)> {
    let format = EventFormat::of(draft.version);
    let mut content = canonical_content(draft.content, draft.version)?;
    if !(-MAX_INT..=MAX_INT).contains(&draft.origin_server_ts) {
        return Err(Error::bad_json("origin_server_ts: JSON integer out of range"));
    }
    let mut object = Object::from([
        ("type".to_owned(), draft.kind.into()),
        ("sender".to_owned(), draft.sender.as_str().into()),
        ("origin_server_ts".to_owned(), draft.origin_server_ts.into()),
        ("depth".to_owned(), depth.into()),
        ("prev_events".to_owned(), references(&draft.prev_events, format)),
        ("auth_events".to_owned(), references(&draft.auth_events, format)),
    ]);
    if let Some(redacts) = draft.redacts {
        let holder = if rules.redaction.content_field_redacts { &mut content } else { &mut object };
        holder.insert("redacts".into(), redacts.as_str().into());
    }
    if let Some(room_id) = draft.room_id {
        object.insert("room_id".into(), room_id.as_str().into());
    }
    if let Some(key) = draft.state_key {
        object.insert("state_key".into(), key.into());
    }
    if let Some(id) = draft.chosen_id.as_deref().filter(|_| format == EventFormat::V1) {
        object.insert("event_id".into(), id.as_str().into());
    }
    let stored = RawValue::from_string(canonical::text(&content))?;
    object.insert("content".into(), Json::Object(content));
    Ok((object, stored))
}

/// Hashes and signs a draft and gives it its id.
pub fn build(draft: Draft<'_>, signer: &Signer) -> Result<Built> {
    let rules = rules_of(draft.version)?;
    let format = EventFormat::of(draft.version);
    let depth = draft.depth.clamp(1, MAX_DEPTH);
    let (mut object, stored_content) = unsigned_object(&draft, depth, &rules)?;
    signer.hash_and_sign(&mut object, draft.version)?;
    let hash = reference_hash(&object, &rules)?;
    let event_id: OwnedEventId = match (format, &draft.chosen_id) {
        (EventFormat::V1, Some(id)) => id.clone(),
        (EventFormat::V1, None) => return Err(Error::internal("an event id must be chosen in rooms v1 and v2")),
        _ => format!("${hash}").try_into()?,
    };
    let signed = canonical::text(&object);
    if signed.len() > MAX_PDU {
        return Err(Error::too_large("event too large"));
    }
    let json = with_unsigned(signed, &draft.unsigned)?;
    let room_id = match draft.room_id {
        Some(id) => id.to_owned(),
        None => room_of_create(&event_id)?,
    };
    let (age_ts, unsigned) = split_age(draft.unsigned);
    let pdu = Pdu {
        event_id: event_id.clone(),
        room_id,
        room_version: draft.version.clone(),
        sender: draft.sender.to_owned(),
        kind: draft.kind.to_owned(),
        state_key: draft.state_key.map(str::to_owned),
        content: stored_content,
        origin_server_ts: draft.origin_server_ts,
        depth,
        prev_events: draft.prev_events.into_iter().map(|r| r.id).collect(),
        auth_events: draft.auth_events.into_iter().map(|r| r.id).collect(),
        redacts: draft.redacts.map(ToOwned::to_owned),
        age_ts,
        unsigned,
        meta: draft.meta,
        stream_ordering: None,
        instance_name: None,
        outlier: false,
        rejected: None,
        redacted_because: None,
    };
    check_sizes(&pdu)?;
    let hash = (format == EventFormat::V1).then_some(hash);
    Ok(Built { reference: Reference { id: event_id, hash }, pdu, json })
}

/// Appends the unsigned part to a finished object: its numbers need not be canonical.
pub(crate) fn with_unsigned(mut signed: String, unsigned: &Map<String, Value>) -> Result<String> {
    signed.pop();
    signed.push_str(",\"unsigned\":");
    signed.push_str(&serde_json::to_string(unsigned)?);
    signed.push('}');
    Ok(signed)
}

/// Id of a v12 room.
pub fn room_of_create(create: &EventId) -> Result<OwnedRoomId> {
    Ok(format!("!{}", create.as_str().trim_start_matches('$')).try_into()?)
}

/// Id of a v12 room's create event.
pub fn create_of_room(room: &RoomId) -> Result<OwnedEventId> {
    Ok(format!("${}", room.as_str().trim_start_matches('!')).try_into()?)
}

pub(crate) fn check_sizes(pdu: &Pdu) -> Result<()> {
    let fields = [
        ("sender", pdu.sender.as_str()),
        ("room_id", pdu.room_id.as_str()),
        ("state_key", pdu.state_key.as_deref().unwrap_or_default()),
        ("type", pdu.kind.as_str()),
        ("event_id", pdu.event_id.as_str()),
    ];
    match fields.iter().find(|(_, value)| value.len() > MAX_FIELD) {
        Some((name, _)) => Err(Error::too_large(format!("'{name}' too large"))),
        None => Ok(()),
    }
}

/// Reference to a stored event: its JSON is only needed (and hashed) in rooms v1 and v2.
pub fn reference_to(id: &EventId, json: &str, version: &RoomVersionId) -> Result<Reference> {
    let hash = match EventFormat::of(version) {
        EventFormat::V1 => {
            let event = canonical::parse(json)?;
            Some(reference_hash(&event, &rules_of(version)?)?)
        }
        _ => None,
    };
    Ok(Reference { id: id.to_owned(), hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::{room_id, user_id};
    use serde_json::json;
    use types::json::raw;

    const PKCS8: [u8; 48] = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    ];

    fn signer() -> Signer {
        Signer::new("s.test".try_into().unwrap(), &PKCS8, "1").unwrap()
    }

    fn draft<'a>(version: &'a RoomVersionId, content: &'a RawValue) -> Draft<'a> {
        Draft {
            version,
            room_id: Some(room_id!("!r:s.test")),
            sender: user_id!("@a:s.test"),
            kind: "m.room.message",
            state_key: None,
            content,
            redacts: None,
            origin_server_ts: 1_000_000,
            depth: 3,
            prev_events: vec![Reference { id: "$p:s.test".try_into().unwrap(), hash: Some("abc".into()) }],
            auth_events: vec![],
            unsigned: Map::from_iter([("age_ts".to_owned(), json!(1_000_000))]),
            meta: InternalMetadata::default(),
            chosen_id: Some("$x:s.test".try_into().unwrap()),
        }
    }

    #[test]
    fn ids_follow_the_room_version() {
        let content = raw(&json!({"body": "hi"})).unwrap();
        let old = build(draft(&RoomVersionId::V1, &content), &signer()).unwrap();
        assert_eq!(old.pdu.event_id, "$x:s.test");
        assert!(old.json.contains(r#""event_id":"$x:s.test""#));
        assert!(old.json.contains(r#"["$p:s.test",{"sha256":"abc"}]"#));
        let new = build(draft(&RoomVersionId::V10, &content), &signer()).unwrap();
        assert!(!new.json.contains("event_id"));
        assert_eq!(new.pdu.event_id.as_str().len(), 44);
        let again = Pdu::parse(&new.json, &new.pdu.event_id, &RoomVersionId::V10).unwrap();
        assert_eq!(again.prev_events, new.pdu.prev_events);
        assert_eq!(again.depth, 3);
    }

    #[test]
    fn redactions_say_their_target_where_the_version_wants_it() {
        let content = raw(&json!({"reason": "x"})).unwrap();
        let target: OwnedEventId = "$t:s.test".try_into().unwrap();
        for (version, top) in [(RoomVersionId::V10, true), (RoomVersionId::V11, false)] {
            let mut d = draft(&version, &content);
            d.kind = "m.room.redaction";
            d.redacts = Some(&target);
            let built = build(d, &signer()).unwrap();
            let value: Value = serde_json::from_str(&built.json).unwrap();
            assert_eq!(value.get("redacts").is_some(), top);
            assert_eq!(value["content"].get("redacts").is_some(), !top);
            assert_eq!(built.pdu.redacts.as_ref(), Some(&target));
        }
    }

    #[test]
    fn v12_rooms_are_named_by_their_create_event() {
        let content = raw(&json!({"room_version": "12"})).unwrap();
        let mut d = draft(&RoomVersionId::V12, &content);
        (d.kind, d.state_key, d.room_id, d.prev_events) = ("m.room.create", Some(""), None, vec![]);
        let built = build(d, &signer()).unwrap();
        assert!(!built.json.contains("room_id"));
        assert_eq!(create_of_room(&built.pdu.room_id).unwrap(), built.pdu.event_id);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_right_code() {
        let s = signer();
        let float = raw(&json!({"n": 1.5})).unwrap();
        assert_eq!(build(draft(&RoomVersionId::V6, &float), &s).unwrap_err().errcode(), Some("M_BAD_JSON"));
        let big = raw(&json!({"n": 1u64 << 53})).unwrap();
        assert_eq!(build(draft(&RoomVersionId::V6, &big), &s).unwrap_err().errcode(), Some("M_BAD_JSON"));
        let huge = raw(&json!({"body": "x".repeat(66_000)})).unwrap();
        assert_eq!(build(draft(&RoomVersionId::V6, &huge), &s).unwrap_err().status(), 413);
        let fine = raw(&json!({})).unwrap();
        let long = "t".repeat(256);
        let mut d = draft(&RoomVersionId::V6, &fine);
        d.kind = &long;
        assert_eq!(build(d, &s).unwrap_err().errcode(), Some("M_TOO_LARGE"));
    }
}
