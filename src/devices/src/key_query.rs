//! `/keys/query`.

use crate::Devices;
use crate::remote::{Remote, keys_of};
use ruma::UserId;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::e2e_keys::UserDevice;
use types::Result;

/// Device keys in the response: user → device → keys.
type Found = BTreeMap<String, Map<String, Value>>;

impl Devices {
    /// The response to a query for users' devices (an empty list: all of a user's).
    pub async fn query_keys(&self, asker: &str, query: &BTreeMap<String, Vec<String>>) -> Result<Value> {
        let valid = query.iter().filter(|(user, _)| UserId::parse(user.as_str()).is_ok());
        let own = self.cx.store.server_name.as_str();
        let (local, remote): (Vec<_>, Vec<_>) =
            valid.partition(|(user, _)| user.split_once(':').is_some_and(|(_, server)| server == own));
        let users: Vec<String> = local.iter().chain(&remote).map(|(u, _)| (*u).clone()).collect();
        let mut found = self.local_keys(&local, true).await?;
        let asked = self.remote_keys(&remote, &mut found).await?;
        let cross = self.cx.store.cross_signing_keys(&users, Some(asker)).await?;
        let of = |kind: &str, keep: &dyn Fn(&str) -> bool, told: Map<String, Value>| -> Map<String, Value> {
            let known = cross.iter().filter(|(u, _)| keep(u)).filter_map(|(u, k)| Some((u, k.get(kind)?)));
            // What a server says now is newer than what we keep of its users.
            known.map(|(u, k)| (u.clone(), Value::Object(k.clone()))).chain(told).collect()
        };
        Ok(json!({
            "device_keys": found,
            "failures": asked.failures,
            "master_keys": of("master", &|_| true, asked.master_keys),
            "self_signing_keys": of("self_signing", &|_| true, asked.self_signing_keys),
            "user_signing_keys": of("user_signing", &|u| u == asker, Map::new()),
        }))
    }

    /// Keys of our users' devices. Users without any are there with an empty map.
    pub async fn local_keys(&self, query: &[(&String, &Vec<String>)], with_names: bool) -> Result<Found> {
        let mut found: Found = query.iter().map(|(user, _)| ((*user).clone(), Map::new())).collect();
        if query.is_empty() {
            return Ok(found);
        }
        let users: Vec<String> = query.iter().filter(|(_, d)| d.is_empty()).map(|(u, _)| (*u).clone()).collect();
        let devices: Vec<UserDevice> =
            query.iter().flat_map(|(u, ids)| ids.iter().map(|d| ((*u).clone(), d.clone()))).collect();
        for (user, devices) in self.cx.store.device_keys(&users, &devices, false).await? {
            let theirs = found.entry(user.clone()).or_default();
            for (device_id, device) in devices {
                let Some(mut keys) = device.keys else { continue };
                // There even if nobody signed, as in Synapse.
                if let Some(signatures) = keys.entry("signatures").or_insert_with(|| json!({})).as_object_mut() {
                    signatures.entry(&user).or_insert_with(|| json!({}));
                }
                let name = device.display_name.filter(|_| with_names);
                let unsigned = name.map_or_else(|| json!({}), |n| json!({"device_display_name": n}));
                keys.insert("unsigned".to_owned(), unsigned);
                theirs.insert(device_id, Value::Object(keys));
            }
        }
        Ok(found)
    }

    /// Adds other servers' users: from what we keep, else by asking.
    async fn remote_keys(&self, query: &[(&String, &Vec<String>)], found: &mut Found) -> Result<Remote> {
        if query.is_empty() {
            return Ok(Remote::default());
        }
        let users: Vec<String> = query.iter().map(|(u, _)| (*u).clone()).collect();
        let mut known = self.cx.store.cached_remote_devices(&users).await?;
        let mut missing = BTreeMap::new();
        for (user, wanted) in query {
            let Some(devices) = known.remove(*user) else {
                missing.insert((*user).clone(), (*wanted).clone());
                continue;
            };
            let devices = devices.into_iter().filter(|(id, _)| wanted.is_empty() || wanted.contains(id));
            let theirs = devices.filter_map(|(id, content)| Some((id, keys_of(&content)?)));
            found.entry((*user).clone()).or_default().extend(theirs);
        }
        let mut asked = self.ask_for_keys(&missing).await?;
        found.append(&mut asked.device_keys);
        Ok(asked)
    }
}
