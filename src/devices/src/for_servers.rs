//! Keys of our users' devices, as other servers ask for them.

use crate::Devices;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::cross_signing::CrossSigningKeys;
use types::{Error, Result};

impl Devices {
    /// All devices of a user, for a server that follows their changes (`/user/devices/{userId}`).
    pub async fn devices_for_server(&self, user_id: &str) -> Result<Value> {
        let all = Vec::new();
        let user = user_id.to_owned();
        let names = self.cx.config.federation.allow_device_name_lookup;
        let stream_id = self.cx.store.devices_changed_at(user_id).await?;
        let mut found = self.local_keys(&[(&user, &all)], names).await?;
        let devices: Vec<Value> = found
            .remove(&user)
            .unwrap_or_default()
            .into_iter()
            .map(|(device_id, mut keys)| {
                let name = keys.get_mut("unsigned").and_then(|u| u.get_mut("device_display_name")).map(Value::take);
                if let Some(keys) = keys.as_object_mut() {
                    keys.remove("unsigned");
                }
                let mut device = json!({"device_id": device_id, "keys": keys});
                if let Some(name) = name {
                    device["device_display_name"] = name;
                }
                device
            })
            .collect();
        let mut answer = json!({"user_id": user_id, "stream_id": stream_id, "devices": devices});
        let cross = self.cx.store.cross_signing_keys(std::slice::from_ref(&user), None).await?;
        if let Some(keys) = cross.get(&user) {
            for (kind, field) in [("master", "master_key"), ("self_signing", "self_signing_key")] {
                if let Some(key) = keys.get(kind) {
                    answer[field] = json!(key);
                }
            }
        }
        Ok(answer)
    }

    /// Keys of some users' devices (`/user/keys/query`). An empty list: all of a user's.
    pub async fn keys_for_server(&self, query: &BTreeMap<String, Vec<String>>) -> Result<Value> {
        let suffix = format!(":{}", self.cx.store.server_name);
        if let Some(other) = query.keys().find(|user| !user.ends_with(&suffix)) {
            return Err(Error::bad_request(format!("device_keys: not a user here: {other}")));
        }
        let wanted: Vec<(&String, &Vec<String>)> = query.iter().collect();
        let found = self.local_keys(&wanted, self.cx.config.federation.allow_device_name_lookup).await?;
        let users: Vec<String> = query.keys().cloned().collect();
        let cross = self.cx.store.cross_signing_keys(&users, None).await?;
        let of = |kind: &str| -> BTreeMap<&String, &Map<String, Value>> {
            cross.iter().filter_map(|(u, k): (&String, &CrossSigningKeys)| Some((u, k.get(kind)?))).collect()
        };
        Ok(json!({"device_keys": found, "master_keys": of("master"), "self_signing_keys": of("self_signing")}))
    }
}
