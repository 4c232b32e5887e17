//! `room_stats_current`, `room_stats_state`, `user_stats_current`: figures that follow the current state.

use crate::{Store, Tx, transaction};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use types::{OwnedEventId, Pdu, Result};

/// State changes taken in one transaction.
const BATCH: i64 = 2_000;

/// Changes of membership between two positions, with what was before. `$3`: `:` and our server's name.
const COUNT_ROOMS: &str = "
    WITH changed AS (
        SELECT d.room_id, d.stream_id,
               (d.event_id IS NOT NULL)::int - (d.prev_event_id IS NOT NULL)::int AS state_events,
               CASE WHEN d.type = 'm.room.member' THEN m.membership END AS now,
               CASE WHEN d.type = 'm.room.member' THEN p.membership END AS was,
               right(d.state_key, length($3)) = $3 AS local
        FROM current_state_delta_stream d
        LEFT JOIN room_memberships m ON m.event_id = d.event_id
        LEFT JOIN room_memberships p ON p.event_id = d.prev_event_id
        WHERE d.stream_id > $1 AND d.stream_id <= $2
    )
    INSERT INTO room_stats_current AS s
        (room_id, current_state_events, joined_members, invited_members, left_members, banned_members,
         knocked_members, local_users_in_room, completed_delta_stream_id)
    SELECT room_id, SUM(state_events),
           SUM(COALESCE((now = 'join')::int, 0) - COALESCE((was = 'join')::int, 0)),
           SUM(COALESCE((now = 'invite')::int, 0) - COALESCE((was = 'invite')::int, 0)),
           SUM(COALESCE((now = 'leave')::int, 0) - COALESCE((was = 'leave')::int, 0)),
           SUM(COALESCE((now = 'ban')::int, 0) - COALESCE((was = 'ban')::int, 0)),
           SUM(COALESCE((now = 'knock')::int, 0) - COALESCE((was = 'knock')::int, 0)),
           SUM(CASE WHEN local THEN COALESCE((now = 'join')::int, 0) - COALESCE((was = 'join')::int, 0) ELSE 0 END),
           MAX(stream_id)
    FROM changed GROUP BY room_id
    ON CONFLICT (room_id) DO UPDATE SET
        current_state_events = s.current_state_events + EXCLUDED.current_state_events,
        joined_members = s.joined_members + EXCLUDED.joined_members,
        invited_members = s.invited_members + EXCLUDED.invited_members,
        left_members = s.left_members + EXCLUDED.left_members,
        banned_members = s.banned_members + EXCLUDED.banned_members,
        knocked_members = COALESCE(s.knocked_members, 0) + EXCLUDED.knocked_members,
        local_users_in_room = s.local_users_in_room + EXCLUDED.local_users_in_room,
        completed_delta_stream_id = EXCLUDED.completed_delta_stream_id";

const COUNT_USERS: &str = "
    INSERT INTO user_stats_current AS s (user_id, joined_rooms, completed_delta_stream_id)
    SELECT d.state_key,
           SUM(COALESCE((m.membership = 'join')::int, 0) - COALESCE((p.membership = 'join')::int, 0)), MAX(d.stream_id)
    FROM current_state_delta_stream d
    LEFT JOIN room_memberships m ON m.event_id = d.event_id
    LEFT JOIN room_memberships p ON p.event_id = d.prev_event_id
    WHERE d.stream_id > $1 AND d.stream_id <= $2 AND d.type = 'm.room.member'
      AND right(d.state_key, length($3)) = $3
    GROUP BY d.state_key
    ON CONFLICT (user_id) DO UPDATE SET
        joined_rooms = s.joined_rooms + EXCLUDED.joined_rooms,
        completed_delta_stream_id = EXCLUDED.completed_delta_stream_id";

/// The newest change of each piece of state that the directory shows.
const SHOWN: &str = "
    SELECT DISTINCT ON (room_id, type) room_id, type, event_id
    FROM current_state_delta_stream
    WHERE stream_id > $1 AND stream_id <= $2 AND state_key = '' AND type = ANY($3)
    ORDER BY room_id, type, stream_id DESC";

/// The newest change of state, or the one it was before (`$1`), and whether the figures have got there.
const REACHED: &str = "
    SELECT goal, p.stream_id >= goal
    FROM stats_incremental_position p,
         COALESCE($1::bigint, (SELECT MAX(stream_id) FROM current_state_delta_stream), 0) AS goal";

