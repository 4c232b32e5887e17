//! Checking ed25519 signatures on JSON objects.

use ruma::serde::{Base64, base64::Standard};
use ruma::signatures::{SigningKeyAlgorithm, verify_canonical_json_bytes};
use serde_json::{Map, Value};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// A public key with its name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VerifyKey {
    /// `ed25519:<version>`
    pub id: String,
    pub bytes: Vec<u8>,
}

impl VerifyKey {
    /// None if the name is not of an ed25519 key or the value no base64.
    pub fn new(id: &str, base64: &str) -> Option<Self> {
        id.strip_prefix("ed25519:")?;
        let bytes = Base64::<Standard, Vec<u8>>::parse(base64).ok()?.into_inner();
        (bytes.len() == 32).then(|| Self { id: id.to_owned(), bytes })
    }

    /// The key of a cross-signing key object: the only entry of its `keys`.
    pub fn of_cross_signing_key(key: &Object) -> Option<Self> {
        let keys = key.get("keys")?.as_object()?;
        let (id, value) = keys.iter().next().filter(|_| keys.len() == 1)?;
        Self::new(id, value.as_str()?)
    }

    /// What follows `ed25519:`.
    pub fn version(&self) -> &str {
        self.id.split_once(':').map_or("", |(_, v)| v)
    }
}

/// The signature `user` made with the key named `key_id`, as it stands in the object.
pub(crate) fn signature_of<'a>(object: &'a Object, user: &str, key_id: &str) -> Option<&'a str> {
    object.get("signatures")?.get(user)?.get(key_id)?.as_str()
}

/// The object without what is not signed.
pub(crate) fn signed_part(object: &Object) -> Object {
    let mut part = object.clone();
    part.remove("signatures");
    part.remove("unsigned");
    part
}

/// Whether the object carries a valid signature of `user` by `key`.
pub(crate) fn is_signed_by(object: &Object, user: &str, key: &VerifyKey) -> bool {
    let Some(signature) = signature_of(object, user, &key.id) else { return false };
    let Ok(signature) = Base64::<Standard, Vec<u8>>::parse(signature) else { return false };
    // Maps are sorted, so this is canonical JSON.
    let text = Value::Object(signed_part(object)).to_string();
    verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, &key.bytes, signature.as_bytes(), text.as_bytes())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::signatures::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    fn object(value: Value) -> Object {
        match value {
            Value::Object(o) => o,
            _ => Object::new(),
        }
    }

    #[test]
    fn a_signature_covers_all_but_signatures_and_unsigned() {
        let document = Ed25519KeyPair::generate();
        let pair = Ed25519KeyPair::from_der(&document, "k".to_owned()).unwrap();
        let mut key = object(json!({"b": 1, "a": {"z": "ü", "c": [true]}, "unsigned": {"x": 1}}));
        let signature = pair.sign(r#"{"a":{"c":[true],"z":"ü"},"b":1}"#.as_bytes()).base64();
        key.insert("signatures".into(), json!({"@a:x": {"ed25519:k": signature}}));
        let public = Base64::<Standard, Vec<u8>>::new(pair.public_key().to_vec()).encode();
        let verify = VerifyKey::new("ed25519:k", &public).unwrap();
        assert!(is_signed_by(&key, "@a:x", &verify));
        assert!(!is_signed_by(&key, "@b:x", &verify));
        key.insert("unsigned".into(), json!({}));
        assert!(is_signed_by(&key, "@a:x", &verify));
        key.insert("b".into(), json!(2));
        assert!(!is_signed_by(&key, "@a:x", &verify));
    }

    #[test]
    fn cross_signing_keys_have_one_key() {
        let key = "k".repeat(42) + "A";
        assert!(VerifyKey::of_cross_signing_key(&object(json!({"keys": {"ed25519:a": key}}))).is_some());
        assert!(
            VerifyKey::of_cross_signing_key(&object(json!({"keys": {"ed25519:a": key, "ed25519:b": key}}))).is_none()
        );
        assert!(VerifyKey::of_cross_signing_key(&object(json!({"keys": {"curve25519:a": key}}))).is_none());
        assert!(VerifyKey::of_cross_signing_key(&object(json!({}))).is_none());
    }
}
