//! Devices of other servers' users: asking for them, and following their changes.

use crate::Devices;
use fedclient::{FedError, escape};
use futures::StreamExt;
use futures::stream::iter;
use ruma::{OwnedServerName, ServerName};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::Stream;
use store::cross_signing::public_key;
use types::{Boxed, Error, Result};

/// Servers asked at the same time.
const AT_ONCE: usize = 10;
/// A list of more devices than this is not kept.
const MAX_DEVICES: usize = 1_000;

/// A JSON object.
type Object = Map<String, Value>;

/// What other servers told of their users.
#[derive(Default)]
pub(crate) struct Remote {
    /// User → device → keys.
    pub device_keys: BTreeMap<String, Object>,
    pub master_keys: Object,
    pub self_signing_keys: Object,
    /// Server → why it could not be asked.
    pub failures: Object,
}

/// How a failure appears in answers.
fn failure(e: &FedError) -> Value {
    match e {
        FedError::Refused(e) => json!({"status": e.status, "errcode": e.errcode, "message": e.message}),
        FedError::BackingOff { .. } => json!({"status": 503, "message": "Not ready for retry"}),
        other => json!({"status": 503, "message": other.to_string()}),
    }
}

/// The server of a user id.
pub(crate) fn server_of(user_id: &str) -> Option<&ServerName> {
    user_id.split_once(':').and_then(|(_, server)| <&ServerName>::try_from(server).ok())
}

/// Sorts what is wanted of users by their servers.
fn by_server<T: Clone>(wanted: &BTreeMap<String, T>) -> BTreeMap<OwnedServerName, BTreeMap<String, T>> {
    let mut servers: BTreeMap<OwnedServerName, BTreeMap<String, T>> = BTreeMap::new();
    for (user, what) in wanted {
        if let Some(server) = server_of(user) {
            servers.entry(server.to_owned()).or_default().insert(user.clone(), what.clone());
        }
    }
    servers
}

/// The keys of a device as clients see them.
pub(crate) fn keys_of(device: &Object) -> Option<Value> {
    let mut keys = device.get("keys")?.as_object()?.clone();
    let name = device.get("device_display_name").filter(|n| n.is_string());
    if let (Some(name), Some(unsigned)) = (name, keys.entry("unsigned").or_insert_with(|| json!({})).as_object_mut()) {
        unsigned.insert("device_display_name".to_owned(), name.clone());
    }
    Some(Value::Object(keys))
}

impl Devices {
    /// Asks other servers for devices of their users (an empty list: all of a user's).
    pub(crate) async fn ask_for_keys(&self, wanted: &BTreeMap<String, Vec<String>>) -> Result<Remote> {
        let mut all = Remote::default();
        let users: Vec<String> = wanted.keys().cloned().collect();
        // Whom we share a room with is followed from now on.
        let followed = self.cx.store.users_sharing_rooms(&users).await?;
        let asked = iter(by_server(wanted)).map(|(server, wanted)| {
            let follow: Vec<String> = followed.iter().filter(|u| wanted.contains_key(*u)).cloned().collect();
            self.ask_server_for_keys(server, wanted, follow)
        });
        let mut asked = asked.buffer_unordered(AT_ONCE);
        while let Some(mut found) = asked.next().await {
            all.device_keys.append(&mut found.device_keys);
            all.master_keys.append(&mut found.master_keys);
            all.self_signing_keys.append(&mut found.self_signing_keys);
            all.failures.append(&mut found.failures);
        }
        Ok(all)
    }

    async fn ask_server_for_keys(
        &self,
        server: OwnedServerName,
        mut wanted: BTreeMap<String, Vec<String>>,
        follow: Vec<String>,
    ) -> Remote {
        let mut found = Remote::default();
        if !follow.is_empty() {
            match self.resync(&follow).await {
                Ok(lists) => {
                    for (user, list) in lists {
                        if let Some(list) = list {
                            let devices = wanted.remove(&user).unwrap_or_default();
                            found.take_list(user, &devices, &list);
                        }
                    }
                }
                // What is missing is asked for below.
                Err(e) => slog::warn!(self.cx.log, "devices are not followed"; "server" => %server, "error" => %e),
            }
        }
        if wanted.is_empty() {
            return found;
        }
        let body = json!({"device_keys": wanted});
        match self.fed.post(server.as_str(), "/_matrix/federation/v1/user/keys/query", &body).await {
            Ok(answer) => found.take_answer(&wanted, &answer),
            Err(e) => {
                found.failures.insert(server.to_string(), failure(&e));
            }
        }
        found
    }

