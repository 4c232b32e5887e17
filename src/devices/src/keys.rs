//! Uploading and claiming keys.

use crate::Devices;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::e2e_keys::{Claim, OneTimeKey};
use store::locks::Mode;
use types::{Boxed, Error, Result};

/// Synapse's lock for uploading one-time keys.
const UPLOAD_LOCK: &str = "one_time_key_upload_lock";
/// Most one-time keys of one algorithm a device may hold.
const MAX_ONE_TIME_KEYS: i64 = 500;
/// Most one-time keys one claim gets for a device and algorithm.
const MAX_CLAIMED: i64 = 5;

/// The body of `/keys/upload`, checked for shape.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    pub device_keys: Option<Value>,
    pub one_time_keys: Map<String, Value>,
    pub fallback_keys: Map<String, Value>,
}

/// Whether an uploaded one-time key is the stored one; signatures may differ.
fn same_key(stored: &str, new: &Value) -> bool {
    let Ok(mut stored) = serde_json::from_str::<Value>(stored) else { return false };
    let mut new = new.clone();
    for key in [&mut stored, &mut new] {
        if let Some(object) = key.as_object_mut() {
            object.remove("signatures");
        }
    }
    stored == new
}

/// Splits `algorithm:key_id`.
fn split(name: &str) -> Result<(&str, &str)> {
    let parts = name.split_once(':').filter(|(_, id)| !id.contains(':'));
    parts.ok_or_else(|| {
        Error::bad_json(format!("Invalid one_time_keys key {name:?}. Expected \"<algorithm>:<key_id>\"."))
    })
}

impl Devices {
    /// Stores a device's keys; `{"one_time_key_counts": {…}}`.
    pub async fn upload_keys(&self, user_id: &str, device_id: &str, keys: KeyUpload) -> Result<Value> {
        // Whoever hears of the device claims a key of it at once, so its one-time keys are there before that.
        let mut one_time = Ok(());
        if !keys.one_time_keys.is_empty() {
            one_time = self.upload_one_time_keys(user_id, device_id, &keys.one_time_keys).await;
        }
        if one_time.is_ok() && !keys.fallback_keys.is_empty() {
            self.cx.store.set_fallback_keys(user_id, device_id, &keys.fallback_keys).await?;
        }
        if let Some(device_keys) = &keys.device_keys {
            let now = self.cx.now_ms();
            if self.cx.store.set_device_keys(user_id, device_id, device_keys, now).await? {
                self.notify_device_update(user_id, &[device_id.to_owned()]).await?;
            }
            // The device may have been deleted while its token was still in use.
            self.ensure(user_id, Some(device_id), None, None).await?;
        }
        one_time?;
        let counts = self.cx.store.count_one_time_keys(user_id, device_id).await?;
        Ok(json!({"one_time_key_counts": *counts}))
    }

    async fn upload_one_time_keys(&self, user_id: &str, device_id: &str, keys: &Map<String, Value>) -> Result<()> {
        // Synapse's processes look and add under this lock.
        let _one_at_a_time = self.cx.lock(UPLOAD_LOCK, &format!("{user_id}_{device_id}"), Mode::Exclusive).await?;
        // Two uploads of the same key at once: the unique index lets one of them win, the other looks again.
        for _ in 0..3 {
            let new = self.new_one_time_keys(user_id, device_id, keys).await?;
            if new.is_empty() || self.cx.store.add_one_time_keys(user_id, device_id, &new, self.cx.now_ms()).await? {
                return Ok(());
            }
        }
        Err(Error::internal("the same one-time keys keep being uploaded elsewhere"))
    }

    /// Those keys that are not stored yet. 400 if one exists with another value, or there are too many.
    async fn new_one_time_keys(
        &self,
        user_id: &str,
        device_id: &str,
        keys: &Map<String, Value>,
    ) -> Result<Vec<OneTimeKey>> {
        let names: Vec<(&str, &str)> = keys.keys().map(|name| split(name)).collect::<Result<_>>()?;
        let ids: Vec<&str> = names.iter().map(|(_, id)| *id).collect();
        let stored = self.cx.store.one_time_keys(user_id, device_id, &ids).await?;
        let mut new = Vec::new();
        for ((algorithm, key_id), key) in names.into_iter().zip(keys.values()) {
            match stored.get(&(algorithm.to_owned(), key_id.to_owned())) {
                None => new.push(OneTimeKey {
                    algorithm: algorithm.to_owned(),
                    key_id: key_id.to_owned(),
                    json: key.to_string(),
                }),
                Some(old) if same_key(old, key) => {}
                Some(old) => {
                    return Err(Error::bad_request(format!(
                        "One time key {algorithm}:{key_id} already exists. Old key: {old}; new key: {key}"
                    )));
                }
            }
        }
        self.check_room_for(user_id, device_id, &new).await?;
        Ok(new)
    }

