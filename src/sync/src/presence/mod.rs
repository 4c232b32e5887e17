//! Presence: one process writes it, all know it.

pub mod machine;
mod view;
mod writer;

pub use view::View;
pub use writer::Writer;

use crate::Sync;
use config::StreamGroup;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use store::PresenceRow;
use tokio::sync::broadcast;
use types::{Error, Result};

/// A device began or stopped to sync in this process: for the presence writer (USER_SYNC).
#[derive(Clone, Debug, PartialEq)]
pub struct UserSync {
    pub user_id: String,
    pub device_id: Option<String>,
    pub syncing: bool,
    /// ms
    pub at_ms: i64,
}

/// User and device.
type Device = (String, Option<String>);

/// What a process that does not write presence tells the one that does.
pub struct Remote {
    /// Running syncs, and when the last ended.
    syncs: Mutex<HashMap<Device, (usize, i64)>>,
    /// State told last, and when.
    told: Mutex<HashMap<Device, (String, i64)>>,
    out: broadcast::Sender<UserSync>,
}

impl Default for Remote {
    fn default() -> Self {
        Self { syncs: Mutex::default(), told: Mutex::default(), out: broadcast::channel(1024).0 }
    }
}

/// For so many users their rooms are most likely in memory; for more the database is asked once.
const FEW: usize = 4;
/// The writer is told of an ended sync after this long without another, ms.
const END_DELAY_MS: i64 = 10_000;
/// The same state is not told again within this time, ms.
const TELL_AGAIN_MS: i64 = 25_000;
/// A sync waits this long for the writer to take its state.
const TELL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Keeps a device present while it lives.
pub struct Syncing {
    sync: Sync,
    key: (String, Option<String>),
}

