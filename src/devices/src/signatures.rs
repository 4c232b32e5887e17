//! `/keys/signatures/upload`: signatures on one's own devices and master key, and on others' master keys.

use crate::Devices;
use crate::signing::{Object, VerifyKey, is_signed_by, signature_of, signed_part};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use store::cross_signing::{CrossSigningKeys, Signature};
use store::e2e_keys::DeviceKeys;
use types::{Error, Result};

/// A failure as the response shows it.
fn failure(e: &Error) -> Value {
    match e {
        Error::Client(c) => json!({"status": c.status, "errcode": c.errcode, "message": c.message}),
        Error::Internal(_) => json!({"status": 500, "errcode": "M_UNKNOWN", "message": "Internal server error"}),
    }
}

fn invalid_signature() -> Error {
    Error::client(400, "M_INVALID_SIGNATURE", "Invalid signature")
}

/// Failures by user and device.
type Failures = BTreeMap<String, BTreeMap<String, Value>>;

/// What an upload comes to.
#[derive(Default)]
struct Outcome {
    own: Vec<Signature>,
    others: Vec<Signature>,
    failures: Failures,
}

/// The object under a key of the request; anything else is 400 M_INVALID_PARAM.
fn object(value: &Value) -> Result<&Object> {
    value.as_object().ok_or_else(|| Error::invalid_param("Invalid parameter"))
}

/// The signed object must be the stored one, and the signature good.
fn check_signed(user_id: &str, key: &VerifyKey, signed: &Object, stored: &Object) -> Result<()> {
    if signed_part(signed) != signed_part(stored) {
        return Err(Error::client(400, "M_UNKNOWN", "Key does not match"));
    }
    if is_signed_by(signed, user_id, key) { Ok(()) } else { Err(invalid_signature()) }
}

/// The key of a type; 404 if the user has none.
fn verify_key<'a>(keys: Option<&'a CrossSigningKeys>, user_id: &str, kind: &str) -> Result<(&'a Object, VerifyKey)> {
    keys.and_then(|k| k.get(kind))
        .and_then(|key| Some((key, VerifyKey::of_cross_signing_key(key)?)))
        .ok_or_else(|| Error::not_found(format!("No {kind} key found for {user_id}")))
}

/// The user's own keys against which signatures on own devices are checked.
struct Own<'a> {
    user_id: &'a str,
    self_signing: VerifyKey,
    master: VerifyKey,
    master_key: &'a Object,
    devices: &'a BTreeMap<String, DeviceKeys>,
}

impl Own<'_> {
    fn signatures_on(&self, device_id: &str, signed: &Object) -> Result<Vec<Signature>> {
        let mine = signed.get("signatures").and_then(|s| s.get(self.user_id)).and_then(|s| s.as_object());
        let mine = mine.ok_or_else(invalid_signature)?;
        if device_id == self.master.version() {
            return mine.iter().map(|(key_id, s)| self.on_master_key(key_id, s, signed)).collect();
        }
        let signature = signature_of(signed, self.user_id, &self.self_signing.id).ok_or_else(invalid_signature)?;
        let stored = self.devices.get(device_id).and_then(|d| d.keys.as_ref());
        let stored = stored.ok_or_else(|| Error::not_found("Unknown device"))?;
        if signature_of(stored, self.user_id, &self.self_signing.id).is_some() {
            return Ok(Vec::new());
        }
        check_signed(self.user_id, &self.self_signing, signed, stored)?;
        Ok(vec![self.item(&self.self_signing.id, device_id, signature)])
    }

    /// A device's signature on the master key.
    fn on_master_key(&self, key_id: &str, signature: &Value, signed: &Object) -> Result<Signature> {
        let signature = signature.as_str().ok_or_else(invalid_signature)?;
        if let Some(device_id) = key_id.strip_prefix("ed25519:") {
            let keys = self.devices.get(device_id).and_then(|d| d.keys.as_ref());
            let public = keys.and_then(|k| k.get("keys")?.get(key_id)?.as_str()).ok_or_else(invalid_signature)?;
            let key = VerifyKey::new(key_id, public).ok_or_else(invalid_signature)?;
            check_signed(self.user_id, &key, signed, self.master_key)?;
        }
        Ok(self.item(key_id, self.master.version(), signature))
    }

    fn item(&self, key_id: &str, device_id: &str, signature: &str) -> Signature {
        Signature {
            key_id: key_id.to_owned(),
            target_user_id: self.user_id.to_owned(),
            target_device_id: device_id.to_owned(),
            signature: signature.to_owned(),
        }
    }
}

