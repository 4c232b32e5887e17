//! The one statement that every batch runs: `events`, `event_json`, `event_edges`,
//! `event_to_state_groups`, `event_txn_id_device_id`, forward extremities, search, notifications and the
//! sliding sync position of the rooms. The stream ids are taken inside it, so none is in flight longer
//! than the statement lasts.

use super::pushes::Pushes;
use super::{NewEvent, RoomWrite};
use crate::Store;
use crate::db::Conn;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::LazyLock;
use types::json::strip_nul;
use types::{EventFormat, Result};

pub(super) const SQL: &str = "
WITH input AS MATERIALIZED (
    SELECT t.*, nextval('events_stream_seq') AS so
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bool[],
                $8::text[], $9::text[], $10::text[], $11::int[], $12::bigint[], $13::bool[], $14::text[])
        AS t(event_id, room_id, type, sender, depth, ts, has_url, state_key, meta, json, format, sg, outlier, rejected)
), live AS (
    SELECT room_id, max(so) AS so, max(so) FILTER (WHERE type IN ('m.room.create', 'm.room.message',
        'm.room.encrypted', 'm.sticker', 'm.call.invite', 'm.poll.start', 'm.beacon_info')) AS bump
    FROM input WHERE rejected IS NULL AND NOT outlier AND so > 0 GROUP BY room_id
), ev AS (
    INSERT INTO events (instance_name, stream_ordering, topological_ordering, depth, event_id, room_id, type,
        processed, outlier, origin_server_ts, received_ts, sender, contains_url, state_key, rejection_reason)
    SELECT $15, so, depth, depth, event_id, room_id, type, true, outlier, ts, $16, sender, has_url, state_key, rejected
    FROM input
), ej AS (
    INSERT INTO event_json (event_id, room_id, internal_metadata, json, format_version)
    SELECT event_id, room_id, meta, json, format FROM input
), sg AS (
    INSERT INTO event_to_state_groups (event_id, state_group) SELECT event_id, sg FROM input WHERE sg IS NOT NULL
), ed AS (
    INSERT INTO event_edges (event_id, prev_event_id) SELECT * FROM unnest($17::text[], $18::text[])
), tx AS (
    INSERT INTO event_txn_id_device_id (event_id, room_id, user_id, device_id, txn_id, inserted_ts)
    SELECT t.event_id, i.room_id, i.sender, t.device_id, t.txn_id, $16
    FROM unnest($19::text[], $20::text[], $21::text[]) AS t(event_id, device_id, txn_id) JOIN input i USING (event_id)
), gone AS (
    DELETE FROM event_forward_extremities WHERE room_id = ANY($22::text[]) AND event_id <> ALL($23::text[])
), ext AS (
    INSERT INTO event_forward_extremities (event_id, room_id) SELECT * FROM unnest($23::text[], $24::text[])
    ON CONFLICT DO NOTHING
), soe AS (
    INSERT INTO stream_ordering_to_exterm (stream_ordering, room_id, event_id)
    SELECT l.so, l.room_id, x.event_id FROM unnest($23::text[], $24::text[]) AS x(event_id, room_id)
    JOIN live l USING (room_id)
), sl AS (
    UPDATE sliding_sync_joined_rooms s
    SET event_stream_ordering = GREATEST(s.event_stream_ordering, l.so), bump_stamp = GREATEST(s.bump_stamp, l.bump)
    FROM live l WHERE s.room_id = l.room_id
), fts AS (
    INSERT INTO event_search (event_id, room_id, key, vector, stream_ordering, origin_server_ts)
    SELECT i.event_id, i.room_id, s.key, to_tsvector('english', s.value), i.so, i.ts
    FROM unnest($25::text[], $26::text[], $27::text[]) AS s(event_id, key, value) JOIN input i USING (event_id)
), pa AS (
    INSERT INTO event_push_actions (room_id, event_id, user_id, actions, stream_ordering, topological_ordering,
        notif, highlight, unread, thread_id)
    SELECT i.room_id, i.event_id, p.user_id, p.actions, i.so, i.depth, p.notif, p.highlight, p.unread, p.thread
    FROM unnest($28::text[], $29::text[], $30::text[], $31::smallint[], $32::smallint[], $33::smallint[], $34::text[])
        AS p(event_id, user_id, actions, notif, highlight, unread, thread) JOIN input i USING (event_id)
)
SELECT event_id, so FROM input";

#[derive(Deserialize)]
struct Searched {
    url: Option<serde_json::Value>,
    body: Option<serde_json::Value>,
    name: Option<serde_json::Value>,
    topic: Option<serde_json::Value>,
}

