//! Membership events that another server proposes (`make_join`, `make_leave`, `make_knock`): checked,
//! completed and signed by us; and signatures another server adds to an event of ours (`invite`).

use crate::build::{Built, MAX_PDU, Reference, Signer, rules_of, with_unsigned};
use crate::hash::reference_hash;
use ruma::{OwnedEventId, RoomId, RoomVersionId, UserId};
use serde_json::{Map, Value, json};
use types::canonical;
use types::{Error, EventFormat, Pdu, Result};

/// A template of the Server-Server API and what it is to become.
pub struct Proposal<'a> {
    pub version: &'a RoomVersionId,
    pub room_id: &'a RoomId,
    pub user_id: &'a UserId,
    /// `join`, `leave` or `knock`.
    pub membership: &'a str,
    /// `event` of the answer.
    pub template: Map<String, Value>,
    /// Replaces keys of the template's content.
    pub content: Map<String, Value>,
    /// Milliseconds since the epoch.
    pub origin_server_ts: i64,
    /// Event id in rooms v1 and v2, where the server chooses it.
    pub chosen_id: Option<OwnedEventId>,
}

/// What is taken over from a template.
const TAKEN: [&str; 8] = ["type", "room_id", "sender", "state_key", "content", "depth", "prev_events", "auth_events"];

/// 502: whoever asked may ask another server.
fn bad(what: &str) -> Error {
    Error::client(502, "M_UNKNOWN", format!("Another server answered with an unusable event: {what}"))
}

/// Makes a signed event of a template. 502 if it is not the event that was asked for.
pub fn accept(p: Proposal<'_>, signer: &Signer) -> Result<Built> {
    let mut event: Map<String, Value> =
        p.template.into_iter().filter(|(key, _)| TAKEN.contains(&key.as_str())).collect();
    let wanted = [
        ("type", "m.room.member"),
        ("room_id", p.room_id.as_str()),
        ("sender", p.user_id.as_str()),
        ("state_key", p.user_id.as_str()),
    ];
    for (key, value) in wanted {
        if event.get(key).and_then(Value::as_str) != Some(value) {
            return Err(bad(key));
        }
    }
    let Some(Value::Object(content)) = event.get_mut("content") else { return Err(bad("content")) };
    content.extend(p.content);
    content.insert("membership".into(), p.membership.into());
    event.insert("origin_server_ts".into(), p.origin_server_ts.into());
    let rules = rules_of(p.version)?;
    let chosen = match EventFormat::of(p.version) {
        EventFormat::V1 => {
            let id = p.chosen_id.ok_or_else(|| Error::internal("an event id must be chosen in rooms v1 and v2"))?;
            event.insert("event_id".into(), id.as_str().into());
            Some(id)
        }
        _ => None,
    };
    let unfit = |e: Error| bad(&e.to_string());
    let mut object = canonical::parse(&Value::Object(event).to_string()).map_err(unfit)?;
    if canonical::is_strict(p.version) {
        canonical::check_strict(&object).map_err(unfit)?;
    }
    signer.hash_and_sign(&mut object, p.version).map_err(unfit)?;
    let hash = reference_hash(&object, &rules).map_err(unfit)?;
    let signed = canonical::text(&object);
    if signed.len() > MAX_PDU {
        return Err(Error::too_large("event too large"));
    }
    let hashed = chosen.is_some();
    let event_id: OwnedEventId = match chosen {
        Some(id) => id,
        None => format!("${hash}").try_into()?,
    };
    let unsigned = Map::from_iter([("age_ts".to_owned(), json!(p.origin_server_ts))]);
    let json = with_unsigned(signed, &unsigned)?;
    let pdu = Pdu::parse(&json, &event_id, p.version).map_err(|e| bad(&e.to_string()))?;
    Ok(Built { pdu, json, reference: Reference { id: event_id, hash: hashed.then_some(hash) } })
}

/// An event as another server gets it: without `unsigned`.
pub fn outgoing(json: &str) -> Result<Value> {
    let mut event: Value = serde_json::from_str(json)?;
    if let Some(event) = event.as_object_mut() {
        event.remove("unsigned");
    }
    Ok(event)
}

