//! Moving notification counts from `event_push_actions` to `event_push_summary`, as Synapse does.

use crate::{Store, Stream, Tx, transaction};
use types::Result;

/// Receipts handled in one transaction.
const RECEIPTS: i64 = 100;
/// Push actions summarised in one transaction, about.
const ACTIONS: i64 = 10_000;
/// Actions deleted in one transaction.
const DELETIONS: i64 = 10_000;

const NEW_RECEIPTS: &str = "
    SELECT stream_id, room_id, user_id, thread_id, event_stream_ordering FROM receipts_linearized
    WHERE stream_id > $1 AND stream_id <= $2 AND user_id LIKE $3 AND event_stream_ordering IS NOT NULL
    ORDER BY stream_id LIMIT $4";

const READ: &str = "
    DELETE FROM event_push_actions
    WHERE room_id = $1 AND user_id = $2 AND stream_ordering <= $3 AND highlight = 0
          AND ($4::text IS NULL OR thread_id = $4)";

const CLEAR_SUMMARIES: &str = "
    UPDATE event_push_summary
    SET notif_count = 0, unread_count = 0, stream_ordering = $3, last_receipt_stream_ordering = $4
    WHERE user_id = $1 AND room_id = $2";

/// Rows for threads that have actions but no summary yet, so that rotation knows the receipt.
const PREPARE_SUMMARIES: &str = "
    INSERT INTO event_push_summary (user_id, room_id, thread_id, notif_count, unread_count, stream_ordering,
                                    last_receipt_stream_ordering)
    SELECT DISTINCT user_id, room_id, thread_id, 0, 0, $3::bigint, $4::bigint FROM event_push_actions
    WHERE user_id = $1 AND room_id = $2
    ON CONFLICT (user_id, room_id, thread_id) DO UPDATE
    SET notif_count = 0, unread_count = 0, stream_ordering = EXCLUDED.stream_ordering,
        last_receipt_stream_ordering = EXCLUDED.last_receipt_stream_ordering";

/// Counts between the receipt (`$4`) and what was summarised (`$3`), by thread.
const RECOUNT: &str = "
    INSERT INTO event_push_summary (user_id, room_id, thread_id, notif_count, unread_count, stream_ordering,
                                    last_receipt_stream_ordering)
    SELECT $1, $2, thread_id, count(*) FILTER (WHERE notif = 1), count(*) FILTER (WHERE unread = 1), $3, $4
    FROM event_push_actions
    WHERE user_id = $1 AND room_id = $2 AND stream_ordering > $4 AND stream_ordering <= $3
          AND ($5::text IS NULL OR thread_id = $5)
    GROUP BY thread_id
    ON CONFLICT (user_id, room_id, thread_id) DO UPDATE
    SET notif_count = EXCLUDED.notif_count, unread_count = EXCLUDED.unread_count,
        stream_ordering = EXCLUDED.stream_ordering,
        last_receipt_stream_ordering = EXCLUDED.last_receipt_stream_ordering";

const MARK_THREAD: &str = "
    INSERT INTO event_push_summary (user_id, room_id, thread_id, notif_count, unread_count, stream_ordering,
                                    last_receipt_stream_ordering)
    VALUES ($1, $2, $5, 0, 0, $3, $4)
    ON CONFLICT (user_id, room_id, thread_id) DO UPDATE
    SET notif_count = 0, unread_count = 0, stream_ordering = EXCLUDED.stream_ordering,
        last_receipt_stream_ordering = EXCLUDED.last_receipt_stream_ordering";

const SUMMARISE: &str = "
    INSERT INTO event_push_summary (user_id, room_id, thread_id, notif_count, unread_count, stream_ordering)
    SELECT ea.user_id, ea.room_id, ea.thread_id,
           COALESCE(max(old.notif_count), 0) + count(*) FILTER (WHERE ea.notif = 1),
           COALESCE(max(old.unread_count), 0) + count(*) FILTER (WHERE ea.unread = 1),
           max(ea.stream_ordering)
    FROM event_push_actions ea LEFT JOIN event_push_summary old USING (user_id, room_id, thread_id)
    WHERE ea.stream_ordering > $1 AND ea.stream_ordering <= $2 AND (ea.notif = 1 OR ea.unread = 1)
          AND (old.last_receipt_stream_ordering IS NULL OR old.last_receipt_stream_ordering < ea.stream_ordering)
    GROUP BY ea.user_id, ea.room_id, ea.thread_id
    ON CONFLICT (user_id, room_id, thread_id) DO UPDATE
    SET notif_count = EXCLUDED.notif_count, unread_count = EXCLUDED.unread_count,
        stream_ordering = EXCLUDED.stream_ordering";

