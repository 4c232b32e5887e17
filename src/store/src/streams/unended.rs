//! Transactions of processes that are gone. PostgreSQL does not notice that a client was killed while it executes
//! its statement: it finishes and commits it, with stream ids taken before. Who begins to read positions meanwhile,
//! and hands out tokens beyond those ids, would never show their rows.

use super::Stream;
use crate::db::Db;
use slog::{Logger, warn};
use std::time::{Duration, Instant};
use types::Result;

/// Longest wait. Transactions that hold out longer are those of living processes that delete what is old.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Who has taken an id of a stream or written to its tables, and has not ended. Locks are given back after the
/// commit is visible, and (unlike `pg_stat_activity.backend_xid`) are there before the first row is written.
const WRITING: &str = "SELECT DISTINCT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relation IN (SELECT to_regclass(name)::oid FROM unnest($1::text[]) name)";

/// Waits until every transaction that was writing to a stream when we came has ended; not at all if there was none.
pub(crate) async fn wait(db: &Db, log: &Logger) -> Result<()> {
    let relations = relations();
    let mut left = writing(db, &relations).await?;
    let end = Instant::now() + PATIENCE;
    while !left.is_empty() && Instant::now() < end {
        tokio::time::sleep(PAUSE).await;
        let now = writing(db, &relations).await?;
        left.retain(|t| now.contains(t));
    }
    if left.is_empty() {
        return Ok(());
    }
    warn!(log, "transactions of before have not ended: clients that sync may miss what they still commit";
        "transactions" => left.len(), "waited_s" => PATIENCE.as_secs());
    Ok(())
}

/// Sequences and tables of all streams.
fn relations() -> Vec<&'static str> {
    let mut relations: Vec<&str> = Vec::new();
    for d in Stream::ALL.into_iter().map(Stream::definition) {
        relations.extend(d.sequence);
        relations.extend(d.sources.iter().map(|s| s.table));
    }
    relations
}

async fn writing(db: &Db, relations: &[&str]) -> Result<Vec<String>> {
    Ok(db.query(WRITING, &[&relations]).await?.iter().map(|r| r.get(0)).collect())
}
