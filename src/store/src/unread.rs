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

/// One row of `GET /notifications`.
#[derive(Clone, Debug)]
pub struct PushAction {
    pub event_id: types::OwnedEventId,
    pub room_id: String,
    pub profile_tag: Option<String>,
    /// As stored; empty stands for the default of its kind, see [`PushAction::action_list`].
    pub actions: String,
    pub highlight: bool,
    pub depth: i64,
    pub stream: i64,
    pub received_ts: Option<i64>,
}

impl PushAction {
    /// The list of actions in its client form.
    pub fn action_list(&self) -> serde_json::Value {
        use serde_json::json;
        match (self.actions.as_str(), self.highlight) {
            ("", true) => json!(["notify", {"set_tweak": "sound", "value": "default"}, {"set_tweak": "highlight"}]),
            ("", false) => json!(["notify", {"set_tweak": "highlight", "value": false}]),
            (stored, _) => serde_json::from_str(stored).unwrap_or_default(),
        }
    }
}

impl Store {
    /// A user's notifications, newest first, before position `before`.
    pub async fn push_actions(
        &self,
        user_id: &str,
        before: Option<i64>,
        limit: i64,
        only_highlight: bool,
    ) -> Result<Vec<PushAction>> {
        let sql = "SELECT a.event_id, a.room_id, a.profile_tag, a.actions, a.highlight, a.topological_ordering,
                          a.stream_ordering, e.received_ts
                   FROM event_push_actions a JOIN events e ON e.event_id = a.event_id
                   WHERE a.user_id = $1 AND a.notif = 1 AND a.stream_ordering < $2 AND (a.highlight = 1 OR NOT $4)
                   ORDER BY a.stream_ordering DESC LIMIT $3";
        let before = before.unwrap_or(i64::MAX);
        let rows = self.db.query(sql, &[&user_id, &before, &limit, &only_highlight]).await?;
        let parse = |r: &tokio_postgres::Row| {
            Ok(PushAction {
                event_id: r.get::<_, &str>(0).try_into()?,
                room_id: r.get(1),
                profile_tag: r.get(2),
                actions: r.get(3),
                highlight: r.get::<_, Option<i16>>(4) == Some(1),
                depth: r.get::<_, Option<i64>>(5).unwrap_or_default(),
                stream: r.get::<_, Option<i64>>(6).unwrap_or_default(),
                received_ts: r.get(7),
            })
        };
        rows.iter().map(parse).collect()
    }
}
