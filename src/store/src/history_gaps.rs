//! Where the history of rooms is not known: `event_backward_extremities`, and what could not be fetched lately:
//! `event_failed_pull_attempts`.

use crate::Store;
use ruma::{OwnedEventId, RoomId};
use types::Result;

/// An event that is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    pub event_id: OwnedEventId,
    /// Depth of the highest event that follows it.
    pub depth: i64,
}

/// After a failure nobody asks again for an hour, then two, up to this exponent.
const MAX_EXPONENT: i32 = 8;

impl Store {
    /// Missing events below `depth`, highest first, but for those that could not be fetched lately.
    pub async fn history_gaps(&self, room_id: &RoomId, depth: i64, now_ms: i64, limit: i64) -> Result<Vec<Gap>> {
        let sql = "SELECT b.event_id, max(e.depth) AS depth
                   FROM event_backward_extremities b
                   JOIN event_edges g ON g.prev_event_id = b.event_id AND NOT g.is_state
                   JOIN events e ON e.event_id = g.event_id
                   LEFT JOIN event_failed_pull_attempts f ON f.room_id = b.room_id AND f.event_id = b.event_id
                   WHERE b.room_id = $1 AND e.depth <= $2
                     AND (f.event_id IS NULL
                          OR f.last_attempt_ts + 3600000 * power(2, least(f.num_attempts - 1, $3))::bigint <= $4)
                   GROUP BY b.event_id ORDER BY depth DESC, b.event_id DESC LIMIT $5";
        let rows = self.db.query(sql, &[&room_id.as_str(), &depth, &MAX_EXPONENT, &now_ms, &limit]).await?;
        rows.iter().map(|r| Ok(Gap { event_id: r.get::<_, &str>(0).try_into()?, depth: r.get(1) })).collect()
    }

    /// Notes that those of these events that are still missing could not be fetched.
    pub async fn note_open_gaps(&self, room_id: &RoomId, ids: &[OwnedEventId], now_ms: i64) -> Result<()> {
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let sql =
            "INSERT INTO event_failed_pull_attempts (room_id, event_id, num_attempts, last_attempt_ts, last_cause)
                   SELECT b.room_id, b.event_id, 1, $3, 'no server gave it'
                   FROM event_backward_extremities b WHERE b.room_id = $1 AND b.event_id = ANY($2)
                   ON CONFLICT (room_id, event_id) DO UPDATE
                   SET num_attempts = event_failed_pull_attempts.num_attempts + 1,
                       last_attempt_ts = excluded.last_attempt_ts, last_cause = excluded.last_cause";
        self.db.execute(sql, &[&room_id.as_str(), &ids, &now_ms]).await?;
        Ok(())
    }
}
