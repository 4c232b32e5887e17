//! Read receipts: `receipts_linearized`, `receipts_graph`.

use crate::{Row, Store, Stream, Tx, db, transaction};
use serde_json::Value;
use types::{MultiToken, Result};

/// One receipt as stored.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub room_id: String,
    /// `m.read`, `m.read.private` …
    pub receipt_type: String,
    pub user_id: String,
    pub event_id: String,
    /// None: unthreaded; `main`; or a thread root.
    pub thread_id: Option<String>,
    /// `{"ts": …}`
    pub data: Value,
}

const IN_ROOMS: &str = "
    SELECT room_id, receipt_type, user_id, event_id, thread_id, data, instance_name, stream_id
    FROM receipts_linearized
    WHERE room_id = ANY($1) AND stream_id > $2 AND stream_id <= $3
    ORDER BY stream_id";

const NEWER: &str = "
    SELECT 1 FROM receipts_linearized
    WHERE room_id = $1 AND receipt_type = $2 AND user_id = $3 AND thread_id IS NOT DISTINCT FROM $4
          AND event_stream_ordering >= $5";

const UPDATE: &str = "
    UPDATE receipts_linearized
    SET stream_id = $5, instance_name = $6, event_id = $7, event_stream_ordering = $8, data = $9
    WHERE room_id = $1 AND receipt_type = $2 AND user_id = $3 AND thread_id IS NOT DISTINCT FROM $4";

const INSERT: &str = "
    INSERT INTO receipts_linearized (room_id, receipt_type, user_id, thread_id, stream_id, instance_name,
                                     event_id, event_stream_ordering, data)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const UPDATE_GRAPH: &str = "
    UPDATE receipts_graph SET event_ids = $5, data = $6
    WHERE room_id = $1 AND receipt_type = $2 AND user_id = $3 AND thread_id IS NOT DISTINCT FROM $4";

const INSERT_GRAPH: &str = "
    INSERT INTO receipts_graph (room_id, receipt_type, user_id, thread_id, event_ids, data)
    VALUES ($1, $2, $3, $4, $5, $6)";

impl Store {
    /// Receipts in these rooms after `from`, up to `to`, oldest first.
    pub async fn receipts_in(&self, room_ids: &[&str], from: &MultiToken, to: &MultiToken) -> Result<Vec<Receipt>> {
        let rows = self.db.query(IN_ROOMS, &[&room_ids, &from.stream, &to.max()]).await?;
        rows.iter()
            .filter(|r| self.is_within(from, to, r.get(6), r.get(7)))
            .map(|r| {
                Ok(Receipt {
                    room_id: r.get(0),
                    receipt_type: r.get(1),
                    user_id: r.get(2),
                    event_id: r.get(3),
                    thread_id: r.get(4),
                    data: serde_json::from_str(r.get(5))?,
                })
            })
            .collect()
    }

    /// Stores a receipt unless there is one for the same or a later event; returns its stream id.
    pub async fn add_receipt(&self, receipt: &Receipt) -> Result<Option<i64>> {
        match self.try_add_receipt(receipt).await {
            // Another writer inserted the first receipt of this kind at the same moment.
            Err(e) if db::is_constraint(&e) => self.try_add_receipt(receipt).await,
            other => other,
        }
    }

    async fn try_add_receipt(&self, receipt: &Receipt) -> Result<Option<i64>> {
        transaction!(self, "insert_linearized_receipt", |tx| {
            let sql = "SELECT stream_ordering FROM events WHERE event_id = $1 AND room_id = $2";
            let row = tx.query_opt(sql, &[&receipt.event_id, &receipt.room_id]).await?;
            let event_stream: Option<i64> = row.and_then(|r| r.get(0));
            let r = receipt;
            if event_stream.is_some()
                && tx
                    .query_opt(NEWER, &[&r.room_id, &r.receipt_type, &r.user_id, &r.thread_id, &event_stream])
                    .await?
                    .is_some()
            {
                return Ok(None);
            }
            let id = tx.next(&self.streams, Stream::Receipts).await?;
            tx.write_receipt(self, r, id, event_stream).await?;
            let row = Row::Receipt {
                room_id: r.room_id.clone(),
                receipt_type: r.receipt_type.clone(),
                user_id: r.user_id.clone(),
                event_id: r.event_id.clone(),
                thread_id: r.thread_id.clone(),
                data: r.data.clone(),
            };
            tx.announce(Stream::Receipts, id, row);
            Ok(Some(id))
        })
    }

