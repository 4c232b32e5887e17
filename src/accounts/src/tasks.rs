//! What accounts need done now and then, by the process that runs background tasks.

use crate::{Accounts, ui_auth};
use slog::warn;
use std::time::Duration;

/// Login tokens are kept this long after they expired. Milliseconds.
const TOKEN_GRACE_MS: i64 = 300_000;

impl Accounts {
    /// Starts the tasks that fall to this process.
    pub fn spawn_tasks(&self) {
        if self.cx.duties.background_tasks {
            tokio::spawn(self.clone().write_sightings());
            tokio::spawn(self.clone().expire());
        }
        if self.cx.duties.is_main {
            self.part_deactivated();
        }
    }

    /// Deletes sessions of interactive authentication, login tokens and tokens sent to addresses that nobody finished. Never returns.
    async fn expire(self) {
        loop {
            tokio::time::sleep(Duration::from_secs(300)).await;
            let now = self.cx.now_ms();
            let sessions = self.cx.store.delete_old_ui_auth_sessions(now - ui_auth::SESSION_LIFETIME_MS).await;
            let tokens = self.cx.store.delete_expired_login_tokens(now - TOKEN_GRACE_MS).await;
            let addresses = self.cx.store.delete_expired_threepid_tokens(now).await;
            if let Err(e) = sessions.and(tokens.map(|_| ())).and(addresses) {
                warn!(self.cx.log, "cannot expire sessions"; "error" => %e);
            }
        }
    }
}