impl Drop for Syncing {
    fn drop(&mut self) {
        let (sync, key) = (self.sync.clone(), self.key.clone());
        if sync.writes_presence() {
            // Without a runtime the process is going down, and with it the timers.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { sync.presence_sync_ended(&key.0, key.1).await });
            }
        } else {
            let mut syncs = lock(&sync.live.presence_remote.syncs);
            if let Some((running, ended)) = syncs.get_mut(&key) {
                *running = running.saturating_sub(1);
                *ended = sync.cx.now_ms();
            }
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// The fields of a presence event, or of the answer to `GET /presence/…/status`.
pub fn content(p: &PresenceRow, now_ms: i64) -> Map<String, Value> {
    let mut content = Map::new();
    content.insert("presence".into(), p.state.as_str().into());
    if p.last_active_ts > 0 {
        content.insert("last_active_ago".into(), (now_ms - p.last_active_ts).into());
    }
    if let Some(msg) = p.status_msg.as_deref().filter(|m| !m.is_empty()) {
        content.insert("status_msg".into(), msg.into());
    }
    if p.state == "online" {
        content.insert("currently_active".into(), p.currently_active.into());
    }
    content
}

impl Sync {
    /// Whether this process writes presence.
    pub fn writes_presence(&self) -> bool {
        self.cx.is_mine(StreamGroup::Presence, "")
    }

    /// The current presence of one user.
    pub async fn presence_of(&self, user_id: &str) -> Result<PresenceRow> {
        let found = self.live.presence.of(&self.cx.store, [user_id]).await?.pop();
        Ok(found.unwrap_or_else(|| machine::offline(user_id)))
    }

    /// Whether two users share a room, so that one may see the other's presence.
    pub async fn share_a_room(&self, a: &str, b: &str) -> Result<bool> {
        let (a, b) = (self.cx.store.rooms_joined_by(a).await?, self.cx.store.rooms_joined_by(b).await?);
        let excluded = &self.cx.config.server.exclude_rooms_from_presence;
        Ok(a.iter().any(|r| b.contains(r) && !excluded.contains(r)))
    }

    /// Those of `changed` who are joined to any of these rooms.
    pub(crate) async fn in_rooms(&self, changed: HashSet<String>, rooms: &HashSet<&str>) -> Result<HashSet<String>> {
        let store = &self.cx.store;
        if changed.len() <= FEW {
            let mut found = HashSet::new();
            for user in changed {
                if store.rooms_joined_by(&user).await?.iter().any(|r| rooms.contains(r.as_str())) {
                    found.insert(user);
                }
            }
            return Ok(found);
        }
        let users: Vec<String> = changed.into_iter().collect();
        let rooms: Vec<String> = rooms.iter().map(|r| (*r).to_owned()).collect();
        store.users_among_rooms(&users, &rooms).await
    }

    /// Sets a user's presence from any process. `status_msg` counts unless the call comes from a sync.
    pub async fn set_presence(
        &self,
        user_id: &str,
        device_id: Option<&str>,
        presence: &str,
        status_msg: Option<&str>,
        is_sync: bool,
    ) -> Result<()> {
        check_state(presence, self.cx.config.experimental.on("msc3026_enabled"))?;
        if !self.cx.config.presence.track {
            return Ok(());
        }
        if self.writes_presence() {
            return self.write_presence(user_id, device_id, presence, status_msg, false, is_sync).await;
        }
        if is_sync && !self.worth_telling(user_id, device_id, presence) {
            return Ok(());
        }
        let mut state = json!({"presence": presence});
        if let Some(msg) = status_msg {
            state["status_msg"] = msg.into();
        }
        let payload = json!({"device_id": device_id, "state": state, "force_notify": false, "is_sync": is_sync});
        self.ask_presence_writer("presence_set_state", user_id, payload).await
    }

    fn worth_telling(&self, user_id: &str, device_id: Option<&str>, presence: &str) -> bool {
        let now = self.cx.now_ms();
        let mut told = lock(&self.live.presence_remote.told);
        if told.len() > 10_000 {
            told.retain(|_, (_, at)| now - *at < TELL_AGAIN_MS);
        }
        let key = (user_id.to_owned(), device_id.map(str::to_owned));
        match told.get(&key) {
            Some((state, at)) if state == presence && now - at < TELL_AGAIN_MS => false,
            _ => {
                told.insert(key, (presence.to_owned(), now));
                true
            }
        }
    }

    async fn ask_presence_writer(&self, call: &str, user_id: &str, payload: Value) -> Result<()> {
        let writer = self.cx.owner(StreamGroup::Presence, "");
        let Value::Object(payload) = payload else { return Ok(()) };
        self.cx.peers.call(writer, call, &[user_id], false, payload).await?;
        Ok(())
    }

    /// A user did something: it is active now. Errors are logged only.
    pub async fn bump_active(&self, user_id: &str, device_id: Option<&str>) {
        if !self.cx.config.presence.track {
            return;
        }
        let outcome = if self.writes_presence() {
            self.write_activity(user_id, device_id).await
        } else {
            self.ask_presence_writer("bump_presence_active_time", user_id, json!({"device_id": device_id})).await
        };
        if let Err(e) = outcome {
            slog::warn!(self.cx.log, "presence not updated"; "user" => user_id, "error" => %e);
        }
    }

    /// A sync begins; the device counts as syncing until the guard is dropped. None: presence is left alone.
    pub async fn user_syncing(&self, user_id: &str, device_id: Option<&str>, presence: &str) -> Option<Syncing> {
        if !self.cx.config.presence.track || presence == "offline" {
            return None;
        }
        let key = (user_id.to_owned(), device_id.map(str::to_owned));
        if self.writes_presence() {
            self.live.presence_writer.sync_started(&key);
        } else {
            self.remote_sync_started(&key);
        }
        let (sync, p, k) = (self.clone(), presence.to_owned(), key.clone());
        let told = tokio::spawn(async move {
            if let Err(e) = sync.set_presence(&k.0, k.1.as_deref(), &p, None, true).await {
                slog::warn!(sync.cx.log, "presence not updated"; "user" => k.0, "error" => %e);
            }
        });
        // Who syncs next is to see it, but a writer that is away must not hold up syncs.
        let _ = tokio::time::timeout(TELL_PATIENCE, told).await;
        Some(Syncing { sync: self.clone(), key })
    }

    fn remote_sync_started(&self, key: &(String, Option<String>)) {
        let mut syncs = lock(&self.live.presence_remote.syncs);
        let is_new = !syncs.contains_key(key);
        syncs.entry(key.clone()).or_insert((0, 0)).0 += 1;
        drop(syncs);
        if is_new {
            self.tell_user_sync(key, true);
        }
    }

    fn tell_user_sync(&self, key: &(String, Option<String>), syncing: bool) {
        let told = UserSync { user_id: key.0.clone(), device_id: key.1.clone(), syncing, at_ms: self.cx.now_ms() };
        // Without a bus nobody listens, and the only process writes presence itself.
        let _ = self.live.presence_remote.out.send(told);
    }

    /// What to publish as USER_SYNC. Only processes that do not write presence send any.
    pub fn user_syncs(&self) -> broadcast::Receiver<UserSync> {
        self.live.presence_remote.out.subscribe()
    }

    /// Devices syncing here now: published again on each new connection to the bus.
    pub fn currently_syncing(&self) -> Vec<(String, Option<String>)> {
        lock(&self.live.presence_remote.syncs).keys().cloned().collect()
    }

    /// Tells the writer of syncs that ended a while ago. Never returns; not in the writer.
    pub(crate) async fn sweep_ended_syncs(self) {
        let mut every = tokio::time::interval(std::time::Duration::from_millis(END_DELAY_MS as u64));
        loop {
            every.tick().await;
            let now = self.cx.now_ms();
            let mut ended = Vec::new();
            lock(&self.live.presence_remote.syncs).retain(|key, (running, at)| {
                let over = *running == 0 && now - *at >= END_DELAY_MS;
                if over {
                    ended.push(key.clone());
                }
                !over
            });
            // Once the writer has timed the device out, its state is news again.
            lock(&self.live.presence_remote.told).retain(|key, _| !ended.contains(key));
            ended.iter().for_each(|key| self.tell_user_sync(key, false));
        }
    }
}

/// 400 unless this is a presence state.
pub fn check_state(presence: &str, busy_allowed: bool) -> Result<()> {
    match presence {
        "online" | "unavailable" | "offline" => Ok(()),
        "busy" if busy_allowed => Ok(()),
        _ => Err(Error::bad_request("Invalid presence state")),
    }
}
