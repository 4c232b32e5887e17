//! What only events from other servers add: gaps in the room's history, memberships in rooms this server is not in,
//! events that were known without their place in the room (outliers) and now get it, and history fetched later.

use super::{InFlight, NewEvent, RoomSummary, RoomWrite, extras, hot, number, state};
use crate::db::Conn;
use crate::{Row, Store, Stream, transaction};
use serde_json::Value;
use std::sync::Arc;
use types::{Pdu, Result};

/// An outlier that gets its place in the room. It keeps its stream ordering.
#[derive(Clone, Debug)]
pub struct Revived {
    pub event: NewEvent,
    /// The stream id under which readers hear of it (`ex_outlier_stream`); filled in by the commit.
    pub at: i64,
}

const MISSING: &str = "INSERT INTO event_backward_extremities (event_id, room_id)
    SELECT DISTINCT p, r FROM unnest($1::text[], $2::text[]) AS x(p, r)
    WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.event_id = x.p AND NOT e.outlier) ON CONFLICT DO NOTHING";
const GAPS: &str = "INSERT INTO timeline_gaps (room_id, instance_name, stream_ordering)
    SELECT DISTINCT r, $1, s FROM unnest($2::text[], $3::text[], $4::bigint[]) AS x(p, r, s)
    WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.event_id = x.p AND NOT e.outlier)";
const CLOSED: &str = "DELETE FROM event_backward_extremities WHERE event_id = ANY($1)";
const GROUPS_OF: &str = "INSERT INTO event_to_state_groups (event_id, state_group)
    SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING";
const EX_OUTLIERS: &str = "INSERT INTO ex_outlier_stream (event_stream_ordering, event_id, state_group, instance_name)
    SELECT s, e, g, $1 FROM unnest($2::bigint[], $3::text[], $4::bigint[]) AS x(s, e, g)";
const NO_OUTLIERS: &str = "UPDATE events SET outlier = false WHERE event_id = ANY($1)";
const EDGES: &str = "INSERT INTO event_edges (event_id, prev_event_id)
    SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING";
const LIVE_IDS: &str = "SELECT nextval('events_stream_seq') FROM generate_series(1, $1::int)";
const BACKFILL_IDS: &str = "SELECT nextval('events_backfill_stream_seq') FROM generate_series(1, $1::int)";

pub(super) const STATEMENTS: &[&str] = &[MISSING, GAPS, CLOSED];

/// Nothing here has to be written for it.
pub(super) fn is_plain(w: &RoomWrite) -> bool {
    w.revived.is_empty() && !w.events.iter().any(|e| e.remote)
}

/// Gives outliers their place. Returns the stream ids it took (positive).
pub(super) async fn revive(store: &Store, conn: &Conn, writes: &mut [RoomWrite], backfill: bool) -> Result<Vec<i64>> {
    let count = writes.iter().map(|w| w.revived.len()).sum::<usize>();
    if count == 0 {
        return Ok(Vec::new());
    }
    let sql = if backfill { BACKFILL_IDS } else { LIVE_IDS };
    let ids: Vec<i64> = conn.query(sql, &[&(count as i32)]).await?.iter().map(|r| r.get(0)).collect();
    let all = writes.iter_mut().flat_map(|w| &mut w.revived);
    for (revived, id) in all.zip(&ids) {
        revived.at = if backfill { -id } else { *id };
    }
    let revived: Vec<&Revived> = writes.iter().flat_map(|w| &w.revived).collect();
    let names: Vec<&str> = revived.iter().map(|r| r.event.pdu.event_id.as_str()).collect();
    let groups: Vec<i64> = revived.iter().map(|r| r.event.state_group.unwrap_or_default()).collect();
    let at: Vec<i64> = revived.iter().map(|r| r.at).collect();
    let edges = revived
        .iter()
        .flat_map(|r| r.event.pdu.prev_events.iter().map(|p| (r.event.pdu.event_id.as_str(), p.as_str())));
    let edges: (Vec<&str>, Vec<&str>) = edges.unzip();
    conn.execute(GROUPS_OF, &[&names, &groups]).await?;
    conn.execute(EX_OUTLIERS, &[&store.instance(), &at, &names, &groups]).await?;
    conn.execute(NO_OUTLIERS, &[&names]).await?;
    conn.execute(EDGES, &[&edges.0, &edges.1]).await?;
    Ok(ids)
}

