//! From the other streams of the cluster to ephemeral data for other servers, and servers that come back.

use crate::queue::Edu;
use crate::{Sender, edus};
use replication::Command;
use serde_json::Value;
use slog::warn;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;
use store::{PresenceRow, Row, Stream, Update};
use tokio::sync::broadcast::error::RecvError;
use types::Result;

/// How often those who missed something are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Servers woken in one go.
const BATCH: i64 = 25;
const BETWEEN_BATCHES: Duration = Duration::from_secs(1);

/// What was said before, to tell only what changed.
#[derive(Default)]
struct Said {
    /// Our users who type, by room.
    typing: HashMap<String, HashSet<String>>,
}

impl Sender {
    /// Never returns.
    pub(crate) async fn follow_streams(self) {
        let mut updates = self.cx.store.streams.subscribe();
        let mut said = Said::default();
        loop {
            match updates.recv().await {
                Ok(update) => {
                    if let Err(e) = self.obey(&update, &mut said).await {
                        warn!(self.cx.log, "other servers were not told"; "stream" => update.stream.name(), "error" => %e);
                    }
                }
                // Device changes and messages are in the tables; the rest is stale by now.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn obey(&self, update: &Update, said: &mut Said) -> Result<()> {
        if update.stream == Stream::DeviceLists && update.rows.iter().any(is_calculated) {
            // Positions move in steps; the first of the rows is after the former one.
            for server in self.cx.store.servers_poked(update.previous.min(update.token - 1), update.token).await? {
                if self.is_mine(&server) {
                    self.wake(&server, |queue| queue.device_lists = true);
                }
            }
        }
        if update.stream == Stream::Federation {
            return self.hand_down(update).await;
        }
        for row in &update.rows {
            match row {
                Row::Typing { room_id, user_ids } => self.typing(room_id, user_ids, said).await?,
                Row::Receipt { room_id, receipt_type, user_id, event_id, thread_id, data }
                    if receipt_type == "m.read" && self.is_local(user_id) =>
                {
                    let edu = edus::receipt(room_id, receipt_type, user_id, event_id, thread_id.as_deref(), data);
                    let thread = thread_id.as_deref().unwrap_or_default();
                    self.tell_room(room_id, &format!("receipt {room_id} {user_id} {thread}"), &edu).await?;
                }
                Row::Presence(row) if self.is_local(&row.user_id) => self.presence(row).await?,
                Row::Event(e) if e.membership.as_deref() == Some("join") && !e.outlier && !e.rejected => {
                    self.others_joined(&e.room_id, e.state_key.as_deref().unwrap_or_default()).await?;
                }
                Row::ToDevice { entity } if !entity.starts_with('@') && self.is_mine(entity) => {
                    self.wake(entity, |queue| queue.to_device = true);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells the servers in a room, but for those that do not answer anyway.
    async fn tell_room(&self, room_id: &str, key: &str, edu: &Edu) -> Result<()> {
        let servers = self.cx.store.servers_by_room(&[room_id.to_owned()]).await?;
        self.tell(servers.into_values().flatten(), key, edu).await
    }

    async fn tell(&self, servers: impl Iterator<Item = String>, key: &str, edu: &Edu) -> Result<()> {
        for server in servers.filter(|s| self.is_mine(s)) {
            if self.fed.backing_off_until(&server).await?.is_none() {
                self.wake(&server, |queue| queue.put(key.to_owned(), edu.clone()));
            }
        }
        Ok(())
    }

    async fn typing(&self, room_id: &str, user_ids: &[String], said: &mut Said) -> Result<()> {
        let now: HashSet<String> = user_ids.iter().filter(|u| self.is_local(u)).cloned().collect();
        let before = said.typing.remove(room_id).unwrap_or_default();
        for user in now.symmetric_difference(&before) {
            let edu = edus::typing(room_id, user, now.contains(user));
            self.tell_room(room_id, &format!("typing {room_id} {user}"), &edu).await?;
        }
        if !now.is_empty() {
            said.typing.insert(room_id.to_owned(), now);
        }
        Ok(())
    }

    async fn presence(&self, row: &PresenceRow) -> Result<()> {
        if !self.cx.config.presence.track {
            return Ok(());
        }
        let rooms: Vec<String> =
            self.cx.store.joined_rooms(&row.user_id).await?.into_iter().map(String::from).collect();
        let servers: HashSet<String> = self.cx.store.servers_by_room(&rooms).await?.into_values().flatten().collect();
        let edu = edus::presence(row, self.cx.now_ms());
        self.tell(servers.into_iter(), &format!("presence {}", row.user_id), &edu).await
    }

    /// The server of a user who joined is told of the presence of ours in the room.
    async fn others_joined(&self, room_id: &str, user_id: &str) -> Result<()> {
        let Some((_, server)) = user_id.split_once(':').filter(|(_, server)| self.is_mine(server)) else {
            return Ok(());
        };
        let users = self.cx.store.local_users_in(room_id).await?;
        let users: Vec<&str> = users.iter().map(|u| u.as_str()).collect();
        self.introduce(&users, &BTreeSet::from([server.to_owned()])).await
    }

    /// Tells servers of the presence of users they have not met before.
    pub(crate) async fn introduce(&self, users: &[&str], servers: &BTreeSet<String>) -> Result<()> {
        if !self.cx.config.presence.track {
            return Ok(());
        }
        for row in self.cx.store.presence_of(users).await?.iter().filter(|row| row.state != "offline") {
            let edu = edus::presence(row, self.cx.now_ms());
            self.tell(servers.iter().cloned(), &format!("presence {}", row.user_id), &edu).await?;
        }
        Ok(())
    }

    /// Ephemeral data a main process of Synapse hands to senders (`["k", {key, edu}]`, `["e", edu]`); presence comes
    /// by its own stream.
    async fn hand_down(&self, update: &Update) -> Result<()> {
        for row in &update.rows {
            let Row::Federation(value) = row else { continue };
            let (key, edu) = match value[0].as_str() {
                Some("k") => (value[1]["key"].to_string(), &value[1]["edu"]),
                Some("e") => (format!("e {:020} {}", update.token, value[1]), &value[1]),
                _ => continue,
            };
            let (Some(kind), Some(destination)) = (edu["edu_type"].as_str(), edu["destination"].as_str()) else {
                continue;
            };
            let content: &Value = &edu["content"];
            let edu = Edu { kind: kind.to_owned(), content: content.clone() };
            self.tell(std::iter::once(destination.to_owned()), &key, &edu).await?;
        }
        self.cx.store.federation_position("federation").await?;
        self.cx.store.set_federation_position("federation", update.token).await?;
        self.cx.bus.send(Command::FederationAck { instance: self.cx.instance.to_string(), token: update.token });
        Ok(())
    }

    /// Servers that answer again are told at once what they missed.
    pub(crate) async fn follow_servers(self) {
        let (mut here, mut elsewhere) = (self.fed.servers_up(), self.cx.bus.commands());
        loop {
            let server = tokio::select! {
                up = here.recv() => up,
                command = elsewhere.recv() => match command {
                    Ok(Command::RemoteServerUp { server }) => Ok(server),
                    Ok(_) => continue,
                    Err(e) => Err(e),
                },
            };
            match server {
                Ok(server) if self.is_mine(&server) => self.wake(&server, |_| {}),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Servers that missed something, and whose time to be tried again has come.
    pub(crate) async fn look_after_those_behind(self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            let mut after = String::new();
            loop {
                let servers = match self.cx.store.servers_behind(&after, self.cx.now_ms(), BATCH).await {
                    Ok(servers) => servers,
                    Err(e) => {
                        warn!(self.cx.log, "unknown which servers missed something"; "error" => %e);
                        break;
                    }
                };
                let Some(last) = servers.last() else { break };
                after.clone_from(last);
                for server in servers.iter().filter(|s| self.is_mine(s)) {
                    self.wake(server, |_| {});
                }
                tokio::time::sleep(BETWEEN_BATCHES).await;
            }
        }
    }
}

fn is_calculated(row: &Row) -> bool {
    matches!(row, Row::DeviceList { hosts_calculated: true, .. })
}