    async fn check_room_for(&self, user_id: &str, device_id: &str, new: &[OneTimeKey]) -> Result<()> {
        let counts = self.cx.store.count_one_time_keys(user_id, device_id).await?;
        let mut added: BTreeMap<&str, i64> = BTreeMap::new();
        for key in new {
            *added.entry(&key.algorithm).or_default() += 1;
        }
        for (algorithm, n) in added {
            let total = counts.get(algorithm).copied().unwrap_or_default() + n;
            if total > MAX_ONE_TIME_KEYS {
                return Err(Error::client(
                    400,
                    "M_TOO_LARGE",
                    format!(
                        "Uploading {n} more {algorithm} one-time keys would leave the device holding {total}, \
                     over the limit of {MAX_ONE_TIME_KEYS}"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Claims one-time keys, or fallback keys where there are none: user → device → algorithm → count.
    /// `always_fallback`: fallback keys come along even where one-time keys were found (MSC3983).
    pub fn claim_keys<'a>(
        &'a self,
        wanted: &'a BTreeMap<String, BTreeMap<String, BTreeMap<String, i64>>>,
        always_fallback: bool,
    ) -> Boxed<'a, Result<Value>> {
        Box::pin(async move {
            let mut claims = Vec::new();
            let mut remote = BTreeMap::new();
            for (user_id, devices) in wanted {
                let Some((_, server)) = user_id.split_once(':').filter(|_| user_id.starts_with('@')) else {
                    return Err(Error::invalid_param(format!("Invalid user id {user_id:?}")));
                };
                if server != self.cx.store.server_name.as_str() {
                    remote.insert(user_id.clone(), devices.clone());
                    continue;
                }
                for (device_id, algorithms) in devices {
                    claims.extend(algorithms.iter().map(|(algorithm, count)| Claim {
                        user_id: user_id.clone(),
                        device_id: device_id.clone(),
                        algorithm: algorithm.clone(),
                        count: (*count).clamp(0, MAX_CLAIMED),
                    }));
                }
            }
            let one_time = self.cx.store.claim_one_time_keys(&claims).await?;
            let found = |c: &Claim| {
                let of = one_time.iter().filter(|(u, d, name, _)| {
                    *u == c.user_id && *d == c.device_id && name.split_once(':').is_some_and(|(a, _)| a == c.algorithm)
                });
                of.count() as i64
            };
            let (fallback, mark): (Vec<Claim>, Vec<bool>) = if always_fallback {
                claims.iter().map(|c| (c.clone(), found(c) == 0)).unzip()
            } else {
                claims.iter().filter(|c| found(c) < c.count).map(|c| (c.clone(), true)).unzip()
            };
            let fallback = self.cx.store.claim_fallback_keys(&fallback, &mark).await?;
            let mut result: BTreeMap<String, BTreeMap<String, Map<String, Value>>> = BTreeMap::new();
            for (user, device, name, key) in one_time.into_iter().chain(fallback) {
                result.entry(user).or_default().entry(device).or_default().insert(name, key);
            }
            let (elsewhere, failures) = self.claim_elsewhere(&remote).await;
            let mut result = json!(result);
            if let Some(result) = result.as_object_mut() {
                result.extend(elsewhere);
            }
            Ok(json!({"one_time_keys": result, "failures": failures}))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_keys_are_compared_without_signatures() {
        assert!(same_key(r#"{"key":"a","signatures":{"x":1}}"#, &json!({"key": "a", "signatures": {"y": 2}})));
        assert!(!same_key(r#"{"key":"a"}"#, &json!({"key": "b"})));
        assert!(same_key(r#""a""#, &json!("a")));
    }

    #[test]
    fn key_names_have_exactly_one_colon() {
        assert!(split("curve25519:AAA").is_ok());
        assert!(split("curve25519").is_err());
        assert!(split("a:b:c").is_err());
    }
}