const DELETE_OLD: &str = "
    DELETE FROM event_push_actions WHERE ctid IN (
        SELECT ctid FROM event_push_actions WHERE stream_ordering <= $1 AND highlight = 0 LIMIT $2)";

impl Tx {
    async fn summarised_upto(&self) -> Result<i64> {
        let row = self.query_opt("SELECT stream_ordering FROM event_push_summary_stream_ordering", &[]).await?;
        Ok(row.map_or(0, |r| r.get(0)))
    }
}

impl Store {
    /// Takes new receipts into account. True: there are no more.
    pub async fn summarise_receipts(&self) -> Result<bool> {
        let upto = self.streams.current(Stream::Receipts);
        transaction!(self, "_handle_new_receipts_for_notifs_txn", |tx| {
            let row = tx.query_opt("SELECT stream_id FROM event_push_summary_last_receipt_stream_id", &[]).await?;
            let from: i64 = row.map_or(0, |r| r.get(0));
            if from >= upto {
                return Ok(true);
            }
            let rotated = tx.summarised_upto().await?;
            let ours = format!("%:{}", self.server_name.as_str().replace('\\', "\\\\").replace('_', "\\_"));
            let rows = tx.query(NEW_RECEIPTS, &[&from, &upto, &ours, &RECEIPTS]).await?;
            for row in &rows {
                let (room, user): (&str, &str) = (row.get(1), row.get(2));
                let (thread, at): (Option<&str>, i64) = (row.get(3), row.get(4));
                tx.run(READ, &[&room, &user, &at, &thread]).await?;
                match thread {
                    None => {
                        tx.run(CLEAR_SUMMARIES, &[&user, &room, &rotated, &at]).await?;
                        tx.run(PREPARE_SUMMARIES, &[&user, &room, &rotated, &at]).await?;
                    }
                    Some(thread) => {
                        tx.run(MARK_THREAD, &[&user, &room, &rotated, &at, &thread]).await?;
                    }
                }
                tx.run(RECOUNT, &[&user, &room, &rotated, &at, &thread]).await?;
            }
            let done = (rows.len() as i64) < RECEIPTS;
            let at = if done { upto } else { rows.last().map_or(upto, |r| r.get(0)) };
            tx.run("UPDATE event_push_summary_last_receipt_stream_id SET stream_id = $1", &[&at]).await?;
            Ok(done)
        })
    }

    /// Adds push actions since the last time to the summaries. True: there are no more.
    pub async fn summarise_push_actions(&self) -> Result<bool> {
        let now = self.streams.current(Stream::Events);
        transaction!(self, "_rotate_notifs", |tx| {
            let from = tx.summarised_upto().await?;
            let sql = "SELECT stream_ordering FROM event_push_actions
                       WHERE stream_ordering > $1 ORDER BY stream_ordering LIMIT 1 OFFSET $2";
            let row = tx.query_opt(sql, &[&from, &ACTIONS]).await?;
            let to = row.as_ref().map_or(now, |r| r.get::<_, i64>(0).min(now));
            if to > from {
                tx.run(SUMMARISE, &[&from, &to]).await?;
                tx.run("UPDATE event_push_summary_stream_ordering SET stream_ordering = $1", &[&to]).await?;
            }
            Ok(row.is_none())
        })
    }

    /// Deletes summarised actions of events received before `before_ms`. True: there are no more.
    pub async fn delete_summarised_actions(&self, before_ms: i64) -> Result<bool> {
        let sql = "SELECT MAX(stream_ordering) FROM events WHERE received_ts < $1 AND stream_ordering > 0
                   AND stream_ordering >= COALESCE((SELECT MIN(stream_ordering) FROM event_push_actions), 0)";
        let day_ago: Option<i64> = self.db.query_opt(sql, &[&before_ms]).await?.and_then(|r| r.get(0));
        let Some(day_ago) = day_ago else { return Ok(true) };
        let row = self.db.query_opt("SELECT stream_ordering FROM event_push_summary_stream_ordering", &[]).await?;
        let upto = row.map_or(0, |r| r.get::<_, i64>(0)).min(day_ago);
        Ok(self.db.execute(DELETE_OLD, &[&upto, &DELETIONS]).await? < DELETIONS as u64)
    }
}
