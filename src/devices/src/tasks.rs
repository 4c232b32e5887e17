//! What devices need done without anybody asking.

use crate::Devices;
use config::StreamGroup;
use slog::warn;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often lists of other servers' devices that could not be fetched are tried again.
const RETRY: Duration = Duration::from_secs(30);

impl Devices {
    /// Starts the tasks that are this process's.
    pub fn spawn_tasks(&self) {
        if self.cx.duties.writes(StreamGroup::DeviceLists) {
            // Changes from before a restart may still wait to be queued for other servers.
            let this = self.clone();
            tokio::spawn(async move {
                if !this.is_first_writer() {
                    return;
                }
                if let Err(e) = this.handle_new_device_update().await {
                    warn!(this.cx.log, "device changes are not yet queued for other servers"; "error" => %e);
                }
                loop {
                    tokio::time::sleep(RETRY).await;
                    if let Err(e) = this.retry_stale().await {
                        warn!(this.cx.log, "lists of other servers' devices are left stale"; "error" => %e);
                    }
                }
            });
        }
        let Some(age) = self.cx.config.server.delete_stale_devices_after_ms else { return };
        if self.cx.duties.background_tasks {
            let this = self.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(DAY).await;
                    let before = this.cx.now_ms() - age as i64;
                    if let Err(e) = this.delete_stale_devices(before).await {
                        warn!(this.cx.log, "stale devices are left"; "error" => %e);
                    }
                }
            });
        }
    }
}
