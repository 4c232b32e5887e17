//! Rows of a writer in a range of ids, read back from the tables: what fills a gap in replication.

use super::{EventRow, PresenceRow, Row, Stream, Streams};
use std::collections::BTreeMap;
use tokio_postgres::Row as Record;
use types::Result;

/// Ids looked at in one go.
const STEP: i64 = 2_000;

/// Ids of `caches` below the highest seen that a slow transaction may still bring.
const CACHES_OVERLAP: i64 = 10_000;

/// One statement and how its records read. Columns: the id, then those of the row.
/// Parameters: first id (exclusive), last id (inclusive), writer.
struct Select {
    sql: String,
    read: fn(&Record) -> Row,
}

impl Streams {
    /// Rows `instance` wrote with ids in `(from, upto]`, grouped by id, as if they had been announced; and the
    /// position they are complete up to, which may be lower than `upto` (then ask again from there).
    pub async fn rows_between(
        &self,
        stream: Stream,
        instance: &str,
        from: i64,
        upto: i64,
    ) -> Result<(Vec<(i64, Vec<Row>)>, i64)> {
        let end = upto.min(from.saturating_add(STEP));
        let mut rows: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
        let (low, high) = if stream.definition().negative { (-end - 1, -from - 1) } else { (from, end) };
        for select in selects(stream) {
            for record in self.db.query(&select.sql, &[&low, &high, &instance]).await? {
                let id: i64 = record.get(0);
                rows.entry(id.abs()).or_default().push((select.read)(&record));
            }
        }
        Ok((rows.into_iter().collect(), end))
    }
}

impl Streams {
    /// Where other processes are by the tables: (stream, writer, position). What there is to go by without a bus.
    pub async fn written_elsewhere(&self) -> Result<Vec<(Stream, String, i64)>> {
        let mut found = Vec::new();
        for row in self.db.query("SELECT stream_name, instance_name, stream_id FROM stream_positions", &[]).await? {
            let name: &str = row.get(0);
            let stream = Stream::ALL.into_iter().find(|s| s.definition().positions == Some(name));
            if let Some(stream) = stream {
                let id: i64 = row.get(2);
                found.push((stream, row.get(1), if stream.definition().negative { -id } else { id }));
            }
        }
        // Nobody notes positions of this stream, which everybody writes.
        let sql = "SELECT instance_name, MAX(stream_id) FROM cache_invalidation_stream_by_instance
                   WHERE stream_id > $1 GROUP BY instance_name";
        let from = self.current(Stream::Caches).saturating_sub(CACHES_OVERLAP);
        for row in self.db.query(sql, &[&from]).await? {
            found.push((Stream::Caches, row.get(0), row.get(1)));
        }
        // A process that is no writer any more must not count as one again.
        found.retain(|(stream, instance, _)| {
            *instance != *self.instance && (*stream == Stream::Caches || self.writers(*stream).contains(instance))
        });
        Ok(found)
    }
}

fn select(columns: &str, from: &str, id: &str, instance: &str, read: fn(&Record) -> Row) -> Select {
    let sql = format!(
        "SELECT {id}::bigint, {columns} FROM {from}
         WHERE {id} > $1::bigint AND {id} <= $2::bigint AND COALESCE({instance}, 'master') = $3 ORDER BY 1"
    );
    Select { sql, read }
}

/// A table with one row a fact.
fn table(columns: &str, name: &str, read: fn(&Record) -> Row) -> Select {
    select(columns, name, "stream_id", "instance_name", read)
}

const EVENT_COLUMNS: &str = "e.event_id, e.room_id, e.type, se.state_key, redacts, relates_to_id, membership,
    rejections.reason IS NOT NULL, e.outlier";
const EVENT_DETAILS: &str = "LEFT JOIN redactions USING (event_id) LEFT JOIN state_events se USING (event_id)
    LEFT JOIN event_relations USING (event_id) LEFT JOIN room_memberships USING (event_id)
    LEFT JOIN rejections USING (event_id)";

fn selects(stream: Stream) -> Vec<Select> {
    match stream {
        Stream::Events => vec![
            events("events e", "e.stream_ordering", "e.instance_name", event),
            events(
                "events e JOIN ex_outlier_stream o USING (event_id)",
                "o.event_stream_ordering",
                "o.instance_name",
                event,
            ),
            table("room_id, type, state_key, event_id", "current_state_delta_stream", |r| Row::State {
                room_id: r.get(1),
                kind: r.get(2),
                state_key: r.get(3),
                event_id: r.get(4),
            }),
        ],
        Stream::Backfill => vec![
            events("events e", "e.stream_ordering", "e.instance_name", backfill),
            events(
                "events e JOIN ex_outlier_stream o USING (event_id)",
                "o.event_stream_ordering",
                "o.instance_name",
                backfill,
            ),
        ],
        Stream::Receipts => vec![receipts()],
        Stream::Presence => vec![presence()],
        Stream::PushRules => {
            vec![table("user_id", "push_rules_stream", |r| Row::PushRules { user_id: r.get(1) })]
        }
        Stream::Pushers => vec![
            select("user_name, app_id, pushkey", "pushers", "id", "instance_name", |r| pusher(r, false)),
            table("user_id, app_id, pushkey", "deleted_pushers", |r| pusher(r, true)),
        ],
        Stream::Caches => vec![table(
            "cache_func, keys, COALESCE(invalidation_ts, 0)",
            "cache_invalidation_stream_by_instance",
            |r| Row::Cache { name: r.get(1), keys: r.get(2), at_ms: r.get(3) },
        )],
        Stream::DeviceLists => device_lists(),
        Stream::ToDevice => vec![
            table("user_id", "device_inbox", |r| Row::ToDevice { entity: r.get(1) }),
            table("destination", "device_federation_outbox", |r| Row::ToDevice { entity: r.get(1) }),
        ],
        Stream::AccountData => vec![
            table("user_id, NULL::text, account_data_type", "account_data", account_data),
            table("user_id, room_id, account_data_type", "room_account_data", account_data),
            table("user_id, room_id, 'm.tag'", "room_tags_revisions", account_data),
        ],
        _ => rarer(stream),
    }
}

