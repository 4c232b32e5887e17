//! The background job that keeps notification counts small.

use crate::Sync;
use std::time::Duration;
use types::Result;

/// As often as Synapse does.
const EVERY: Duration = Duration::from_secs(30);
/// Old actions are looked for in one round of so many (once an hour).
const DELETE_ROUNDS: u64 = 120;
/// Actions younger than this are kept for `/notifications`, ms.
const KEEP_MS: i64 = 24 * 60 * 60 * 1000;

impl Sync {
    /// Summarises notification counts for ever; only on the process for background tasks.
    pub(crate) async fn rotate_push_actions(self) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0u64.. {
            every.tick().await;
            if let Err(e) = self.rotate_once(round % DELETE_ROUNDS == 0).await {
                slog::warn!(self.cx.log, "notification counts not summarised"; "error" => %e);
            }
        }
    }

    async fn rotate_once(&self, delete: bool) -> Result<()> {
        let store = &self.cx.store;
        while !store.summarise_receipts().await? {}
        while !store.summarise_push_actions().await? {}
        while delete && !store.delete_summarised_actions(self.cx.now_ms() - KEEP_MS).await? {}
        Ok(())
    }
}
