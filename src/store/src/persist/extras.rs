//! What only some events add: relations and threads, redactions, rejections, retention, labels, expiry, first words.

use super::{NewEvent, RoomWrite};
use crate::Store;
use crate::db::Conn;
use serde_json::{Map, Value};
use types::Result;

const RELATIONS: &str = "INSERT INTO event_relations (event_id, relates_to_id, relation_type, aggregation_key)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])";
const THREADS: &str = "INSERT INTO threads (room_id, thread_id, latest_event_id, topological_ordering, stream_ordering)
    SELECT DISTINCT ON (r, t) r, t, e, d, s
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS x(r, t, e, d, s)
    ORDER BY r, t, s DESC
    ON CONFLICT (room_id, thread_id) DO UPDATE SET latest_event_id = EXCLUDED.latest_event_id,
        topological_ordering = EXCLUDED.topological_ordering, stream_ordering = EXCLUDED.stream_ordering
    WHERE threads.topological_ordering <= EXCLUDED.topological_ordering
        AND threads.stream_ordering < EXCLUDED.stream_ordering";
const REDACTIONS: &str = "INSERT INTO redactions (event_id, redacts, received_ts, recheck)
    SELECT e, r, $3, c FROM unnest($1::text[], $2::text[], $4::bool[]) AS x(e, r, c)
    ON CONFLICT (event_id) DO UPDATE SET redacts = EXCLUDED.redacts, received_ts = EXCLUDED.received_ts,
        recheck = EXCLUDED.recheck";
const REDACT_PUSH: &str = "DELETE FROM event_push_actions p USING unnest($1::text[], $2::text[]) AS x(r, e)
    WHERE p.room_id = x.r AND p.event_id = x.e";
const REDACT_RELATIONS: &str =
    "DELETE FROM event_relations WHERE event_id = ANY($1) RETURNING relates_to_id, relation_type";
const REDACT_THREADS: &str = "WITH latest AS (
        SELECT DISTINCT ON (r.relates_to_id) r.relates_to_id, r.event_id, e.topological_ordering, e.stream_ordering
        FROM event_relations r JOIN events e USING (event_id)
        WHERE r.relates_to_id = ANY($1) AND r.relation_type = 'm.thread'
        ORDER BY r.relates_to_id, e.topological_ordering DESC, e.stream_ordering DESC
    ), kept AS (
        UPDATE threads t SET latest_event_id = l.event_id, topological_ordering = l.topological_ordering,
            stream_ordering = l.stream_ordering
        FROM latest l WHERE t.thread_id = l.relates_to_id
    )
    DELETE FROM threads WHERE thread_id = ANY($1) AND thread_id NOT IN (SELECT relates_to_id FROM latest)";
const REJECTIONS: &str = "INSERT INTO rejections (event_id, reason, last_check)
    SELECT e, r, $3 FROM unnest($1::text[], $2::text[]) AS x(e, r) ON CONFLICT DO NOTHING";
const RETENTION: &str = "INSERT INTO room_retention (room_id, event_id, min_lifetime, max_lifetime)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])";
const LABELS: &str = "INSERT INTO event_labels (event_id, label, room_id, topological_ordering)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) ON CONFLICT DO NOTHING";
const EXPIRY: &str = "INSERT INTO event_expiry (event_id, expiry_ts)
    SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING";
pub(super) const PARTICIPANTS: &str = "UPDATE room_memberships m SET participant = true
    FROM local_current_membership l, unnest($1::text[], $2::text[]) AS x(r, u)
    WHERE l.room_id = x.r AND l.user_id = x.u AND m.event_id = l.event_id AND NOT m.participant";
const STAGED: &str = "WITH gone AS (
        DELETE FROM event_push_actions_staging WHERE event_id = ANY($1)
        RETURNING event_id, user_id, actions, notif, highlight, unread, thread_id
    )
    INSERT INTO event_push_actions (room_id, event_id, user_id, actions, stream_ordering, topological_ordering,
        notif, highlight, unread, thread_id)
    SELECT e.room_id, e.event_id, g.user_id, g.actions, e.stream_ordering, e.depth, g.notif, g.highlight, g.unread,
        g.thread_id
    FROM gone g JOIN events e USING (event_id) WHERE e.rejection_reason IS NULL";
const CACHE_ROWS: &str = "INSERT INTO cache_invalidation_stream_by_instance
        (stream_id, instance_name, cache_func, keys, invalidation_ts)
    SELECT nextval('cache_invalidation_stream_seq'), $1, name, ARRAY(SELECT jsonb_array_elements_text(k::jsonb)), $4
    FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS x(name, k, ord) ORDER BY ord
    RETURNING stream_id";

