//! Cross-signing keys: upload and look-up.

use crate::Devices;
use crate::signing::{Object, VerifyKey, is_signed_by};
use types::{Error, Result};

/// Field of the request and type in the store.
const KINDS: [(&str, &str); 3] =
    [("master_key", "master"), ("self_signing_key", "self_signing"), ("user_signing_key", "user_signing")];

/// Checks owner, usage and number of keys, and the signature by the master key if that is given.
fn check(key: &Object, user_id: &str, kind: &str, master: Option<&VerifyKey>) -> Result<()> {
    let usage = key.get("usage").and_then(|u| u.as_array());
    let fits = key.get("user_id").and_then(|u| u.as_str()) == Some(user_id)
        && usage.is_some_and(|u| u.iter().any(|k| k.as_str() == Some(kind)))
        && key.get("keys").and_then(|k| k.as_object()).is_some_and(|k| k.len() == 1);
    if !fits {
        return Err(Error::invalid_param(format!("Invalid {kind} key")));
    }
    match master {
        Some(master) if !is_signed_by(key, user_id, master) => {
            Err(Error::client(400, "M_INVALID_SIGNATURE", format!("Invalid signature on {kind} key")))
        }
        _ => Ok(()),
    }
}

impl Devices {
    /// Which of the uploaded keys (`master_key` and so on in `body`) differ from those stored.
    async fn changed_keys<'a>(&self, user_id: &str, body: &'a Object) -> Result<Vec<(&'static str, &'a Object)>> {
        let mut stored = self.cx.store.cross_signing_keys(&[user_id.to_owned()], None).await?;
        let stored = stored.remove(user_id).unwrap_or_default();
        let mut changed = Vec::new();
        for (field, kind) in KINDS {
            match body.get(field) {
                None => {}
                Some(serde_json::Value::Object(key)) if stored.get(kind) == Some(key) => {}
                Some(serde_json::Value::Object(key)) => changed.push((kind, key)),
                Some(_) => return Err(Error::bad_json(format!("{field} must be an object"))),
            }
        }
        Ok(changed)
    }

    /// Whether an upload changes anything: if not, it is answered without more ado.
    pub async fn has_new_cross_signing_keys(&self, user_id: &str, body: &Object) -> Result<bool> {
        Ok(!self.changed_keys(user_id, body).await?.is_empty())
    }

    /// Whether uploading keys needs user-interactive authentication: once there is a master key.
    pub async fn cross_signing_needs_auth(&self, user_id: &str) -> Result<bool> {
        Ok(self.cx.store.master_key_replaceable_until(user_id).await?.0)
    }

    /// Stores new cross-signing keys; all or none.
    pub async fn upload_cross_signing_keys(&self, user_id: &str, body: &Object) -> Result<()> {
        let changed = self.changed_keys(user_id, body).await?;
        let master = self.master_key_for(user_id, body).await?;
        let mut keys = Vec::new();
        let mut device_ids = Vec::new();
        let mut user_signing = false;
        for (kind, key) in changed {
            check(key, user_id, kind, (kind != "master").then_some(&master))?;
            let verify = VerifyKey::of_cross_signing_key(key)
                .ok_or_else(|| Error::invalid_param(format!("Invalid {kind} key")))?;
            match kind {
                "user_signing" => user_signing = true,
                _ => device_ids.push(verify.version().to_owned()),
            }
            keys.push((kind, key.clone()));
        }
        self.cx.store.set_cross_signing_keys(user_id, &keys).await?;
        if user_signing {
            self.notify_user_signature_update(user_id, &[user_id.to_owned()]).await?;
        }
        self.notify_device_update(user_id, &device_ids).await
    }

    /// The master key that is uploaded, or else the stored one.
    async fn master_key_for(&self, user_id: &str, body: &Object) -> Result<VerifyKey> {
        if let Some(key) = body.get("master_key").and_then(|k| k.as_object()) {
            check(key, user_id, "master", None)?;
            return VerifyKey::of_cross_signing_key(key).ok_or_else(|| Error::invalid_param("Invalid master key"));
        }
        let mut stored = self.cx.store.cross_signing_keys(&[user_id.to_owned()], None).await?;
        let stored = stored.remove(user_id).and_then(|mut keys| keys.remove("master"));
        let Some(key) = stored else { return Err(Error::missing_param("No master key available")) };
        VerifyKey::of_cross_signing_key(&key).ok_or_else(|| Error::internal("the stored master key is unusable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_must_name_owner_and_usage() {
        let key = |user: &str, usage: &str| match json!({"user_id": user, "usage": [usage], "keys": {"ed25519:a": "x"}})
        {
            serde_json::Value::Object(o) => o,
            _ => Object::new(),
        };
        assert!(check(&key("@a:x", "master"), "@a:x", "master", None).is_ok());
        assert!(check(&key("@b:x", "master"), "@a:x", "master", None).is_err());
        assert!(check(&key("@a:x", "self_signing"), "@a:x", "master", None).is_err());
    }
}
