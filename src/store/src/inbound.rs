//! What comes in from other servers: transactions already answered (`received_transactions`), events acknowledged
//! and not worked on yet (`federation_inbound_events_staging`), and what is known of events and rooms.

use crate::{Store, transaction};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use types::Result;

/// An event that was acknowledged and waits for its turn.
#[derive(Clone, Debug)]
pub struct Staged {
    pub origin: OwnedServerName,
    pub event_id: OwnedEventId,
    /// As the other server sent it.
    pub json: String,
}

/// What is known of an event that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub outlier: bool,
    pub rejected: bool,
}

impl Store {
    /// The answer given to a transaction of another server: (status, body).
    pub async fn received_transaction(&self, origin: &str, txn_id: &str) -> Result<Option<(i32, Value)>> {
        let sql = "SELECT response_code, response_json FROM received_transactions
             WHERE origin = $1 AND transaction_id = $2 AND response_code <> 0";
        let Some(row) = self.db.query_opt(sql, &[&origin, &txn_id]).await? else { return Ok(None) };
        let Some(json) = row.get::<_, Option<&[u8]>>(1) else { return Ok(None) };
        Ok(Some((row.get(0), serde_json::from_slice(json)?)))
    }

    /// Notes the answer to a transaction.
    pub async fn set_received_transaction(
        &self,
        origin: &str,
        txn_id: &str,
        code: i32,
        body: &Value,
        now_ms: i64,
    ) -> Result<()> {
        let sql = "INSERT INTO received_transactions (transaction_id, origin, ts, response_code, response_json)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (transaction_id, origin) DO NOTHING";
        let json = serde_json::to_vec(body)?;
        self.db.execute(sql, &[&txn_id, &origin, &now_ms, &code, &json]).await.map(|_| ())
    }

    /// Notes events that are about to be acknowledged: (room, event id, JSON).
    pub async fn stage_events(
        &self,
        origin: &str,
        events: &[(OwnedRoomId, OwnedEventId, String)],
        now_ms: i64,
    ) -> Result<()> {
        let rooms: Vec<&str> = events.iter().map(|e| e.0.as_str()).collect();
        let ids: Vec<&str> = events.iter().map(|e| e.1.as_str()).collect();
        let jsons: Vec<&str> = events.iter().map(|e| e.2.as_str()).collect();
        let sql = "INSERT INTO federation_inbound_events_staging
                 (origin, room_id, event_id, received_ts, event_json, internal_metadata)
             SELECT $1, r, e, $2 + ord, j, '{}'
             FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS x(r, e, j, ord) ON CONFLICT DO NOTHING";
        self.db.execute(sql, &[&origin, &now_ms, &rooms, &ids, &jsons]).await.map(|_| ())
    }

    /// The event of a room that has waited longest.
    pub async fn next_staged(&self, room_id: &RoomId) -> Result<Option<Staged>> {
        let sql = "SELECT origin, event_id, event_json FROM federation_inbound_events_staging
             WHERE room_id = $1 ORDER BY received_ts LIMIT 1";
        let Some(row) = self.db.query_opt(sql, &[&room_id.as_str()]).await? else { return Ok(None) };
        Ok(Some(Staged {
            origin: row.get::<_, &str>(0).try_into()?,
            event_id: row.get::<_, &str>(1).try_into()?,
            json: row.get(2),
        }))
    }

    /// An event was worked on.
    pub async fn unstage_event(&self, origin: &str, event_id: &EventId) -> Result<()> {
        let sql = "DELETE FROM federation_inbound_events_staging WHERE origin = $1 AND event_id = $2";
        self.db.execute(sql, &[&origin, &event_id.as_str()]).await.map(|_| ())
    }