/// How often, and with which pause, who reads the figures waits for them.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Event type, field of its content, column.
const COLUMNS: [(&str, &str, &str); 10] = [
    ("m.room.name", "name", "name"),
    ("m.room.topic", "topic", "topic"),
    ("m.room.canonical_alias", "alias", "canonical_alias"),
    ("m.room.join_rules", "join_rule", "join_rules"),
    ("m.room.history_visibility", "history_visibility", "history_visibility"),
    ("m.room.encryption", "algorithm", "encryption"),
    ("m.room.avatar", "url", "avatar"),
    ("m.room.guest_access", "guest_access", "guest_access"),
    ("m.room.create", "type", "room_type"),
    ("m.room.create", "m.federate", "is_federatable"),
];

impl Store {
    /// Takes the next state changes up to position `upto` into the figures. False when there are none left.
    pub async fn advance_statistics(&self, upto: i64) -> Result<bool> {
        let Some(row) = self.db.query_opt("SELECT stream_id FROM stats_incremental_position", &[]).await? else {
            return Ok(false);
        };
        let from: i64 = row.get(0);
        let next = "SELECT MAX(stream_id) FROM (SELECT stream_id FROM current_state_delta_stream
                    WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3) t";
        let next = self.db.query_opt(next, &[&from, &upto, &BATCH]).await?;
        let Some(to) = next.and_then(|r| r.get::<_, Option<i64>>(0)) else { return Ok(false) };
        let shown = self.shown_state(from, to).await?;
        let ours = format!(":{}", self.server_name);
        transaction!(self.db, "update_stats", |tx| {
            // Another process may have been here since: then there is nothing to add.
            let moved = tx
                .run("UPDATE stats_incremental_position SET stream_id = $2 WHERE stream_id = $1", &[&from, &to])
                .await?;
            if moved == 1 {
                tx.run(COUNT_ROOMS, &[&from, &to, &ours]).await?;
                tx.run(COUNT_USERS, &[&from, &to, &ours]).await?;
                set_shown_state(tx, &shown).await?;
            }
            Ok(true)
        })
    }

    /// Waits until the figures know what is in the database now, 0.2 seconds at most: who makes a room looks for it in
    /// the directory next.
    pub async fn await_statistics(&self) -> Result<()> {
        let mut goal: Option<i64> = None;
        for _ in 0..LOOKS {
            let Some(row) = self.db.query_opt(REACHED, &[&goal]).await?.filter(|r| !r.get::<_, bool>(1)) else {
                return Ok(());
            };
            goal = Some(row.get(0));
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn shown_state(&self, from: i64, to: i64) -> Result<Vec<(String, String, Option<Arc<Pdu>>)>> {
        let mut kinds: Vec<&str> = COLUMNS.iter().map(|(kind, _, _)| *kind).collect();
        kinds.dedup();
        let rows = self.db.query(SHOWN, &[&from, &to, &kinds]).await?;
        let ids: Vec<OwnedEventId> = rows.iter().filter_map(|r| r.get::<_, Option<&str>>(2)?.try_into().ok()).collect();
        let events = self.events(&ids).await?;
        let by_id: HashMap<&str, &Arc<Pdu>> = events.iter().map(|(id, e)| (id.as_str(), e)).collect();
        Ok(rows
            .iter()
            .map(|r| {
                let event = r.get::<_, Option<&str>>(2).and_then(|id| by_id.get(id)).map(|e| (*e).clone());
                (r.get(0), r.get(1), event)
            })
            .collect())
    }
}

/// One statement a column, for all rooms at once.
async fn set_shown_state(tx: &Tx, shown: &[(String, String, Option<Arc<Pdu>>)]) -> Result<()> {
    for (kind, field, column) in COLUMNS {
        let mut rooms = Vec::new();
        let mut values: Vec<Option<String>> = Vec::new();
        for (room, _, event) in shown.iter().filter(|(_, k, _)| k == kind) {
            rooms.push(room.as_str());
            values.push(event.as_deref().and_then(|e| shown_value(e, field)));
        }
        if rooms.is_empty() {
            continue;
        }
        let value = if column == "is_federatable" { "COALESCE(v::boolean, TRUE)" } else { "v" };
        let sql = format!(
            "INSERT INTO room_stats_state (room_id, {column})
             SELECT r, {value} FROM unnest($1::text[], $2::text[]) AS t(r, v)
             ON CONFLICT (room_id) DO UPDATE SET {column} = EXCLUDED.{column}"
        );
        tx.run(&sql, &[&rooms, &values]).await?;
    }
    Ok(())
}

/// The text of a content field; anything that is not text (or, for `m.federate`, a boolean) counts as absent.
fn shown_value(event: &Pdu, field: &str) -> Option<String> {
    let content: serde_json::Map<String, serde_json::Value> = event.content_as().ok()?;
    match content.get(field)? {
        serde_json::Value::String(s) => Some(types::json::strip_nul(s).into_owned()),
        serde_json::Value::Bool(b) if field == "m.federate" => Some(b.to_string()),
        _ => None,
    }
}
