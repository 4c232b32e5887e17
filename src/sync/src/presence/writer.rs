//! The presence writer: books of devices, time-outs, and what other processes tell.

use super::lock;
use super::machine::{self, Device, Devices, Syncing};
use crate::Sync;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;
use store::PresenceRow;
use types::{Error, Result};

/// A process not heard of for this long syncs for nobody, ms.
const PROCESS_EXPIRY_MS: i64 = 5 * 60 * 1000;
/// How often time-outs are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(5);

type Key = (String, Option<String>);

#[derive(Default)]
struct Books {
    current: HashMap<String, PresenceRow>,
    devices: HashMap<String, Devices>,
    local: HashMap<Key, usize>,
    /// Process → when it was last heard of (ms), and who syncs there.
    processes: HashMap<String, (i64, HashSet<Key>)>,
}

impl Books {
    fn syncing(&self) -> Syncing {
        let local = self.local.keys();
        local.chain(self.processes.values().flat_map(|(_, keys)| keys)).cloned().collect()
    }

    fn of(&self, user_id: &str) -> PresenceRow {
        self.current.get(user_id).cloned().unwrap_or_else(|| machine::offline(user_id))
    }
}

/// The writer's part of [`Sync`]; idle in other processes.
#[derive(Default)]
pub struct Writer {
    books: Mutex<Books>,
    /// Rows reach the database in the order in which they were decided.
    order: tokio::sync::Mutex<()>,
}

impl Writer {
    /// Everybody who was present when the process started times out unless seen again.
    pub fn start(&self, active: &[PresenceRow]) {
        let mut books = lock(&self.books);
        for p in active {
            let device =
                Device { state: p.state.clone(), last_active: p.last_active_ts, last_sync: p.last_user_sync_ts };
            books.devices.entry(p.user_id.clone()).or_default().entry(None).or_insert(device);
            books.current.entry(p.user_id.clone()).or_insert_with(|| p.clone());
        }
    }

    pub(super) fn sync_started(&self, key: &Key) {
        *lock(&self.books).local.entry(key.clone()).or_default() += 1;
    }
}

impl Sync {
    /// Takes over new states and stores those that are news.
    async fn update_presence(&self, decide: impl FnOnce(&mut BooksView<'_>), force: bool) -> Result<()> {
        if !self.cx.config.presence.enabled {
            return Ok(());
        }
        let writer = &self.live.presence_writer;
        let _order = writer.order.lock().await;
        let news = {
            let mut books = lock(&writer.books);
            let mut view = BooksView { books: &mut books, new: Vec::new() };
            decide(&mut view);
            let new = view.new;
            self.judge(&mut books, new, force)
        };
        self.cx.store.put_presence(&news).await?;
        Ok(())
    }

    fn judge(&self, books: &mut Books, new: Vec<PresenceRow>, force: bool) -> Vec<PresenceRow> {
        let mut news = Vec::new();
        for state in new {
            let old = books.of(&state.user_id);
            let is_mine = self.is_local(&state.user_id);
            let verdict = machine::update(&old, state, is_mine, self.cx.now_ms(), &self.cx.config.presence);
            if verdict.notify || force {
                news.push(verdict.state.clone());
            }
            if verdict.state.state == "offline" && books.current.len() > 50_000 {
                books.current.remove(&verdict.state.user_id);
            } else {
                books.current.insert(verdict.state.user_id.clone(), verdict.state);
            }
        }
        news
    }

    /// Whether a user belongs to this server.
    pub(crate) fn is_local(&self, user_id: &str) -> bool {
        user_id.split_once(':').is_some_and(|(_, server)| server == self.cx.config.server.name.as_str())
    }

    /// Users not in memory keep what the table says of them (their status message).
    async fn know(&self, user_id: &str) -> Result<()> {
        if lock(&self.live.presence_writer.books).current.contains_key(user_id) {
            return Ok(());
        }
        let stored = self.cx.store.presence_of(&[user_id]).await?.pop();
        let row = stored.unwrap_or_else(|| machine::offline(user_id));
        lock(&self.live.presence_writer.books).current.entry(user_id.to_owned()).or_insert(row);
        Ok(())
    }

    /// Sets a device's presence. Only in the writer.
    pub async fn write_presence(
        &self,
        user_id: &str,
        device_id: Option<&str>,
        presence: &str,
        status_msg: Option<&str>,
        force_notify: bool,
        is_sync: bool,
    ) -> Result<()> {
        super::check_state(presence, self.cx.config.experimental.on("msc3026_enabled"))?;
        if !self.cx.config.presence.track {
            return Ok(());
        }
        self.know(user_id).await?;
        let now = self.cx.now_ms();
        let decide = |view: &mut BooksView<'_>| {
            let mut state = view.books.of(user_id);
            let presence = if state.state == "busy" && is_sync { "busy" } else { presence };
            let devices = view.books.devices.entry(user_id.to_owned()).or_default();
            let device = devices.entry(device_id.map(str::to_owned)).or_default();
            device.state = presence.to_owned();
            device.last_active = now;
            if is_sync {
                device.last_sync = now;
                state.last_user_sync_ts = now;
            } else {
                state.status_msg = status_msg.map(str::to_owned);
            }
            state.state = machine::combine(devices);
            if state.state == "online" || state.state == "busy" {
                state.last_active_ts = now;
            }
            view.new.push(state);
        };
        self.update_presence(decide, force_notify).await
    }

