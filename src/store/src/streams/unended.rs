//! Transactions of processes that are gone. PostgreSQL does not notice that a client was killed while it executes
//! its statement: it finishes and commits it, with stream ids taken before. Who begins to read positions meanwhile,
//! and hands out tokens beyond those ids, would never show their rows.

use super::Stream;
use crate::db::Db;
use std::time::Duration;
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
pub(super) async fn wait(db: &Db) -> Result<()> {
    let mut relations: Vec<&str> = Vec::new();
    for d in Stream::ALL.into_iter().map(Stream::definition) {
        relations.extend(d.sequence);
        relations.extend(d.sources.iter().map(|s| s.table));
    }
    let mut waiting: Option<Vec<String>> = None;
    let ended = async {
        loop {
            let rows = db.query(WRITING, &[&relations]).await?;
            let mut now: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
            if let Some(before) = &waiting {
                now.retain(|t| before.contains(t));
            }
            if now.is_empty() {
                return Ok(());
            }
            waiting = Some(now);
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap_or(Ok(()))
}
