//! Throws away rows that nobody reads any more, after the times Synapse keeps them.

use replication::Cx;
use slog::{info, warn};
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Every ten minutes. Never returns.
pub async fn run(cx: Cx) {
    let mut ticks = tokio::time::interval(Duration::from_secs(600));
    loop {
        ticks.tick().await;
        let now = cx.now_ms();
        let store = &cx.store;
        let users = cx.config.server.user_ips_max_age_ms.map(|age| now - age as i64);
        let outcomes = [
            ("event_txn_id_device_id", store.delete_old_transaction_ids(now - DAY_MS).await),
            ("cache_invalidation_stream_by_instance", store.delete_old_cache_rows(now - 7 * DAY_MS).await),
            ("stream_ordering_to_exterm", store.delete_old_extremity_positions(now - DAY_MS).await),
            (
                "user_ips",
                match users {
                    Some(before) => store.delete_old_user_ips(before).await,
                    None => Ok(0),
                },
            ),
        ];
        for (table, outcome) in outcomes {
            match outcome {
                Ok(0) => {}
                Ok(n) => info!(cx.log, "deleted old rows"; "table" => table, "rows" => n),
                Err(e) => warn!(cx.log, "could not delete old rows"; "table" => table, "error" => %e),
            }
        }
    }
}
