//! The user directory follows the rooms, in the process that is to keep it.

use crate::Accounts;
use slog::{info, warn};
use std::time::Duration;
use store::{Row, Stream, Update};
use tokio::sync::broadcast::error::RecvError;
use types::Result;

/// Changes that come close together are worked off at once.
const GATHER: Duration = Duration::from_millis(200);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether an update may change who is seen through a room.
fn concerns(update: &Update) -> bool {
    let decisive = |kind: &str| matches!(kind, "m.room.member" | "m.room.join_rules" | "m.room.history_visibility");
    update.stream == Stream::Events
        && update.rows.iter().any(|row| match row {
            Row::State { kind, .. } => decisive(kind),
            Row::StateAll { .. } => true,
            _ => false,
        })
}

impl Accounts {
    /// Keeps the directory up to date. Never returns.
    pub(crate) async fn keep_directory(self) {
        let mut updates = self.cx.store.streams.subscribe();
        loop {
            if let Err(e) = self.catch_up_directory().await {
                warn!(self.cx.log, "user directory not up to date"; "error" => %e);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            loop {
                match updates.recv().await {
                    Ok(update) if concerns(&update) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn catch_up_directory(&self) -> Result<()> {
        let store = &self.cx.store;
        let upto = store.streams.current(Stream::Events);
        let from = store.directory_position().await?;
        if from.is_some_and(|from| from >= upto) {
            return Ok(());
        }
        let rooms = store.rooms_for_directory(from, upto).await?;
        if from.is_none() {
            info!(self.cx.log, "making the user directory"; "rooms" => rooms.len());
            store.fill_directory().await?;
        }
        for room in &rooms {
            self.update_directory_room(room).await?;
        }
        store.set_directory_position(upto).await
    }

    async fn update_directory_room(&self, room_id: &str) -> Result<()> {
        let store = &self.cx.store;
        let mut members = store.members_for_directory(room_id).await?;
        if members.iter().any(|m| self.is_local(&m.user_id)) {
            members.retain(|m| {
                !self.is_local(&m.user_id)
                    || !self.cx.config.app_services.iter().any(|s| s.is_interested_in_user(&m.user_id))
            });
        } else {
            // A room this server has left is no longer known.
            members.clear();
        }
        let public = !members.is_empty() && store.is_public_for_directory(room_id).await?;
        store.set_directory_room(room_id, &members, public).await
    }
}