impl Devices {
    /// Stores the signatures that hold and returns the response: `{"failures": {…}}`.
    pub async fn upload_signatures(&self, user_id: &str, body: &Object) -> Result<Value> {
        let mut outcome = Outcome::default();
        let users: Vec<String> = body.keys().cloned().chain([user_id.to_owned()]).collect();
        let keys = self.cx.store.cross_signing_keys(&users, Some(user_id)).await?;
        for (target, signatures) in body {
            let signatures = object(signatures)?;
            for signed in signatures.values() {
                object(signed)?;
            }
            if target == user_id {
                self.check_own(user_id, signatures, keys.get(user_id), &mut outcome).await?;
            } else {
                check_other(user_id, target, signatures, &keys, &mut outcome);
            }
        }
        let all: Vec<Signature> = outcome.own.iter().chain(&outcome.others).cloned().collect();
        self.cx.store.add_cross_signing_signatures(user_id, &all).await?;
        let mut devices: Vec<String> = outcome.own.into_iter().map(|s| s.target_device_id).collect();
        devices.dedup();
        self.notify_device_update(user_id, &devices).await?;
        let users: Vec<String> = outcome.others.into_iter().map(|s| s.target_user_id).collect();
        if !users.is_empty() {
            self.notify_user_signature_update(user_id, &users).await?;
        }
        Ok(json!({"failures": outcome.failures}))
    }

    async fn check_own(
        &self,
        user_id: &str,
        signatures: &Object,
        keys: Option<&CrossSigningKeys>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        if signatures.is_empty() {
            return Ok(());
        }
        let mut devices = self.cx.store.device_keys(&[user_id.to_owned()], &[], false).await?;
        let devices = devices.remove(user_id);
        let found = verify_key(keys, user_id, "self_signing").and_then(|(_, self_signing)| {
            let (master_key, master) = verify_key(keys, user_id, "master")?;
            let devices = devices.as_ref().ok_or_else(|| Error::not_found("No device keys found"))?;
            Ok(Own { user_id, self_signing, master, master_key, devices })
        });
        for (device_id, signed) in signatures {
            let checked = match &found {
                Ok(own) => own.signatures_on(device_id, object(signed)?),
                Err(e) => {
                    outcome.failures.entry(user_id.to_owned()).or_default().insert(device_id.clone(), failure(e));
                    continue;
                }
            };
            match checked {
                Ok(items) => outcome.own.extend(items),
                Err(e) => {
                    outcome.failures.entry(user_id.to_owned()).or_default().insert(device_id.clone(), failure(&e));
                }
            }
        }
        Ok(())
    }
}

/// Signatures on another user: only that of the user-signing key on the master key is taken.
fn check_other(
    user_id: &str,
    target: &str,
    signatures: &Object,
    keys: &HashMap<String, CrossSigningKeys>,
    outcome: &mut Outcome,
) {
    let mut fail = |device: &str, e: &Error| {
        outcome.failures.entry(target.to_owned()).or_default().insert(device.to_owned(), failure(e));
    };
    let found = verify_key(keys.get(user_id), user_id, "user_signing").and_then(|(_, signing)| {
        let (master_key, master) = verify_key(keys.get(target), target, "master")?;
        let signed = signatures.get(master.version()).and_then(Value::as_object);
        Ok((signing, master_key, signed.ok_or_else(|| Error::not_found("Unknown device"))?, master))
    });
    let (signing, master_key, signed, master) = match found {
        Ok(found) => found,
        Err(e) => return signatures.keys().for_each(|device| fail(device, &e)),
    };
    for device in signatures.keys().filter(|d| *d != master.version()) {
        fail(device, &Error::not_found("Unknown device"));
    }
    if signature_of(master_key, user_id, &signing.id).is_some() {
        return;
    }
    let signature = match check_signed(user_id, &signing, signed, master_key) {
        Ok(()) => signature_of(signed, user_id, &signing.id).unwrap_or_default().to_owned(),
        Err(e) => return fail(master.version(), &e),
    };
    outcome.others.push(Signature {
        key_id: signing.id,
        target_user_id: target.to_owned(),
        target_device_id: master.version().to_owned(),
        signature,
    });
}