    /// Presence of another server's users (`m.presence`). Only in the writer.
    pub async fn receive_presence(&self, origin: &str, content: &serde_json::Map<String, Value>) -> Result<()> {
        if !self.cx.config.presence.track {
            return Ok(());
        }
        let pushed = content
            .get("push")
            .and_then(Value::as_array)
            .ok_or_else(|| Error::bad_json("m.presence: push must be a list"))?;
        let now = self.cx.now_ms();
        let mut new = Vec::new();
        for push in pushed {
            let (Some(user_id), Some(state)) = (push["user_id"].as_str(), push["presence"].as_str()) else { continue };
            if user_id.split_once(':').is_none_or(|(_, server)| server != origin)
                || super::check_state(state, true).is_err()
            {
                continue;
            }
            self.know(user_id).await?;
            let ago = push["last_active_ago"].as_i64().map(|ago| now - ago.max(0));
            new.push((user_id, state, ago, push["status_msg"].as_str(), push["currently_active"].as_bool()));
        }
        let decide = |view: &mut BooksView<'_>| {
            for (user_id, state, last_active, status_msg, active) in new {
                let mut row = view.books.of(user_id);
                row.state = state.to_owned();
                row.last_active_ts = last_active.unwrap_or(row.last_active_ts);
                row.last_federation_update_ts = now;
                row.status_msg = status_msg.map(str::to_owned);
                row.currently_active = active.unwrap_or(state == "online");
                view.new.push(row);
            }
        };
        self.update_presence(decide, false).await
    }

    /// A device did something. Only in the writer.
    pub async fn write_activity(&self, user_id: &str, device_id: Option<&str>) -> Result<()> {
        self.know(user_id).await?;
        let now = self.cx.now_ms();
        let decide = |view: &mut BooksView<'_>| {
            let mut state = view.books.of(user_id);
            let devices = view.books.devices.entry(user_id.to_owned()).or_default();
            let device = devices.entry(device_id.map(str::to_owned)).or_insert_with(|| Device {
                state: "offline".into(),
                last_active: 0,
                last_sync: 0,
            });
            device.last_active = now;
            if device.state == "unavailable" {
                device.state = "online".into();
            }
            state.last_active_ts = now;
            state.state = machine::combine(devices);
            view.new.push(state);
        };
        self.update_presence(decide, false).await
    }

    pub(super) async fn presence_sync_ended(&self, user_id: &str, device_id: Option<String>) {
        let now = self.cx.now_ms();
        let key = (user_id.to_owned(), device_id);
        let decide = |view: &mut BooksView<'_>| {
            if let Some(n) = view.books.local.get_mut(&key) {
                *n -= 1;
                if *n == 0 {
                    view.books.local.remove(&key);
                }
            }
            view.ended(&key, now);
        };
        if let Err(e) = self.update_presence(decide, false).await {
            slog::warn!(self.cx.log, "presence not updated"; "user" => user_id, "error" => %e);
        }
    }

    /// USER_SYNC of another process. Only in the writer.
    pub async fn user_sync_elsewhere(
        &self,
        process: &str,
        user_id: &str,
        device_id: Option<&str>,
        syncing: bool,
        at_ms: i64,
    ) -> Result<()> {
        if !self.cx.config.presence.track {
            return Ok(());
        }
        self.know(user_id).await?;
        let now = self.cx.now_ms();
        let key = (user_id.to_owned(), device_id.map(str::to_owned));
        let decide = |view: &mut BooksView<'_>| {
            let entry = view.books.processes.entry(process.to_owned()).or_default();
            entry.0 = now;
            if syncing {
                entry.1.insert(key.clone());
                let mut state = view.books.of(user_id);
                let devices = view.books.devices.entry(user_id.to_owned()).or_default();
                let device = devices.entry(key.1.clone()).or_default();
                if !matches!(device.state.as_str(), "online" | "busy") {
                    device.state = "online".into();
                    device.last_active = at_ms;
                }
                device.last_sync = at_ms;
                state.state = machine::combine(devices);
                state.last_user_sync_ts = at_ms;
                if state.state == "online" {
                    state.last_active_ts = state.last_active_ts.max(at_ms);
                }
                view.new.push(state);
            } else {
                entry.1.remove(&key);
                view.ended(&key, at_ms);
            }
        };
        self.update_presence(decide, false).await
    }

    /// A process says it syncs for nobody any more (CLEAR_USER_SYNC). Only in the writer.
    pub async fn user_syncs_cleared(&self, process: &str) -> Result<()> {
        let now = self.cx.now_ms();
        let decide = |view: &mut BooksView<'_>| {
            for key in view.books.processes.remove(process).map(|(_, keys)| keys).unwrap_or_default() {
                view.ended(&key, now);
            }
        };
        self.update_presence(decide, false).await
    }

    /// Looks at time-outs for ever. Only in the writer.
    pub(crate) async fn time_out_presence(self) {
        let mut every = tokio::time::interval(CHECK_EVERY);
        loop {
            every.tick().await;
            let now = self.cx.now_ms();
            let settings = self.cx.config.presence.clone();
            let decide = |view: &mut BooksView<'_>| {
                view.books.processes.retain(|_, (heard, _)| now - *heard <= PROCESS_EXPIRY_MS);
                let syncing = view.books.syncing();
                for state in view.books.current.values().filter(|s| s.state != "offline") {
                    let mut none = Devices::new();
                    let devices = view.books.devices.get_mut(&state.user_id).unwrap_or(&mut none);
                    let new =
                        machine::time_out(state, self.is_local(&state.user_id), &syncing, devices, now, &settings);
                    view.new.extend(new);
                }
                view.books.devices.retain(|_, devices| !devices.is_empty());
            };
            if let Err(e) = self.update_presence(decide, false).await {
                slog::warn!(self.cx.log, "presence time-outs not stored"; "error" => %e);
            }
        }
    }

    /// HTTP replication `presence_set_state`: `{device_id, state: {presence, status_msg?}, force_notify, is_sync}`.
    pub async fn presence_set_state(&self, user_id: &str, body: &serde_json::Value) -> Result<()> {
        let presence = body.pointer("/state/presence").and_then(|v| v.as_str());
        let presence = presence.ok_or_else(|| Error::bad_json("state.presence must be a string"))?;
        let status = body.pointer("/state/status_msg").and_then(|v| v.as_str());
        let flag = |name: &str| body.get(name).and_then(|v| v.as_bool()).unwrap_or(false);
        let device = body.get("device_id").and_then(|v| v.as_str());
        self.write_presence(user_id, device, presence, status, flag("force_notify"), flag("is_sync")).await
    }
}

/// What a decision may read and say.
struct BooksView<'a> {
    books: &'a mut Books,
    new: Vec<PresenceRow>,
}

impl BooksView<'_> {
    /// A device stopped syncing just now.
    fn ended(&mut self, key: &Key, at_ms: i64) {
        if let Some(device) = self.books.devices.get_mut(&key.0).and_then(|d| d.get_mut(&key.1)) {
            device.last_sync = device.last_sync.max(at_ms);
        }
        let mut state = self.books.of(&key.0);
        state.last_user_sync_ts = at_ms;
        self.new.push(state);
    }
}