/// Adds the signatures `server` made on `signed`, a copy of our event, to the event itself.
pub fn countersign(json: &str, signed: &Value, server: &str) -> Result<String> {
    let theirs = signed.get("signatures").and_then(|s| s.get(server)).filter(|s| s.is_object());
    let theirs = theirs.ok_or_else(|| Error::forbidden(format!("{server} did not sign the event")))?;
    let mut event: Map<String, Value> = serde_json::from_str(json)?;
    match event.entry("signatures").or_insert_with(|| json!({})) {
        Value::Object(signatures) => signatures.insert(server.to_owned(), theirs.clone()),
        _ => return Err(Error::internal("signatures of an event of ours must be an object")),
    };
    Ok(serde_json::to_string(&event)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::{room_id, user_id};

    const PKCS8: [u8; 48] = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    ];

    fn proposal<'a>(version: &'a RoomVersionId, template: Value) -> Proposal<'a> {
        Proposal {
            version,
            room_id: room_id!("!r:far.test"),
            user_id: user_id!("@u:s.test"),
            membership: "join",
            template: template.as_object().cloned().unwrap_or_default(),
            content: Map::from_iter([("displayname".to_owned(), json!("U"))]),
            origin_server_ts: 5,
            chosen_id: Some("$x:s.test".try_into().unwrap()),
        }
    }

    fn template() -> Value {
        json!({
            "type": "m.room.member", "room_id": "!r:far.test", "sender": "@u:s.test", "state_key": "@u:s.test",
            "content": {"membership": "leave", "join_authorised_via_users_server": "@a:far.test"}, "depth": 7,
            "prev_events": ["$p"], "auth_events": ["$a"], "origin": "far.test", "unsigned": {"x": 1},
            "hashes": {"sha256": "no"}, "origin_server_ts": 1,
        })
    }

    #[test]
    fn a_template_becomes_a_signed_event() {
        let signer = Signer::new("s.test".try_into().unwrap(), &PKCS8, "1").unwrap();
        let built = accept(proposal(&RoomVersionId::V10, template()), &signer).unwrap();
        assert_eq!(built.pdu.membership().as_deref(), Some("join"));
        assert_eq!(built.pdu.content_str("join_authorised_via_users_server").as_deref(), Some("@a:far.test"));
        assert_eq!((built.pdu.depth, built.pdu.origin_server_ts), (7, 5));
        let event = outgoing(&built.json).unwrap();
        assert!(event["signatures"]["s.test"]["ed25519:1"].is_string());
        assert!(event.get("origin").is_none() && event.get("unsigned").is_none());
        let old = accept(proposal(&RoomVersionId::V1, template()), &signer).unwrap();
        assert_eq!(old.pdu.event_id, "$x:s.test");
    }

    #[test]
    fn events_nobody_asked_for_are_not_signed() {
        let signer = Signer::new("s.test".try_into().unwrap(), &PKCS8, "1").unwrap();
        for (key, value) in [
            ("type", json!("m.room.power_levels")),
            ("sender", json!("@o:s.test")),
            ("room_id", json!("!o:s.test")),
            ("content", json!(1)),
        ] {
            let mut template = template();
            template[key] = value;
            assert_eq!(accept(proposal(&RoomVersionId::V10, template), &signer).unwrap_err().status(), 502, "{key}");
        }
    }

    #[test]
    fn the_invited_users_server_signs_too() {
        let ours = r#"{"signatures":{"s.test":{"ed25519:1":"a"}},"type":"m"}"#;
        let signed = json!({"signatures": {"far.test": {"ed25519:9": "b"}, "s.test": {"ed25519:1": "changed"}}});
        let event: Value = serde_json::from_str(&countersign(ours, &signed, "far.test").unwrap()).unwrap();
        assert_eq!(event["signatures"], json!({"s.test": {"ed25519:1": "a"}, "far.test": {"ed25519:9": "b"}}));
        assert_eq!(countersign(ours, &json!({}), "far.test").unwrap_err().status(), 403);
    }
}
