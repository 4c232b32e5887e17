//! What the bus tells this process, and what it tells the others, beyond rows of streams.

use crate::App;
use replication::{Command, UserSync};
use slog::warn;
use std::time::Duration;
use store::user_ips::Sighting;
use tokio::sync::broadcast::error::RecvError;

/// Time for the last lines to get to Redis.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl App {
    /// Starts to act on commands of other processes and to tell them who syncs here.
    pub(crate) fn join_bus(&self) {
        if self.cx.duties.background_tasks {
            tokio::spawn(self.clone().run_tasks(self.cx.bus.commands()));
        }
        if !self.cx.bus.is_enabled() {
            return;
        }
        let commands = self.cx.bus.commands();
        tokio::spawn(self.clone().obey(commands));
        if self.cx.config.presence.track && !self.sync.writes_presence() {
            let syncs = self.sync.user_syncs();
            tokio::spawn(self.clone().tell_syncs(syncs));
            tokio::spawn(self.clone().tell_syncs_again());
        }
    }

    async fn obey(self, mut commands: tokio::sync::broadcast::Receiver<Command>) {
        loop {
            match commands.recv().await {
                Ok(command) => self.act_on(command).await,
                // Sightings and syncs that are lost are said again before long.
                Err(RecvError::Lagged(n)) => warn!(self.cx.log, "commands of other processes were lost"; "count" => n),
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn act_on(&self, command: Command) {
        let writes_presence = self.cx.config.presence.track && self.sync.writes_presence();
        let done = match command {
            Command::UserSync(s) if writes_presence => {
                let device = s.device_id.as_deref();
                self.sync.user_sync_elsewhere(&s.instance_id, &s.user_id, device, s.syncing, s.last_sync_ms).await
            }
            Command::ClearUserSync { instance_id } if writes_presence => {
                self.sync.user_syncs_cleared(&instance_id).await
            }
            Command::UserIp(u) if self.cx.duties.background_tasks => {
                self.store.note_sighting(Sighting {
                    user_id: u.user_id,
                    access_token: u.access_token,
                    ip: u.ip,
                    user_agent: u.user_agent,
                    device_id: u.device_id,
                    last_seen: u.last_seen_ms,
                });
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(e) = done {
            warn!(self.cx.log, "a command of another process was not carried out"; "error" => %e);
        }
    }

    fn tell_sync(&self, user_id: String, device_id: Option<String>, syncing: bool, at_ms: i64) {
        let instance_id = self.store.run_id().to_owned();
        self.cx.bus.send(Command::UserSync(UserSync { instance_id, user_id, device_id, syncing, last_sync_ms: at_ms }));
    }

    async fn tell_syncs(self, mut syncs: tokio::sync::broadcast::Receiver<sync::UserSync>) {
        loop {
            match syncs.recv().await {
                Ok(s) => self.tell_sync(s.user_id, s.device_id, s.syncing, s.at_ms),
                Err(RecvError::Lagged(_)) => self.tell_all_syncs(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn tell_all_syncs(&self) {
        for (user_id, device_id) in self.sync.currently_syncing() {
            self.tell_sync(user_id, device_id, true, self.cx.now_ms());
        }
    }

    /// Whoever writes presence may have missed what was said before a connection.
    async fn tell_syncs_again(self) {
        let mut connections = self.cx.bus.connections();
        while connections.changed().await.is_ok() {
            self.tell_all_syncs();
        }
    }

    /// Says before the process ends that nobody syncs here any more.
    pub async fn leave_bus(&self) {
        if self.cx.config.presence.track && !self.sync.writes_presence() {
            self.cx.bus.send(Command::ClearUserSync { instance_id: self.store.run_id().to_owned() });
            tokio::time::sleep(LAST_WORDS).await;
        }
    }
}
