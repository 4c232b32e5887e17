//! Verifying what other servers signed.

use crate::Fed;
use crate::keys::{Keys, Wanted, is_signed};
use crate::sign::signable;
use rules::hash::signed_text;
use ruma::room_version_rules::SignaturesRules;
use ruma::signatures::required_server_signatures_to_verify_event;
use ruma::{CanonicalJsonObject, OwnedServerName, RoomVersionId};
use serde_json::Value;
use store::server_keys::KeyName;
use types::canonical::{Json, Object, names_and_strings};
use types::{Boxed, Error, Result, room_version};

impl Fed {
    /// Whether `origin` signed a JSON object with a key that was valid at `valid_at_ms` (milliseconds since the epoch).
    /// 401 M_UNAUTHORIZED otherwise.
    pub fn verify_json<'a>(&'a self, origin: &'a str, object: &'a Value, valid_at_ms: i64) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
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
            let text = signable(object)?;
            let signed = signatures.iter().any(|(id, signature)| {
                let key = keys.get(&KeyName(origin.to_owned(), (*id).clone()));
                key.is_some_and(|key| is_signed(&key.key, signature, &text))
            });
            if signed { Ok(()) } else { Err(unauthorized(format!("Unable to verify signature for {origin}"))) }
        })
    }

    /// Checks the signatures of events of one room version (spec: "Validating hashes and signatures on received
    /// events"), in their order. Keys of all of them are fetched together.
    pub fn verify_events<'a>(
        &'a self,
        version: &'a RoomVersionId,
        events: Vec<Object>,
    ) -> Boxed<'a, Result<Vec<Result<()>>>> {
        Box::pin(async move {
            let rules = room_version::rules(version).ok_or_else(|| {
                Error::client(400, "M_UNSUPPORTED_ROOM_VERSION", format!("Room version {version} is not known"))
            })?;
            let mut wanted = Vec::new();
            for event in &events {
                let at = made_at(event, rules.enforce_key_validity);
                // What is misshapen fails below.
                for server in signers(event, &rules.signatures).into_iter().flatten() {
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
            let check = move || events.iter().map(|e| check_event(e, &keys, &rules)).collect();
            Ok(tokio::task::spawn_blocking(check).await?)
        })
    }
}

/// Whether one of an object's signatures, whoever it is said to be of, was made with the private half of an ed25519 key
/// (base64).
pub fn is_signed_with(object: &Value, key: &str) -> Result<bool> {
    let text = signable(object)?;
    let mut signatures = object["signatures"]
        .as_object()
        .into_iter()
        .flat_map(|servers| servers.values().filter_map(Value::as_object).flatten())
        .filter(|(id, _)| id.starts_with("ed25519:"))
        .filter_map(|(_, signature)| signature.as_str());
    Ok(signatures.any(|signature| is_signed(key, signature, &text)))
}

fn names(wanted: &[Wanted]) -> Vec<KeyName> {
    let mut names: Vec<KeyName> = wanted.iter().map(|w| KeyName(w.server.clone(), w.key_id.clone())).collect();
    names.dedup();
    names
}

/// When an event was made, as far as its keys had to be valid then: milliseconds since the epoch.
fn made_at(event: &Object, enforce: bool) -> i64 {
    event.get("origin_server_ts").and_then(Json::as_i64).filter(|_| enforce).unwrap_or_default()
}

/// The servers that must have signed an event.
fn signers(event: &Object, rules: &SignaturesRules) -> Result<impl Iterator<Item = OwnedServerName> + use<>> {
    let event: CanonicalJsonObject = names_and_strings(event);
    let servers = required_server_signatures_to_verify_event(&event, rules);
    Ok(servers.map_err(|e| Error::bad_json(format!("event: {e}")))?.into_iter())
}

/// Signatures of a server on an event by the ids of their keys.
fn signatures<'a>(event: &'a Object, server: &str) -> impl Iterator<Item = (&'a String, &'a Json)> {
    let of = |value: Option<&'a Json>| value.and_then(Json::as_object);
    let ids = of(of(event.get("signatures")).and_then(|s| s.get(server)));
    ids.into_iter().flatten().filter(|(id, _)| id.starts_with("ed25519:"))
}

fn key_ids<'a>(event: &'a Object, server: &str) -> impl Iterator<Item = &'a String> {
    signatures(event, server).map(|(id, _)| id)
}

/// Every server that must have signed did so with a key that was valid, and none of its known keys says otherwise.
fn check_event(event: &Object, keys: &Keys, rules: &ruma::room_version_rules::RoomVersionRules) -> Result<()> {
    let at = made_at(event, rules.enforce_key_validity);
    let text = signed_text(event, &rules.redaction)?;
    for server in signers(event, &rules.signatures)? {
        let known =
            |id: &String| keys.get(&KeyName(server.to_string(), id.clone())).filter(|key| key.valid_until_ms >= at);
        let checked: Vec<bool> = signatures(event, server.as_str())
            .filter_map(|(id, signature)| Some(is_signed(&known(id)?.key, signature.as_str()?, &text)))
            .collect();
        if checked.is_empty() || checked.contains(&false) {
            return Err(Error::forbidden(format!("The event's signature of {server} is not right")));
        }
    }
    Ok(())
}

pub(crate) fn unauthorized(message: String) -> Error {
    Error::client(401, "M_UNAUTHORIZED", message)
}
