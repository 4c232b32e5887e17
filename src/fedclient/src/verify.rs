//! Verifying what other servers signed.

use crate::Fed;
use crate::keys::{BASE64, Keys, Wanted, is_signed};
use crate::sign::signable;
use base64::Engine as _;
use ruma::canonical_json::{CanonicalJsonValue, redact};
use ruma::serde::Base64;
use ruma::signatures::{PublicKeyMap, Verified, required_server_signatures_to_verify_event, verify_event};
use ruma::{CanonicalJsonObject, RoomVersionId};
use serde_json::Value;
use store::server_keys::KeyName;
use types::{Error, Result, room_version};

/// An event whose signatures are right.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The event; redacted if its content hash was wrong.
    pub object: CanonicalJsonObject,
    /// The content hash was wrong.
    pub redacted: bool,
}

impl Fed {
    /// Whether `origin` signed a JSON object with a key that was valid at `valid_at_ms` (milliseconds since the epoch).
    /// 401 M_UNAUTHORIZED otherwise.
    pub async fn verify_json(&self, origin: &str, object: &Value, valid_at_ms: i64) -> Result<()> {
        let signatures: Vec<(&String, &str)> = object["signatures"][origin]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(id, signature)| Some((id, signature.as_str()?)))
            .filter(|(id, _)| id.starts_with("ed25519:"))
            .collect();
        if signatures.is_empty() {
            return Err(unauthorized(format!("Not signed by {origin}")));
        }
        let wanted = |id: &String| Wanted { server: origin.to_owned(), key_id: id.clone(), valid_at_ms };
        let wanted: Vec<Wanted> = signatures.iter().map(|(id, _)| wanted(id)).collect();
        let keys = self.keys(&wanted).await?;
        if keys.is_empty() {
            let ids: Vec<&str> = signatures.iter().map(|(id, _)| id.as_str()).collect();
            return Err(unauthorized(format!("Failed to find any key to satisfy: {} {}", origin, ids.join(", "))));
        }
        let text = signable(object);
        let signed = signatures.iter().any(|(id, signature)| {
            let key = keys.get(&KeyName(origin.to_owned(), (*id).clone()));
            key.is_some_and(|key| is_signed(&key.key, signature, &text))
        });
        if signed { Ok(()) } else { Err(unauthorized(format!("Unable to verify signature for {origin}"))) }
    }

    /// Checks signatures and content hashes of events of one room version (spec: "Validating hashes and signatures on
    /// received events"), in their order. Keys of all of them are fetched together.
    pub async fn verify_events(
        &self,
        version: &RoomVersionId,
        events: Vec<CanonicalJsonObject>,
    ) -> Result<Vec<Result<Checked>>> {
        let rules = room_version::rules(version)
            .ok_or_else(|| Error::client(400, "M_UNSUPPORTED_ROOM_VERSION", format!("Room version {version} is not known")))?;
        let mut wanted = Vec::new();
        for event in &events {
            let at = match event.get("origin_server_ts") {
                Some(CanonicalJsonValue::Integer(ts)) if rules.enforce_key_validity => i64::from(*ts),
                _ => 0,
            };
            // What is misshapen fails below.
            for server in required_server_signatures_to_verify_event(event, &rules.signatures).into_iter().flatten() {
                wanted.extend(key_ids(event, server.as_str()).map(|id| Wanted {
                    server: server.to_string(),
                    key_id: id.clone(),
                    valid_at_ms: at,
                }));
            }
        }
        // Each key once, with the strictest wish: a key that is fetched anew satisfies the others, too.
        wanted.sort_by(|a, b| (&a.server, &a.key_id, b.valid_at_ms).cmp(&(&b.server, &b.key_id, a.valid_at_ms)));
        let all = wanted.clone();
        wanted.dedup_by(|a, b| a.server == b.server && a.key_id == b.key_id);
        let mut keys = self.keys(&wanted).await?;
        if keys.len() < wanted.len() {
            // An older event may be satisfied with a key that is too old for a newer one.
            keys.extend(self.0.cx.store.server_keys(&names(&all)).await?);
        }
        let enforce = rules.enforce_key_validity;
        let check = move || events.into_iter().map(|e| check_event(e, &keys, &rules, enforce)).collect();
        Ok(tokio::task::spawn_blocking(check).await?)
    }

    /// Signs an object (an invite, a join another server asked us to vouch for) with the key events are signed with.
    pub fn sign_json(&self, object: &mut Value) {
        self.0.signer.sign_object(object);
    }
}

fn names(wanted: &[Wanted]) -> Vec<KeyName> {
    let mut names: Vec<KeyName> = wanted.iter().map(|w| KeyName(w.server.clone(), w.key_id.clone())).collect();
    names.dedup();
    names
}

fn key_ids<'a>(event: &'a CanonicalJsonObject, server: &str) -> impl Iterator<Item = &'a String> {
    let of = |value: Option<&'a CanonicalJsonValue>| value.and_then(CanonicalJsonValue::as_object);
    let ids = of(of(event.get("signatures")).and_then(|s| s.get(server)));
    ids.into_iter().flat_map(|ids| ids.keys()).filter(|id| id.starts_with("ed25519:"))
}

fn check_event(
    event: CanonicalJsonObject,
    keys: &Keys,
    rules: &ruma::room_version_rules::RoomVersionRules,
    enforce: bool,
) -> Result<Checked> {
    let at = match event.get("origin_server_ts") {
        Some(CanonicalJsonValue::Integer(ts)) if enforce => i64::from(*ts),
        _ => 0,
    };
    let mut map = PublicKeyMap::new();
    for (name, key) in keys.iter().filter(|(_, key)| key.valid_until_ms >= at) {
        if let Ok(bytes) = BASE64.decode(&key.key) {
            map.entry(name.0.clone()).or_default().insert(name.1.clone(), Base64::new(bytes));
        }
    }
    match verify_event(&map, &event, rules) {
        Ok(Verified::All) => Ok(Checked { object: event, redacted: false }),
        Ok(Verified::Signatures) => {
            let object = redact(event, &rules.redaction, None)
                .map_err(|e| Error::bad_json(format!("The event cannot be redacted: {e}")))?;
            Ok(Checked { object, redacted: true })
        }
        Err(e) => Err(Error::forbidden(format!("The event's signature is not right: {e}"))),
    }
}

pub(crate) fn unauthorized(message: String) -> Error {
    Error::client(401, "M_UNAUTHORIZED", message)
}