fn rarer(stream: Stream) -> Vec<Select> {
    match stream {
        Stream::ProfileUpdates => vec![table("user_id, action, affected_fields", "profile_updates", |r| {
            let fields: Option<serde_json::Value> = r.get(3);
            Row::ProfileUpdate {
                user_id: r.get(1),
                action: r.get(2),
                fields: fields.and_then(|f| serde_json::from_value(f).ok()),
            }
        })],
        Stream::StickyEvents => vec![table("room_id, event_id", "sticky_events", |r| Row::StickyEvent {
            room_id: r.get(1),
            event_id: r.get(2),
        })],
        Stream::ThreadSubscriptions => {
            vec![table("user_id, room_id, event_id", "thread_subscriptions", |r| Row::ThreadSubscription {
                user_id: r.get(1),
                room_id: r.get(2),
                event_id: r.get(3),
            })]
        }
        Stream::UnPartialStatedRoom => {
            vec![table("room_id", "un_partial_stated_room_stream", |r| Row::UnPartialStatedRoom { room_id: r.get(1) })]
        }
        Stream::UnPartialStatedEvent => {
            vec![table("event_id, rejection_status_changed", "un_partial_stated_event_stream", |r| {
                Row::UnPartialStatedEvent { event_id: r.get(1), rejection_changed: r.get(2) }
            })]
        }
        Stream::QuarantinedMedia => {
            vec![table("origin, media_id, quarantined", "quarantined_media_changes", |r| Row::QuarantinedMedia {
                origin: r.get(1),
                media_id: r.get(2),
                quarantined: r.get(3),
            })]
        }
        // Kept in the writer's memory only.
        _ => Vec::new(),
    }
}

fn events(from: &str, id: &str, instance: &str, read: fn(&Record) -> Row) -> Select {
    select(EVENT_COLUMNS, &format!("{from} {EVENT_DETAILS}"), id, instance, read)
}

fn event(r: &Record) -> Row {
    Row::Event(EventRow {
        event_id: r.get(1),
        room_id: r.get(2),
        kind: r.get(3),
        state_key: r.get(4),
        redacts: r.get(5),
        relates_to: r.get(6),
        membership: r.get(7),
        rejected: r.get(8),
        outlier: r.get(9),
    })
}

fn backfill(r: &Record) -> Row {
    Row::Backfill {
        event_id: r.get(1),
        room_id: r.get(2),
        kind: r.get(3),
        state_key: r.get(4),
        redacts: r.get(5),
        relates_to: r.get(6),
    }
}

fn receipts() -> Select {
    table("room_id, receipt_type, user_id, event_id, thread_id, data", "receipts_linearized", |r| Row::Receipt {
        room_id: r.get(1),
        receipt_type: r.get(2),
        user_id: r.get(3),
        event_id: r.get(4),
        thread_id: r.get(5),
        data: serde_json::from_str(r.get(6)).unwrap_or_default(),
    })
}

/// One row a user, so of several changes in the range only the last is found, which is all that counts.
fn presence() -> Select {
    let columns = "user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts, status_msg,
        COALESCE(currently_active, false)";
    table(columns, "presence_stream", |r| {
        Row::Presence(PresenceRow {
            user_id: r.get(1),
            state: r.get(2),
            last_active_ts: r.get(3),
            last_federation_update_ts: r.get(4),
            last_user_sync_ts: r.get(5),
            status_msg: r.get(6),
            currently_active: r.get(7),
        })
    })
}

fn pusher(r: &Record, deleted: bool) -> Row {
    Row::Pusher { user_id: r.get(1), app_id: r.get(2), pushkey: r.get(3), deleted }
}

fn account_data(r: &Record) -> Row {
    Row::AccountData { user_id: r.get(1), room_id: r.get(2), kind: r.get(3) }
}

fn device_lists() -> Vec<Select> {
    vec![
        table("user_id", "device_lists_stream", |r| Row::DeviceList {
            user_id: r.get(1),
            is_signature: false,
            hosts_calculated: false,
        }),
        table(
            "user_id",
            "(SELECT DISTINCT stream_id, user_id, instance_name FROM device_lists_outbound_pokes
              WHERE stream_id > $1 AND stream_id <= $2) pokes",
            |r| Row::DeviceList { user_id: r.get(1), is_signature: false, hosts_calculated: true },
        ),
        table("from_user_id", "user_signature_stream", |r| Row::DeviceList {
            user_id: r.get(1),
            is_signature: true,
            hosts_calculated: false,
        }),
    ]
}