pub(super) const STATEMENTS: &[&str] = &[
    RELATIONS,
    THREADS,
    REDACTIONS,
    REDACT_PUSH,
    REDACT_RELATIONS,
    REDACT_THREADS,
    REJECTIONS,
    RETENTION,
    LABELS,
    EXPIRY,
    PARTICIPANTS,
    STAGED,
    CACHE_ROWS,
];

const LABELS_KEY: &str = "org.matrix.labels";
const EXPIRY_KEY: &str = "org.matrix.self_destruct_after";
const RETENTION_TYPE: &str = "m.room.retention";

fn is_redaction(e: &NewEvent) -> bool {
    e.pdu.kind == "m.room.redaction" && e.pdu.redacts.is_some() && e.pdu.rejected.is_none()
}

fn has_extra(e: &NewEvent) -> bool {
    let content = e.pdu.content.get();
    e.relation.is_some()
        || e.staged
        || e.pdu.rejected.is_some()
        || is_redaction(e)
        || e.pdu.kind == RETENTION_TYPE
        || content.contains(LABELS_KEY)
        || content.contains(EXPIRY_KEY)
}

/// Nothing here has to be written for it.
pub(super) fn is_plain(w: &RoomWrite) -> bool {
    w.participants.is_empty() && !w.events.iter().any(has_extra)
}

pub(super) async fn run(store: &Store, conn: &Conn, writes: &[RoomWrite], now_ms: i64) -> Result<()> {
    let new = writes.iter().flat_map(|w| w.participants.iter().map(|u| (w.room_id.as_str(), u.as_str())));
    let (rooms, users): (Vec<&str>, Vec<&str>) = new.unzip();
    if !users.is_empty() {
        conn.execute(PARTICIPANTS, &[&rooms, &users]).await?;
    }
    let all: Vec<&NewEvent> = writes.iter().flat_map(|w| &w.events).filter(|e| has_extra(e)).collect();
    if all.is_empty() {
        return Ok(());
    }
    rejections(conn, &all, now_ms).await?;
    let staged: Vec<&str> = all.iter().filter(|e| e.staged).map(|e| e.pdu.event_id.as_str()).collect();
    if !staged.is_empty() {
        conn.execute(STAGED, &[&staged]).await?;
    }
    let accepted: Vec<&NewEvent> = all.into_iter().filter(|e| e.pdu.rejected.is_none()).collect();
    relations(conn, &accepted).await?;
    redactions(conn, &accepted, now_ms).await?;
    retention(conn, &accepted).await?;
    labels(conn, &accepted).await?;
    if store.ephemeral_enabled { expiry(conn, &accepted).await } else { Ok(()) }
}

async fn rejections(conn: &Conn, events: &[&NewEvent], now_ms: i64) -> Result<()> {
    let (ids, reasons): (Vec<&str>, Vec<&str>) =
        events.iter().filter_map(|e| Some((e.pdu.event_id.as_str(), e.pdu.rejected.as_deref()?))).unzip();
    if !ids.is_empty() {
        conn.execute(REJECTIONS, &[&ids, &reasons, &now_ms.to_string()]).await?;
    }
    Ok(())
}

async fn relations(conn: &Conn, events: &[&NewEvent]) -> Result<()> {
    let related: Vec<_> = events.iter().filter_map(|e| Some((*e, e.relation.as_ref()?))).collect();
    if related.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = related.iter().map(|(e, _)| e.pdu.event_id.as_str()).collect();
    let parents: Vec<&str> = related.iter().map(|(_, r)| r.0.as_str()).collect();
    let kinds: Vec<&str> = related.iter().map(|(_, r)| r.1.as_str()).collect();
    let keys: Vec<Option<&str>> = related.iter().map(|(_, r)| r.2.as_deref()).collect();
    conn.execute(RELATIONS, &[&ids, &parents, &kinds, &keys]).await?;
    let threads: Vec<_> = related.iter().filter(|(_, r)| r.1 == "m.thread").collect();
    if !threads.is_empty() {
        let rooms: Vec<&str> = threads.iter().map(|(e, _)| e.pdu.room_id.as_str()).collect();
        let roots: Vec<&str> = threads.iter().map(|(_, r)| r.0.as_str()).collect();
        let ids: Vec<&str> = threads.iter().map(|(e, _)| e.pdu.event_id.as_str()).collect();
        let depths: Vec<i64> = threads.iter().map(|(e, _)| e.pdu.depth).collect();
        let orders: Vec<i64> = threads.iter().map(|(e, _)| e.pdu.stream()).collect();
        conn.execute(THREADS, &[&rooms, &roots, &ids, &depths, &orders]).await?;
    }
    Ok(())
}