/// Gaps before the new events, and those they close; memberships in rooms this server is not in.
pub(super) async fn run(store: &Store, conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let new = writes.iter().flat_map(|w| &w.events).filter(|e| e.remote).map(|e| (e, e.pdu.stream()));
    let revived = writes.iter().flat_map(|w| &w.revived).map(|r| (&r.event, r.event.pdu.stream()));
    let placed: Vec<(&NewEvent, i64)> = new.chain(revived).filter(|(e, _)| !e.pdu.outlier).collect();
    if !placed.is_empty() {
        let mut prevs: (Vec<&str>, Vec<&str>, Vec<i64>) = Default::default();
        for (event, stream, prev) in placed.iter().flat_map(|(e, s)| e.pdu.prev_events.iter().map(move |p| (e, *s, p)))
        {
            prevs.0.push(prev.as_str());
            prevs.1.push(event.pdu.room_id.as_str());
            prevs.2.push(stream);
        }
        let ids: Vec<&str> = placed.iter().map(|(e, _)| e.pdu.event_id.as_str()).collect();
        conn.execute(MISSING, &[&prevs.0, &prevs.1]).await?;
        conn.execute(GAPS, &[&store.instance(), &prevs.0, &prevs.1, &prevs.2]).await?;
        conn.execute(CLOSED, &[&ids]).await?;
    }
    out_of_band(store, conn, writes).await
}

/// The `local_current_membership` of local users that were invited to, or left, a room this server is not in.
async fn out_of_band(store: &Store, conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let suffix = format!(":{}", store.server_name);
    let found: Vec<(&Arc<Pdu>, RoomSummary, bool)> = writes
        .iter()
        .flat_map(|w| &w.events)
        .map(|e| &e.pdu)
        .filter(|p| p.outlier && p.meta.out_of_band_membership && p.rejected.is_none() && p.membership().is_some())
        .filter(|p| p.state_key.as_deref().is_some_and(|k| k.ends_with(&suffix)))
        .map(|p| {
            let (summary, known) = stripped_summary(p);
            (p, summary, known)
        })
        .collect();
    state::set_local(conn, &found.iter().map(|(p, s, known)| (*p, s, *known)).collect::<Vec<_>>()).await
}

/// What an invite or knock says of the room; false if it says nothing.
fn stripped_summary(pdu: &Pdu) -> (RoomSummary, bool) {
    let stripped = ["invite_room_state", "knock_room_state"].iter().find_map(|k| pdu.unsigned.get(*k)?.as_array());
    let of = |kind: &str| {
        let event = stripped?.iter().find(|e| e["type"] == kind && e["state_key"] == "")?;
        event.get("content")
    };
    let text = |kind: &str, key: &str| of(kind).and_then(|c| c.get(key)).and_then(Value::as_str).map(str::to_owned);
    let summary = RoomSummary {
        room_type: text("m.room.create", "type"),
        name: text("m.room.name", "name"),
        encrypted: text("m.room.encryption", "algorithm").is_some(),
        successor: text("m.room.tombstone", "replacement_room"),
    };
    (summary, stripped.is_some_and(|s| !s.is_empty()))
}

impl Store {
    /// Stores history that was fetched later: negative stream orderings, no new ends, no change of the current
    /// state. `now_ms`: for `received_ts`.
    pub async fn write_backfill(&self, write: &mut RoomWrite, now_ms: i64) -> Result<()> {
        let flight = transaction!(self.db, "persist_backfill", |tx| {
            let mut guard = self.streams.reserve(Stream::Backfill);
            let conn = tx.conn();
            let writes = std::slice::from_mut(&mut *write);
            let ids = hot::backfill(self, conn, writes, now_ms).await?;
            guard.allocated(&ids.iter().map(|id| -id).collect::<Vec<_>>());
            number(self, writes, &ids)?;
            state::run_before(conn, writes).await?;
            guard.allocated(&revive(self, conn, writes, true).await?);
            state::run_after(self, conn, writes).await?;
            extras::run(self, conn, writes, now_ms).await?;
            run(self, conn, writes).await?;
            Ok(InFlight { events: guard, caches: None, numbered: true })
        })?;
        self.announce_backfill(write, flight);
        Ok(())
    }

    fn announce_backfill(&self, write: &RoomWrite, mut flight: InFlight) {
        for event in &write.events {
            self.remember_event(event.pdu.clone());
            flight.events.announce(-event.pdu.stream(), backfill_row(event));
        }
        for revived in &write.revived {
            flight.events.announce(-revived.at, backfill_row(&revived.event));
        }
        flight.events.committed();
    }
}

fn backfill_row(event: &NewEvent) -> Row {
    let pdu = &event.pdu;
    Row::Backfill {
        event_id: pdu.event_id.to_string(),
        room_id: pdu.room_id.to_string(),
        kind: pdu.kind.clone(),
        state_key: pdu.state_key.clone(),
        redacts: pdu.redacts.as_ref().map(ToString::to_string),
        relates_to: event.relation.as_ref().map(|r| r.0.clone()),
    }
}
