//! Telling who needs to know that devices or signatures changed.

use crate::Devices;
use config::StreamGroup;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use store::Stream;
use store::devices::PusherKey;
use types::{Boxed, MASTER, Result};

/// Whether device changes are being queued for other servers, and whether to look again afterwards.
#[derive(Default)]
pub(crate) struct Converting {
    running: AtomicBool,
    again: AtomicBool,
}

/// Changes looked at in one go.
const BATCH: i64 = 200;

fn payload(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(o) => o,
        _ => Map::new(),
    }
}

impl Devices {
    fn writers(&self) -> &[String] {
        self.cx.config.owners().writers(StreamGroup::DeviceLists)
    }

    /// The first of the writers is the one that tells other servers.
    pub(crate) fn is_first_writer(&self) -> bool {
        self.writers().first().map_or(MASTER, String::as_str) == &*self.cx.instance
    }

    fn is_ours(&self, user_id: &str) -> bool {
        user_id.split_once(':').is_some_and(|(_, server)| server == self.cx.store.server_name.as_str())
    }

    /// Asks one of the writers of device lists.
    pub(crate) async fn ask_writer(&self, name: &str, args: &[&str], once: bool, body: Value) -> Result<Value> {
        let writer = self.writers().choose(&mut rand::rng()).map_or(MASTER, String::as_str).to_owned();
        self.cx.peers.call(&writer, name, args, once, payload(body)).await
    }

    pub(crate) async fn ask_to_remove_pusher(&self, user_id: &str, pusher: &PusherKey) -> Result<()> {
        let body = json!({"app_id": pusher.app_id, "pushkey": pusher.pushkey});
        self.cx.peers.call(MASTER, "remove_pusher", &[user_id], false, payload(body)).await?;
        Ok(())
    }

    /// Makes it known that devices (or cross-signing keys, by their public key) of a user changed:
    /// here if this process writes device lists, else through one that does.
    pub fn notify_device_update<'a>(&'a self, user_id: &'a str, device_ids: &'a [String]) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            if device_ids.is_empty() {
                return Ok(());
            }
            if !self.cx.store.streams.is_writer(Stream::DeviceLists) {
                self.ask_writer("notify_device_update", &[user_id], false, json!({"device_ids": device_ids})).await?;
                return Ok(());
            }
            let store = &self.cx.store;
            let rooms = if self.is_ours(user_id) {
                store.joined_rooms(user_id).await?.into_iter().map(String::from).collect()
            } else {
                store.joined_rooms_of_any(user_id).await?
            };
            store.add_device_changes(user_id, device_ids, &rooms, self.cx.now_ms()).await?;
            // Nobody else is in no room.
            if self.is_ours(user_id) && !rooms.is_empty() {
                self.handle_new_device_update().await?;
            }
            Ok(())
        })
    }

    /// Makes it known to a user's own devices that they signed keys of `user_ids`.
    pub async fn notify_user_signature_update(&self, from_user: &str, user_ids: &[String]) -> Result<()> {
        if self.cx.store.streams.is_writer(Stream::DeviceLists) {
            self.cx.store.add_signature_change(from_user, user_ids).await?;
        } else {
            self.ask_writer("notify_user_signature_update", &[from_user], false, json!({"user_ids": user_ids})).await?;
        }
        Ok(())
    }

    /// Sees to it that other servers hear of new device changes: the first of the writers does that.
    pub async fn handle_new_device_update(&self) -> Result<()> {
        if !self.is_first_writer() {
            let first = self.writers().first().map_or(MASTER, String::as_str);
            self.cx.peers.call(first, "handle_new_device_update", &[], false, Map::new()).await?;
            return Ok(());
        }
        self.converting.again.store(true, Ordering::Release);
        if self.converting.running.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                while this.converting.again.swap(false, Ordering::AcqRel) {
                    if let Err(e) = this.convert_changes().await {
                        slog::warn!(this.cx.log, "device changes are not yet queued for other servers"; "error" => %e);
                    }
                }
                this.converting.running.store(false, Ordering::Release);
                // Somebody may have come between the last look and the line above.
                let more = this.converting.again.load(Ordering::Acquire);
                if !more || this.converting.running.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Turns changes per room into changes per server.
    fn convert_changes(&self) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let store = &self.cx.store;
            let (mut at, mut room) = store.device_changes_converted_to().await?;
            loop {
                let now = store.streams.current(Stream::DeviceLists);
                let changes = store.unconverted_device_changes((at, &room), BATCH).await?;
                let Some(last) = changes.last() else {
                    if now > at {
                        store.set_device_changes_converted_to(now, "").await?;
                    }
                    return Ok(());
                };
                (at, room) = (last.stream_id, last.room_id.clone());
                let mut rooms: Vec<String> = changes.iter().map(|c| c.room_id.clone()).collect();
                rooms.sort_unstable();
                rooms.dedup();
                let servers = store.servers_by_room(&rooms).await?;
                let mut told: HashSet<(i64, &str)> = HashSet::new();
                let mut pokes = Vec::new();
                for change in changes.iter().filter(|c| self.is_ours(&c.user_id)) {
                    let there = servers.get(&change.room_id).map_or(&[][..], Vec::as_slice);
                    let hosts: Vec<String> = there
                        .iter()
                        .filter(|h| h.as_str() != store.server_name.as_str() && told.insert((change.stream_id, h)))
                        .cloned()
                        .collect();
                    if !hosts.is_empty() {
                        pokes.push((change.user_id.clone(), change.device_id.clone(), hosts));
                    }
                }
                store.add_device_pokes(&pokes, self.cx.now_ms()).await?;
                store.set_device_changes_converted_to(at, &room).await?;
            }
        })
    }
}