async fn redactions(conn: &Conn, events: &[&NewEvent], now_ms: i64) -> Result<()> {
    let found: Vec<&NewEvent> = events.iter().filter(|e| is_redaction(e)).copied().collect();
    if found.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = found.iter().map(|e| e.pdu.event_id.as_str()).collect();
    let rooms: Vec<&str> = found.iter().map(|e| e.pdu.room_id.as_str()).collect();
    let targets: Vec<&str> = found.iter().filter_map(|e| e.pdu.redacts.as_ref()).map(|r| r.as_str()).collect();
    let recheck: Vec<bool> = found.iter().map(|e| e.pdu.meta.recheck_redaction).collect();
    conn.execute(REDACTIONS, &[&ids, &targets, &now_ms, &recheck]).await?;
    conn.execute(REDACT_PUSH, &[&rooms, &targets]).await?;
    let undone = conn.query(REDACT_RELATIONS, &[&targets]).await?;
    let threads: Vec<&str> =
        undone.iter().filter(|r| r.get::<_, &str>(1) == "m.thread").map(|r| r.get::<_, &str>(0)).collect();
    if !threads.is_empty() {
        conn.execute(REDACT_THREADS, &[&threads]).await?;
    }
    Ok(())
}

fn content(e: &NewEvent) -> Map<String, Value> {
    e.pdu.content_as().unwrap_or_default()
}

async fn retention(conn: &Conn, events: &[&NewEvent]) -> Result<()> {
    for e in events.iter().filter(|e| e.pdu.kind == RETENTION_TYPE && e.pdu.is_state()) {
        let content = content(e);
        let (min, max) = (content.get("min_lifetime"), content.get("max_lifetime"));
        let whole = |v: Option<&Value>| v.is_none_or(|v| v.is_i64());
        if (min.is_some() || max.is_some()) && whole(min) && whole(max) {
            let number = |v: Option<&Value>| vec![v.and_then(Value::as_i64)];
            let (room, id) = (vec![e.pdu.room_id.as_str()], vec![e.pdu.event_id.as_str()]);
            conn.execute(RETENTION, &[&room, &id, &number(min), &number(max)]).await?;
        }
    }
    Ok(())
}

async fn labels(conn: &Conn, events: &[&NewEvent]) -> Result<()> {
    let mut cols: (Vec<&str>, Vec<String>, Vec<&str>, Vec<i64>) = Default::default();
    for e in events.iter().filter(|e| e.pdu.content.get().contains(LABELS_KEY)) {
        let content = content(e);
        let labels = content.get(LABELS_KEY).and_then(Value::as_array).into_iter().flatten();
        for label in labels.filter_map(Value::as_str) {
            cols.0.push(e.pdu.event_id.as_str());
            cols.1.push(types::json::strip_nul(label).into_owned());
            cols.2.push(e.pdu.room_id.as_str());
            cols.3.push(e.pdu.depth);
        }
    }
    if !cols.0.is_empty() {
        conn.execute(LABELS, &[&cols.0, &cols.1, &cols.2, &cols.3]).await?;
    }
    Ok(())
}

async fn expiry(conn: &Conn, events: &[&NewEvent]) -> Result<()> {
    let timed = events.iter().filter(|e| !e.pdu.is_state());
    let (ids, times): (Vec<&str>, Vec<i64>) =
        timed.filter_map(|e| Some((e.pdu.event_id.as_str(), content(e).get(EXPIRY_KEY)?.as_i64()?))).unzip();
    if !ids.is_empty() {
        conn.execute(EXPIRY, &[&ids, &times]).await?;
    }
    Ok(())
}

/// Caches to be named to other processes, beyond those that follow from the event rows: (cache, keys).
pub(super) fn cache_rows(writes: &[RoomWrite]) -> Vec<(String, Vec<String>)> {
    let events = writes.iter().flat_map(|w| &w.events);
    let retention = events.filter(|e| e.pdu.kind == RETENTION_TYPE && e.pdu.is_state());
    retention.map(|e| ("get_retention_policy_for_room".to_owned(), vec![e.pdu.room_id.to_string()])).collect()
}

/// Writes rows of the `caches` stream; returns their ids in order.
pub(super) async fn insert_cache_rows(
    store: &Store,
    conn: &Conn,
    names: &[String],
    keys: &[Vec<String>],
    now_ms: i64,
) -> Result<Vec<i64>> {
    let keys: Vec<String> = keys.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let rows = conn.query(CACHE_ROWS, &[&store.instance(), &names, &keys, &now_ms]).await?;
    let mut ids: Vec<i64> = rows.iter().map(|r| r.get(0)).collect();
    ids.sort_unstable();
    Ok(ids)
}