    /// Claims one-time keys of other servers' devices: (user → device → key, server → failure).
    pub(crate) fn claim_elsewhere<'a>(
        &'a self,
        wanted: &'a BTreeMap<String, BTreeMap<String, BTreeMap<String, i64>>>,
    ) -> Boxed<'a, (Object, Object)> {
        Box::pin(async move {
            let (mut keys, mut failures) = (Object::new(), Object::new());
            let asked = iter(by_server(wanted)).map(|(server, wanted)| async move {
                // One key of one algorithm a device is what the endpoint knows.
                let one = |algorithms: &BTreeMap<String, i64>| algorithms.keys().next().cloned();
                let body: BTreeMap<&String, BTreeMap<&String, String>> = wanted
                    .iter()
                    .map(|(user, devices)| (user, devices.iter().filter_map(|(d, a)| Some((d, one(a)?))).collect()))
                    .collect();
                let body = json!({"one_time_keys": body});
                let answer = self.fed.post(server.as_str(), "/_matrix/federation/v1/user/keys/claim", &body).await;
                (server, wanted, answer)
            });
            let mut asked = asked.buffer_unordered(AT_ONCE);
            while let Some((server, wanted, answer)) = asked.next().await {
                match answer {
                    Ok(answer) => {
                        let theirs = answer.get("one_time_keys").and_then(Value::as_object).into_iter().flatten();
                        keys.extend(
                            theirs.filter(|(user, _)| wanted.contains_key(*user)).map(|(u, k)| (u.clone(), k.clone())),
                        );
                    }
                    Err(e) => {
                        failures.insert(server.to_string(), failure(&e));
                    }
                }
            }
            (keys, failures)
        })
    }

    /// Devices of users of one other server, fetched where they are not complete here; None where that failed.
    /// Shape: the answer of `GET /_matrix/federation/v1/user/devices/{userId}`.
    pub fn resync<'a>(&'a self, user_ids: &'a [String]) -> Boxed<'a, Result<BTreeMap<String, Option<Value>>>> {
        Box::pin(async move {
            if !self.cx.store.streams.is_writer(Stream::DeviceLists) {
                let answer =
                    self.ask_writer("multi_user_device_resync", &[], true, json!({"user_ids": user_ids})).await?;
                return Ok(serde_json::from_value(answer)?);
            }
            let mut known = self.kept(user_ids).await?;
            let mut lists = BTreeMap::new();
            let mut stale = Vec::new();
            for user in user_ids {
                let list = match known.remove(user) {
                    Some(list) => Ok(list),
                    None => self.fetch_devices(user).await,
                };
                if let Err(e) = &list {
                    slog::info!(self.cx.log, "devices of another server's user are not to be had"; "user" => user, "error" => %e);
                    stale.push(user.clone());
                }
                lists.insert(user.clone(), list.ok());
            }
            self.cx.store.mark_remote_devices_stale(&stale, self.cx.now_ms()).await?;
            Ok(lists)
        })
    }

    /// The lists that are complete here, in the shape of [`Self::resync`].
    async fn kept(&self, user_ids: &[String]) -> Result<BTreeMap<String, Value>> {
        let known = self.cx.store.cached_remote_devices(user_ids).await?.into_iter();
        Ok(known
            .map(|(user, devices)| {
                let devices: Vec<Object> = devices.into_values().collect();
                let list = json!({"user_id": user, "devices": devices});
                (user, list)
            })
            .collect())
    }

    /// Fetches all devices of a user and keeps them, unless somebody else does so just now.
    fn fetch_devices<'a>(&'a self, user_id: &'a str) -> Boxed<'a, Result<Value>> {
        Box::pin(async move {
            let server = server_of(user_id).ok_or_else(|| Error::invalid_param("Invalid user id"))?;
            let turn = self.turn_of(user_id);
            let at_once = turn.try_lock();
            let waited = at_once.is_err();
            let _turn = match at_once {
                Ok(turn) => turn,
                Err(_) => turn.lock().await,
            };
            if waited && let Some(list) = self.kept(&[user_id.to_owned()]).await?.remove(user_id) {
                return Ok(list);
            }
            let path = format!("/_matrix/federation/v1/user/devices/{}", escape(user_id));
            let list = self.fed.get(server.as_str(), &path).await?;
            let bad = || Error::client(502, "M_UNKNOWN", format!("{server} gave an unusable list of devices"));
            let at = match list.get("stream_id") {
                Some(Value::Number(n)) => n.to_string(),
                Some(Value::String(s)) => s.clone(),
                _ => return Err(bad()),
            };
            let devices = list.get("devices").and_then(Value::as_array).ok_or_else(bad)?;
            let id_of = |d: &Value| d.get("device_id").and_then(Value::as_str).map(str::to_owned);
            let ids: Vec<String> = devices.iter().map(|d| id_of(d).ok_or_else(bad)).collect::<Result<_>>()?;
            let mut changed = Vec::new();
            if devices.len() <= MAX_DEVICES {
                let contents: Vec<(String, String)> =
                    ids.iter().cloned().zip(devices.iter().map(Value::to_string)).collect();
                changed = self.cx.store.replace_remote_devices(user_id, &contents, &at).await?;
                changed.extend(ids);
            }
            let (master, own) = (list.get("master_key"), list.get("self_signing_key"));
            changed.extend(self.take_cross_signing_keys(user_id, master, own).await?);
            self.notify_device_update(user_id, &changed).await?;
            Ok(list)
        })
    }

    /// Keeps new cross-signing keys of another server's user; their public keys.
    fn take_cross_signing_keys<'a>(
        &'a self,
        user_id: &'a str,
        master: Option<&'a Value>,
        own: Option<&'a Value>,
    ) -> Boxed<'a, Result<Vec<String>>> {
        Box::pin(async move {
            let known = self.cx.store.cross_signing_keys(&[user_id.to_owned()], None).await?;
            let known = known.get(user_id);
            let mut new: Vec<(&str, Object)> = Vec::new();
            for (kind, key) in [("master", master), ("self_signing", own)] {
                let Some(key) = key.and_then(Value::as_object) else { continue };
                let is_theirs =
                    key.get("user_id").and_then(Value::as_str) == Some(user_id) && public_key(key).is_some();
                if is_theirs && known.and_then(|k| k.get(kind)) != Some(key) {
                    new.push((kind, key.clone()));
                }
            }
            if new.is_empty() {
                return Ok(Vec::new());
            }
            self.cx.store.set_cross_signing_keys(user_id, &new).await?;
            Ok(new.iter().filter_map(|(_, key)| public_key(key)).map(str::to_owned).collect())
        })
    }

    /// A device of another server's user changed (`m.device_list_update`). Must be in a writer of device lists.
    pub async fn take_device_update(&self, origin: &ServerName, update: &Object) -> Result<()> {
        let Some((user_id, device_id, at)) = named(origin, update) else { return Ok(()) };
        if self.cx.store.users_sharing_rooms(&[user_id.to_owned()]).await?.is_empty() {
            return Ok(());
        }
        let previous: Vec<String> =
            update.get("prev_id").and_then(Value::as_array).into_iter().flatten().map(stream_id).collect();
        let turn = self.turn_of(user_id);
        let applied = {
            let _turn = turn.lock().await;
            let known = self.cx.store.remote_devices_at(user_id).await?;
            let follows = !previous.is_empty() && previous.iter().all(|p| Some(p) == known.as_ref());
            if follows {
                let gone = update.get("deleted") == Some(&Value::Bool(true));
                let mut content = update.clone();
                ["user_id", "stream_id", "prev_id", "org.matrix.opentracing_context"]
                    .iter()
                    .for_each(|k| drop(content.remove(*k)));
                let content = (!gone).then(|| Value::Object(content).to_string());
                self.cx.store.set_remote_device(user_id, device_id, content.as_deref(), &at).await?;
            }
            follows
        };
        if applied {
            return self.notify_device_update(user_id, &[device_id.to_owned()]).await;
        }
        self.cx.store.mark_remote_devices_stale(&[user_id.to_owned()], self.cx.now_ms()).await?;
        let (this, user) = (self.clone(), user_id.to_owned());
        tokio::spawn(async move {
            if let Err(e) = this.resync(&[user]).await {
                slog::info!(this.cx.log, "devices of another server's user are not to be had"; "error" => %e);
            }
        });
        Ok(())
    }

    /// Cross-signing keys of another server's user changed (`m.signing_key_update`).
    pub async fn take_signing_key_update(&self, origin: &ServerName, update: &Object) -> Result<()> {
        let user = update.get("user_id").and_then(Value::as_str).filter(|u| server_of(u) == Some(origin));
        let Some(user_id) = user else { return Ok(()) };
        if self.cx.store.users_sharing_rooms(&[user_id.to_owned()]).await?.is_empty() {
            return Ok(());
        }
        let keys =
            self.take_cross_signing_keys(user_id, update.get("master_key"), update.get("self_signing_key")).await?;
        self.notify_device_update(user_id, &keys).await
    }

    /// Tries again to fetch lists that could not be had.
    pub(crate) async fn retry_stale(&self) -> Result<()> {
        for user in self.cx.store.stale_remote_devices(MAX_RETRIED).await? {
            self.resync(&[user]).await?;
        }
        Ok(())
    }
}

