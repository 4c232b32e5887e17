//! What follows the changes of rooms' state: the statistics that the room directory is made of, and the user
//! directory.

use replication::Cx;
use slog::warn;
use std::time::Duration;
use store::Stream;
use tokio::sync::broadcast::error::RecvError;
use types::Result;

/// Changes of state come in bursts; one pass a while is enough. No longer: who makes a room looks for it in the directory.
const PAUSE: Duration = Duration::from_millis(50);

/// What is kept in step.
#[derive(Clone, Copy, Debug)]
pub enum Follower {
    Statistics,
    UserDirectory,
}

/// Follows the events stream. Never returns.
pub async fn run(cx: Cx, what: Follower) {
    loop {
        // What came before this is part of the pass: nobody has to keep it for us.
        let mut updates = cx.store.streams.subscribe();
        if let Err(e) = catch_up(&cx, what).await {
            warn!(cx.log, "fell behind the state of rooms"; "what" => ?what, "error" => %e);
            tokio::time::sleep(Duration::from_secs(5)).await;
            continue;
        }
        tokio::time::sleep(PAUSE).await;
        loop {
            match updates.recv().await {
                Ok(u) if u.stream == Stream::Events && has_state(&u.rows) => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn has_state(rows: &[store::Row]) -> bool {
    rows.iter().any(|r| matches!(r, store::Row::State { .. } | store::Row::StateAll { .. }))
}

/// Goes to where the stream was when this began: what comes meanwhile is the next pass's.
async fn catch_up(cx: &Cx, what: Follower) -> Result<()> {
    let upto = cx.store.streams.current(Stream::Events);
    loop {
        let more = match what {
            Follower::Statistics => cx.store.advance_statistics(upto).await?,
            Follower::UserDirectory => cx.store.advance_user_directory(upto).await?,
        };
        if !more {
            return Ok(());
        }
    }
}