/// The part of an event that is searched, with its key, and whether its content has a `url`.
fn searched(event: &NewEvent) -> (Option<(&'static str, String)>, bool) {
    let pdu = &event.pdu;
    let Ok(content) = pdu.content_as::<Searched>() else { return (None, false) };
    let (key, value) = match pdu.kind.as_str() {
        "m.room.message" => ("content.body", content.body),
        "m.room.name" => ("content.name", content.name),
        "m.room.topic" => ("content.topic", content.topic),
        _ => ("", None),
    };
    let text = value.as_ref().and_then(|v| v.as_str()).map(|t| (key, strip_nul(t).into_owned()));
    (text.filter(|_| pdu.rejected.is_none()), content.url.is_some_and(|u| u.is_string()))
}

/// The statement for history that was fetched later.
static BACKFILL: LazyLock<String> =
    LazyLock::new(|| SQL.replacen("nextval('events_stream_seq')", "-nextval('events_backfill_stream_seq')", 1));

/// Runs the statement; returns the stream ids in the order of the events.
pub(super) async fn run(store: &Store, conn: &Conn, writes: &[RoomWrite], now_ms: i64) -> Result<Vec<i64>> {
    insert(store, conn, SQL, writes, now_ms).await
}

/// As [`run`], with negative ids.
pub(super) async fn backfill(store: &Store, conn: &Conn, writes: &[RoomWrite], now_ms: i64) -> Result<Vec<i64>> {
    insert(store, conn, &BACKFILL, writes, now_ms).await
}

async fn insert(store: &Store, conn: &Conn, sql: &str, writes: &[RoomWrite], now_ms: i64) -> Result<Vec<i64>> {
    let events: Vec<&NewEvent> = writes.iter().flat_map(|w| &w.events).collect();
    let mut search: (Vec<&str>, Vec<&str>, Vec<String>) = Default::default();
    let mut has_url = Vec::with_capacity(events.len());
    for e in &events {
        let (text, url) = searched(e);
        has_url.push(url);
        if let Some((key, value)) = text.filter(|_| store.search_enabled) {
            search.0.push(e.pdu.event_id.as_str());
            search.1.push(key);
            search.2.push(value);
        }
    }
    let text = |f: fn(&NewEvent) -> &str| events.iter().map(|e| f(e)).collect::<Vec<&str>>();
    let ids = text(|e| e.pdu.event_id.as_str());
    let rooms = text(|e| e.pdu.room_id.as_str());
    let kinds: Vec<_> = events.iter().map(|e| strip_nul(&e.pdu.kind)).collect();
    let senders = text(|e| e.pdu.sender.as_str());
    let depths: Vec<i64> = events.iter().map(|e| e.pdu.depth).collect();
    let times: Vec<i64> = events.iter().map(|e| e.pdu.origin_server_ts).collect();
    let keys: Vec<Option<&str>> = events.iter().map(|e| e.pdu.state_key.as_deref()).collect();
    let metas: Vec<String> = events.iter().map(|e| serde_json::to_string(&e.pdu.meta)).collect::<Result<_, _>>()?;
    let jsons = text(|e| e.json.as_str());
    let formats: Vec<i32> = events.iter().map(|e| EventFormat::of(&e.pdu.room_version) as i32).collect();
    let groups: Vec<Option<i64>> = events.iter().map(|e| e.state_group).collect();
    let outliers: Vec<bool> = events.iter().map(|e| e.pdu.outlier).collect();
    let rejected: Vec<Option<&str>> = events.iter().map(|e| e.pdu.rejected.as_deref()).collect();
    let edges = edges(&events);
    let txns = transactions(&events);
    let (ext_rooms, ext) = extremities(writes);
    let push = Pushes::of(
        events.iter().flat_map(|e| e.push.iter().map(|p| (e.pdu.event_id.as_str(), p, e.push_thread.as_str()))),
    );
    #[rustfmt::skip]
    let rows = conn.query(sql, &[
        &ids, &rooms, &kinds, &senders, &depths, &times, &has_url, &keys, &metas, &jsons, &formats, &groups, &outliers,
        &rejected, &store.instance(), &now_ms, &edges.0, &edges.1, &txns.0, &txns.1, &txns.2, &ext_rooms, &ext.0, &ext.1,
        &search.0, &search.1, &search.2, &push.events, &push.users, &push.actions, &push.notify, &push.highlight,
        &push.unread, &push.threads,
    ]).await?;
    let by_id: HashMap<&str, i64> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    Ok(ids.iter().filter_map(|id| by_id.get(id).copied()).collect())
}

fn edges<'a>(events: &[&'a NewEvent]) -> (Vec<&'a str>, Vec<&'a str>) {
    let accepted = events.iter().filter(|e| e.pdu.rejected.is_none());
    accepted.flat_map(|e| e.pdu.prev_events.iter().map(|p| (e.pdu.event_id.as_str(), p.as_str()))).unzip()
}

fn transactions<'a>(events: &[&'a NewEvent]) -> (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>) {
    let mut out = (Vec::new(), Vec::new(), Vec::new());
    for e in events {
        if let (Some(device), Some(txn)) = (&e.pdu.meta.device_id, &e.pdu.meta.txn_id) {
            out.0.push(e.pdu.event_id.as_str());
            out.1.push(device.as_str());
            out.2.push(txn.as_str());
        }
    }
    out
}

/// Rooms whose extremities change, and the extremities after the last write of each.
#[allow(clippy::type_complexity)]
fn extremities(writes: &[RoomWrite]) -> (Vec<&str>, (Vec<&str>, Vec<&str>)) {
    let mut last: HashMap<&str, &Vec<ruma::OwnedEventId>> = HashMap::new();
    for w in writes {
        if let Some(ext) = &w.extremities {
            last.insert(w.room_id.as_str(), ext);
        }
    }
    let rooms = last.keys().copied().collect();
    let ext = last.iter().flat_map(|(room, ids)| ids.iter().map(|id| (id.as_str(), *room))).unzip();
    (rooms, ext)
}