/// Lists tried in one round.
const MAX_RETRIED: i64 = 200;

/// User, device and place in the user's stream of an update that comes from the user's server.
fn named<'a>(origin: &ServerName, update: &'a Object) -> Option<(&'a str, &'a str, String)> {
    let user_id = update.get("user_id")?.as_str().filter(|u| server_of(u) == Some(origin))?;
    Some((user_id, update.get("device_id")?.as_str()?, stream_id(update.get("stream_id")?)))
}

/// Some servers write them as numbers, some as text.
fn stream_id(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Remote {
    /// `wanted`: these devices; none: all.
    fn take_list(&mut self, user: String, wanted: &[String], list: &Value) {
        let devices = list.get("devices").and_then(Value::as_array).into_iter().flatten();
        let keys = devices.filter_map(|d| Some((d.get("device_id")?.as_str()?.to_owned(), keys_of(d.as_object()?)?)));
        let keys = keys.filter(|(id, _)| wanted.is_empty() || wanted.contains(id));
        self.device_keys.insert(user.clone(), keys.collect());
        for (keys, of) in [("master_key", &mut self.master_keys), ("self_signing_key", &mut self.self_signing_keys)] {
            if let Some(key) = list.get(keys).filter(|k| k.is_object()) {
                of.insert(user.clone(), key.clone());
            }
        }
    }

    fn take_answer(&mut self, wanted: &BTreeMap<String, Vec<String>>, answer: &Value) {
        let of = |kind: &str| -> Vec<(String, Value)> {
            let all = answer.get(kind).and_then(Value::as_object).into_iter().flatten();
            all.filter(|(user, _)| wanted.contains_key(*user)).map(|(u, k)| (u.clone(), k.clone())).collect()
        };
        for (user, devices) in of("device_keys") {
            if let Value::Object(devices) = devices {
                self.device_keys.insert(user, devices);
            }
        }
        self.master_keys.extend(of("master_keys"));
        self.self_signing_keys.extend(of("self_signing_keys"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_count_only_from_the_users_server() {
        let update = json!({"user_id": "@u:far", "device_id": "D", "stream_id": 5});
        let update = update.as_object().unwrap();
        let far = <&ServerName>::try_from("far").unwrap();
        assert_eq!(named(far, update), Some(("@u:far", "D", "5".to_owned())));
        assert_eq!(named(<&ServerName>::try_from("near").unwrap(), update), None);
    }

    #[test]
    fn an_answer_may_not_speak_of_others() {
        let mut remote = Remote::default();
        let wanted = BTreeMap::from([("@u:far".to_owned(), Vec::new())]);
        let answer = json!({"device_keys": {"@u:far": {"D": {}}, "@o:far": {"E": {}}}, "master_keys": {"@o:far": {}}});
        remote.take_answer(&wanted, &answer);
        assert_eq!(remote.device_keys.keys().collect::<Vec<_>>(), ["@u:far"]);
        assert!(remote.master_keys.is_empty());
    }

    #[test]
    fn failures_name_the_reason() {
        let down = FedError::Unreachable { destination: "far".into(), reason: "no such host".into() };
        assert_eq!(failure(&down), json!({"status": 503, "message": "far: no such host"}));
    }
}
