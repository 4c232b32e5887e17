//! Messages that destroy themselves (MSC2228, `enable_ephemeral_messages`).

use replication::Cx;
use slog::warn;
use std::time::Duration;
use types::Result;

/// Looks every second. Never returns.
pub async fn run(cx: Cx) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(e) = expire(&cx).await {
            warn!(cx.log, "expired messages could not be read"; "error" => %e);
        }
    }
}

async fn expire(cx: &Cx) -> Result<()> {
    for event_id in cx.store.expired_events(cx.now_ms()).await? {
        // One that resists must not keep the others.
        if let Err(e) = cx.store.expire_event(&event_id).await {
            warn!(cx.log, "an expired message could not be pruned"; "event" => %event_id, "error" => %e);
        }
    }
    Ok(())
}
