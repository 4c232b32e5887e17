//! Cross-signing keys and signatures: `e2e_cross_signing_keys`, `e2e_cross_signing_signatures`.

use crate::e2e_keys::merge_signatures;
use crate::{Store, transaction};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use types::{Error, Result};

/// A user's cross-signing keys by type: `master`, `self_signing`, `user_signing`.
pub type CrossSigningKeys = BTreeMap<String, Map<String, Value>>;

/// A signature on a device (of the signer's) or on a master key.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// `ed25519:<public key or device id>`
    pub key_id: String,
    pub target_user_id: String,
    /// Device id or public key.
    pub target_device_id: String,
    pub signature: String,
}

/// The public key of a cross-signing key: the only value of its `keys`.
pub fn public_key(key: &Map<String, Value>) -> Option<&str> {
    key.get("keys")?.as_object()?.values().next()?.as_str()
}

impl Store {
    /// Current cross-signing keys of users; with the signatures `viewer` made on them, if given.
    pub async fn cross_signing_keys(
        &self,
        users: &[String],
        viewer: Option<&str>,
    ) -> Result<HashMap<String, CrossSigningKeys>> {
        let sql = "SELECT DISTINCT ON (user_id, keytype) user_id, keytype, keydata
                   FROM e2e_cross_signing_keys WHERE user_id = ANY($1)
                   ORDER BY user_id, keytype, stream_id DESC";
        let mut keys: HashMap<String, CrossSigningKeys> = HashMap::new();
        for row in self.db.query(sql, &[&users]).await? {
            let key = serde_json::from_str(row.get(2))?;
            keys.entry(row.get(0)).or_default().insert(row.get(1), key);
        }
        if let Some(viewer) = viewer {
            self.add_signatures_of(viewer, &mut keys).await?;
        }
        Ok(keys)
    }

    async fn add_signatures_of(&self, viewer: &str, keys: &mut HashMap<String, CrossSigningKeys>) -> Result<()> {
        let (mut users, mut publics) = (Vec::new(), Vec::new());
        for (user, theirs) in keys.iter() {
            for public in theirs.values().filter_map(public_key) {
                users.push(user.clone());
                publics.push(public.to_owned());
            }
        }
        if users.is_empty() {
            return Ok(());
        }
        let sql = "SELECT target_user_id, target_device_id, key_id, signature FROM e2e_cross_signing_signatures
                   WHERE user_id = $1 AND (target_user_id, target_device_id) IN
                         (SELECT * FROM unnest($2::text[], $3::text[]))";
        for row in self.db.query(sql, &[&viewer, &users, &publics]).await? {
            let Some(theirs) = keys.get_mut(row.get::<_, &str>(0)) else { continue };
            let target = theirs.values_mut().find(|k| public_key(k) == Some(row.get(1)));
            if let Some(key) = target {
                merge_signatures(key, viewer, [(row.get(2), row.get(3))]);
            }
        }
        Ok(())
    }

    /// Stores new cross-signing keys (type, key) of a user in one transaction. A key of one of our users
    /// takes its public key as a hidden device id; 400 if the user has a device of that name.
    pub async fn set_cross_signing_keys(&self, user_id: &str, keys: &[(&str, Map<String, Value>)]) -> Result<()> {
        let is_ours = user_id.split_once(':').is_some_and(|(_, server)| server == self.server_name.as_str());
        let kinds: Vec<&str> = keys.iter().map(|(kind, _)| *kind).collect();
        let texts: Vec<String> = keys.iter().map(|(_, k)| serde_json::to_string(k)).collect::<Result<_, _>>()?;
        let publics: Vec<&str> = keys.iter().filter_map(|(_, k)| public_key(k)).collect();
        let names: Vec<String> = kinds.iter().map(|kind| format!("{kind} signing key")).collect();
        let outcome = transaction!(self, "add_e2e_cross_signing_key", |tx| {
            if is_ours {
                let sql = "INSERT INTO devices (user_id, device_id, display_name, hidden)
                           SELECT $1, t.id, t.name, true FROM unnest($2::text[], $3::text[]) AS t(id, name)";
                tx.run(sql, &[&user_id, &publics, &names]).await?;
            }
            let sql = "INSERT INTO e2e_cross_signing_keys (user_id, keytype, keydata, stream_id, instance_name)
                       SELECT $1, t.kind, t.data, nextval('e2e_cross_signing_keys_sequence'), $2
                       FROM unnest($3::text[], $4::text[]) AS t(kind, data)";
            tx.run(sql, &[&user_id, &self.instance(), &kinds, &texts]).await?;
            tx.forget_named(self, "_get_bare_e2e_cross_signing_keys", Some(vec![user_id.to_owned()])).await
        });
        match outcome {
            Err(e) if crate::db::is_constraint(&e) => {
                Err(Error::invalid_param("A cross-signing key has the public key of an existing device or key"))
            }
            other => other,
        }
    }

    /// Whether a user has a master key, and until when (ms) it may be replaced without UI auth.
    pub async fn master_key_replaceable_until(&self, user_id: &str) -> Result<(bool, Option<i64>)> {
        let sql = "SELECT updatable_without_uia_before_ms FROM e2e_cross_signing_keys
                   WHERE user_id = $1 AND keytype = 'master' ORDER BY stream_id DESC LIMIT 1";
        let row = self.db.query_opt(sql, &[&user_id]).await?;
        Ok((row.is_some(), row.and_then(|r| r.get(0))))
    }

    /// Stores signatures `user_id` made.
    pub async fn add_cross_signing_signatures(&self, user_id: &str, signatures: &[Signature]) -> Result<()> {
        if signatures.is_empty() {
            return Ok(());
        }
        let key_ids: Vec<&str> = signatures.iter().map(|s| s.key_id.as_str()).collect();
        let users: Vec<&str> = signatures.iter().map(|s| s.target_user_id.as_str()).collect();
        let devices: Vec<&str> = signatures.iter().map(|s| s.target_device_id.as_str()).collect();
        let texts: Vec<&str> = signatures.iter().map(|s| s.signature.as_str()).collect();
        transaction!(self, "add_e2e_signing_key", |tx| {
            let sql = "INSERT INTO e2e_cross_signing_signatures
                           (user_id, key_id, target_user_id, target_device_id, signature)
                       SELECT $1, t.key_id, t.user_id, t.device_id, t.signature
                       FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])
                            AS t(key_id, user_id, device_id, signature)
                       ON CONFLICT (user_id, target_user_id, target_device_id, key_id)
                       DO UPDATE SET signature = EXCLUDED.signature";
            tx.run(sql, &[&user_id, &key_ids, &users, &devices, &texts]).await?;
            // The key of this cache is a pair in one string.
            let entries = devices.iter().map(|d| {
                let key = serde_json::json!([user_id, d]).to_string();
                ("_get_e2e_cross_signing_signatures_for_device".to_owned(), Some(vec![key]))
            });
            tx.forget_many(self, entries.collect()).await
        })
    }
}