    /// Rooms with events that wait.
    pub async fn rooms_with_staged(&self) -> Result<Vec<OwnedRoomId>> {
        let sql = "SELECT DISTINCT room_id FROM federation_inbound_events_staging";
        self.db.query(sql, &[]).await?.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// How events stand; unknown ones are left out.
    pub async fn standing_of<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<HashMap<OwnedEventId, Standing>> {
        let ids: Vec<&str> = ids.iter().map(|i| i.as_ref().as_str()).collect();
        let sql = "SELECT event_id, outlier, rejection_reason IS NOT NULL FROM events WHERE event_id = ANY($1)";
        let rows = self.db.query(sql, &[&ids]).await?;
        rows.iter()
            .map(|r| Ok((r.get::<_, &str>(0).try_into()?, Standing { outlier: r.get(1), rejected: r.get(2) })))
            .collect()
    }

    /// Whether an accepted event names this one as one before it.
    pub async fn is_followed(&self, event_id: &EventId) -> Result<bool> {
        let sql = "SELECT 1 FROM event_edges g JOIN events e USING (event_id) JOIN event_json j USING (event_id)
             WHERE g.prev_event_id = $1 AND NOT e.outlier AND e.rejection_reason IS NULL
                 AND COALESCE(j.internal_metadata::json->>'soft_failed', 'false') = 'false' LIMIT 1";
        Ok(self.db.query_opt(sql, &[&event_id.as_str()]).await?.is_some())
    }

    /// What lies before those of these events that were not let into the room: rejected and soft-failed ones.
    pub async fn before_refused(&self, ids: &[OwnedEventId]) -> Result<HashSet<OwnedEventId>> {
        let ids: Vec<&str> = ids.iter().map(|i| i.as_str()).collect();
        let sql = "WITH RECURSIVE up(event_id) AS (
                 SELECT * FROM unnest($1::text[])
                 UNION
                 SELECT g.prev_event_id FROM up u JOIN event_edges g USING (event_id) JOIN events e USING (event_id)
                 JOIN event_json j USING (event_id)
                 WHERE e.rejection_reason IS NOT NULL
                     OR COALESCE(j.internal_metadata::json->>'soft_failed', 'false') = 'true'
             ) SELECT event_id FROM up";
        self.db.query(sql, &[&ids]).await?.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Makes a room of another server known, if it is not.
    pub async fn know_room(&self, room_id: &RoomId, version: &RoomVersionId, creator: &str) -> Result<()> {
        transaction!(self.db, "know_room", |tx| {
            let sql = "INSERT INTO rooms (room_id, creator, is_public, room_version, has_auth_chain_index)
                 VALUES ($1, $2, false, $3, true)
                 ON CONFLICT (room_id) DO UPDATE SET room_version = EXCLUDED.room_version
                 WHERE rooms.room_version IS NULL";
            tx.run(sql, &[&room_id.as_str(), &creator, &version.as_str()]).await?;
            Ok(())
        })?;
        self.writer_caches.versions.put(room_id.to_string(), version.clone());
        Ok(())
    }

    /// Events of a room found by going back from `from` (which are among them), newest first; what lies at or behind
    /// `stop`, or above `min_depth`, is not looked at. Outliers and rejected events are left out.
    pub async fn events_back_from(
        &self,
        room_id: &RoomId,
        from: &[OwnedEventId],
        stop: &[OwnedEventId],
        min_depth: i64,
        limit: i64,
    ) -> Result<Vec<OwnedEventId>> {
        let from: Vec<&str> = from.iter().map(|i| i.as_str()).collect();
        let stop: Vec<&str> = stop.iter().map(|i| i.as_str()).collect();
        let sql = "WITH RECURSIVE back(event_id, steps) AS (
                 SELECT event_id, 0::bigint FROM events WHERE event_id = ANY($2) AND room_id = $1 AND NOT outlier
                 UNION
                 SELECT g.prev_event_id, b.steps + 1 FROM back b JOIN event_edges g USING (event_id)
                 JOIN events e ON e.event_id = g.prev_event_id
                 WHERE b.steps < $5 AND NOT e.outlier AND e.rejection_reason IS NULL AND e.depth >= $4
                     AND e.room_id = $1 AND g.prev_event_id <> ALL($3)
             ) SELECT e.event_id FROM (SELECT DISTINCT event_id FROM back) b JOIN events e USING (event_id)
             WHERE e.rejection_reason IS NULL ORDER BY e.depth DESC, e.stream_ordering DESC LIMIT $5";
        let rows = self.db.query(sql, &[&room_id.as_str(), &from, &stop, &min_depth, &limit]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Whether anybody of a server is joined to a room.
    pub async fn is_server_in_room(&self, room_id: &RoomId, server: &str) -> Result<bool> {
        let sql =
            "SELECT 1 FROM current_state_events WHERE room_id = $1 AND type = 'm.room.member' AND membership = 'join'
             AND substring(state_key FROM '@[^:]*:(.*)$') = $2 LIMIT 1";
        Ok(self.db.query_opt(sql, &[&room_id.as_str(), &server]).await?.is_some())
    }
}