    /// Whether `left` is an event after `right` (by depth, then stream). None: one of them is unknown.
    pub async fn is_event_after(&self, left: &str, right: &str) -> Result<Option<bool>> {
        let sql = "SELECT (a.topological_ordering, a.stream_ordering) > (b.topological_ordering, b.stream_ordering)
                   FROM events a, events b WHERE a.event_id = $1 AND b.event_id = $2";
        Ok(self.db.query_opt(sql, &[&left, &right]).await?.map(|r| r.get(0)))
    }
}

impl Tx {
    async fn write_receipt(&mut self, store: &Store, r: &Receipt, id: i64, event_stream: Option<i64>) -> Result<()> {
        let data = r.data.to_string();
        let me = store.instance();
        let params: crate::Params<'_> =
            &[&r.room_id, &r.receipt_type, &r.user_id, &r.thread_id, &id, &me, &r.event_id, &event_stream, &data];
        if self.run(UPDATE, params).await? == 0 {
            self.run(INSERT, params).await?;
        }
        let event_ids = serde_json::to_string(&[&r.event_id])?;
        let params: crate::Params<'_> = &[&r.room_id, &r.receipt_type, &r.user_id, &r.thread_id, &event_ids, &data];
        if self.run(UPDATE_GRAPH, params).await? == 0 {
            self.run(INSERT_GRAPH, params).await?;
        }
        Ok(())
    }
}

/// The thread an event belongs to by its relations, up to three steps away.
const THREAD_OF: &str = "
    WITH RECURSIVE related(event_id, relates_to_id, relation_type, level) AS (
        SELECT event_id, relates_to_id, relation_type, 0 FROM event_relations WHERE event_id = $1
        UNION
        SELECT e.event_id, e.relates_to_id, e.relation_type, r.level + 1
        FROM event_relations e JOIN related r ON r.relates_to_id = e.event_id WHERE r.level <= 3
    )
    SELECT relates_to_id FROM related WHERE relation_type = 'm.thread' ORDER BY level DESC LIMIT 1";

/// As [`THREAD_OF`], and an event that is itself the root of a thread (or related to one) counts to it.
const RECEIPT_THREAD_OF: &str = "
    WITH RECURSIVE related(event_id, relates_to_id, relation_type, level) AS (
        SELECT event_id, relates_to_id, relation_type, 0 FROM event_relations WHERE event_id = $1
        UNION
        SELECT e.event_id, e.relates_to_id, e.relation_type, r.level + 1
        FROM event_relations e JOIN related r ON r.relates_to_id = e.event_id WHERE r.level <= 3
    )
    SELECT relates_to_id FROM event_relations
    WHERE relation_type = 'm.thread' AND relates_to_id = COALESCE(
        (SELECT relates_to_id FROM related ORDER BY relation_type = 'm.thread' DESC, level DESC LIMIT 1), $1)
    LIMIT 1";

impl Store {
    /// Whether a receipt for this event may name this thread (`main` or a root).
    pub async fn is_in_thread(&self, event_id: &str, thread_id: &str) -> Result<bool> {
        if thread_id == "main" {
            return Ok(self.db.query_opt(THREAD_OF, &[&event_id]).await?.is_none());
        }
        let found = self.db.query_opt(RECEIPT_THREAD_OF, &[&event_id]).await?;
        Ok(found.is_some_and(|r| r.get::<_, &str>(0) == thread_id))
    }

    /// Newest receipts of a user by room: (depth, stream) of their events.
    pub async fn receipt_places(&self, user_id: &str) -> Result<std::collections::HashMap<String, (i64, i64)>> {
        let sql = "SELECT rl.room_id, e.topological_ordering, e.stream_ordering
                   FROM receipts_linearized rl JOIN events e ON e.event_id = rl.event_id AND e.room_id = rl.room_id
                   WHERE rl.user_id = $1 AND rl.receipt_type IN ('m.read', 'm.read.private')";
        let mut places: std::collections::HashMap<String, (i64, i64)> = std::collections::HashMap::new();
        for row in &self.db.query(sql, &[&user_id]).await? {
            let at = (row.get(1), row.get(2));
            places.entry(row.get(0)).and_modify(|p| *p = at.max(*p)).or_insert(at);
        }
        Ok(places)
    }
}
