//! Notification counts: `event_push_actions` since the last receipts, and `event_push_summary`.

use crate::Store;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use types::Result;

/// Counts of one thread (or of the main timeline).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub notifications: i64,
    pub highlights: i64,
    /// MSC2654.
    pub unread: i64,
}

/// Counts of a room for one user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomCounts {
    pub main: Counts,
    /// By thread root.
    pub threads: BTreeMap<String, Counts>,
}

impl RoomCounts {
    /// Main timeline and all threads.
    pub fn total(&self) -> Counts {
        self.threads.values().fold(self.main, |sum, t| Counts {
            notifications: sum.notifications + t.notifications,
            highlights: sum.highlights + t.highlights,
            unread: sum.unread + t.unread,
        })
    }
}

/// Counts valid while neither the room's events nor its receipts moved beyond these positions.
pub(crate) type CachedCounts = (i64, i64, Arc<RoomCounts>);

/// `r`: the user's last unthreaded receipt in each room, or else its own membership event; `t`: later
/// threaded receipts; `s`: summaries that take the latest receipt into account; `a`: actions since.
const COUNTS: &str = "
    WITH r AS (
        SELECT c.room_id, COALESCE(
            (SELECT max(rl.event_stream_ordering) FROM receipts_linearized rl
             WHERE rl.user_id = $1 AND rl.room_id = c.room_id AND rl.thread_id IS NULL
                   AND rl.receipt_type IN ('m.read', 'm.read.private')),
            (SELECT e.stream_ordering FROM events e WHERE e.event_id = c.event_id)) AS upto
        FROM local_current_membership c WHERE c.user_id = $1 AND c.room_id = ANY($2)
    ), t AS (
        SELECT rl.room_id, rl.thread_id, max(rl.event_stream_ordering) AS upto
        FROM receipts_linearized rl JOIN r USING (room_id)
        WHERE rl.user_id = $1 AND rl.event_stream_ordering > r.upto
              AND rl.receipt_type IN ('m.read', 'm.read.private')
        GROUP BY rl.room_id, rl.thread_id
    ), s AS (
        SELECT p.room_id, p.thread_id, p.notif_count, COALESCE(p.unread_count, 0) AS unread_count
        FROM event_push_summary p JOIN r USING (room_id) LEFT JOIN t USING (room_id, thread_id)
        WHERE p.user_id = $1 AND (p.notif_count <> 0 OR COALESCE(p.unread_count, 0) <> 0) AND (
            (p.last_receipt_stream_ordering IS NULL AND p.stream_ordering > COALESCE(t.upto, r.upto))
            OR p.last_receipt_stream_ordering = COALESCE(t.upto, r.upto))
    ), a AS (
        SELECT e.room_id, e.thread_id,
            count(*) FILTER (WHERE e.notif = 1 AND CASE WHEN s.thread_id IS NULL
                THEN e.stream_ordering > COALESCE(t.upto, r.upto) ELSE e.stream_ordering > rot.stream_ordering END)
                AS notif_count,
            count(*) FILTER (WHERE e.highlight = 1 AND e.stream_ordering > COALESCE(t.upto, r.upto)) AS highlight_count,
            count(*) FILTER (WHERE e.unread = 1 AND CASE WHEN s.thread_id IS NULL
                THEN e.stream_ordering > COALESCE(t.upto, r.upto) ELSE e.stream_ordering > rot.stream_ordering END)
                AS unread_count
        FROM event_push_actions e JOIN r USING (room_id)
        LEFT JOIN t USING (room_id, thread_id) LEFT JOIN s USING (room_id, thread_id)
        CROSS JOIN event_push_summary_stream_ordering rot
        WHERE e.user_id = $1
              AND (e.stream_ordering > COALESCE(t.upto, r.upto)
                   OR (s.thread_id IS NOT NULL AND e.stream_ordering > rot.stream_ordering))
        GROUP BY e.room_id, e.thread_id
    )
    SELECT room_id, thread_id, sum(notif_count)::bigint, sum(highlight_count)::bigint, sum(unread_count)::bigint
    FROM (SELECT room_id, thread_id, notif_count, 0::bigint AS highlight_count, unread_count FROM s
          UNION ALL
          SELECT room_id, thread_id, notif_count, highlight_count, unread_count FROM a) AS both_parts
    GROUP BY room_id, thread_id";

impl Store {
    /// Notification counts of a local user in rooms it is joined to.
    pub async fn unread_counts(&self, user_id: &str, room_ids: &[&str]) -> Result<HashMap<String, Arc<RoomCounts>>> {
        let mut found = HashMap::with_capacity(room_ids.len());
        let mut missing = Vec::new();
        for room in room_ids {
            match self.sync.unread.get(&((*room).to_owned(), user_id.to_owned())) {
                Some((events, receipts, counts))
                    if !self.changed.rooms.since(room, events) && !self.changed.receipts.since(room, receipts) =>
                {
                    found.insert((*room).to_owned(), counts);
                }
                _ => missing.push(*room),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        // What is announced while the query runs lies beyond these, so the entry will not be used.
        let events = self.streams.current(crate::Stream::Events);
        let receipts = self.streams.current(crate::Stream::Receipts);
        let mut made: HashMap<&str, RoomCounts> = missing.iter().map(|r| (*r, RoomCounts::default())).collect();
        for row in &self.db.query(COUNTS, &[&user_id, &missing]).await? {
            let Some(room) = made.get_mut(row.get::<_, &str>(0)) else { continue };
            let counts = Counts { notifications: row.get(2), highlights: row.get(3), unread: row.get(4) };
            match row.get::<_, &str>(1) {
                "main" => room.main = counts,
                thread => {
                    room.threads.insert(thread.to_owned(), counts);
                }
            }
        }
        for (room, counts) in made {
            let counts = Arc::new(counts);
            self.sync.unread.put((room.to_owned(), user_id.to_owned()), (events, receipts, counts.clone()));
            found.insert(room.to_owned(), counts);
        }
        Ok(found)
    }
}
