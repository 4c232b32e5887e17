//! Keeping the user directory in step with memberships: what changed is read again from the current state.

use crate::{Store, Tx, transaction};
use std::collections::{BTreeMap, BTreeSet};
use types::Result;

/// State changes taken in one transaction.
const BATCH: i64 = 500;

const CHANGES: &str = "
    SELECT room_id, type, state_key FROM current_state_delta_stream
    WHERE stream_id > $1 AND stream_id <= $2
      AND (type = 'm.room.member' OR (type IN ('m.room.join_rules', 'm.room.history_visibility') AND state_key = ''))";

/// Contents that make a room public.
const PUBLICNESS: &str = "
    SELECT c.room_id, c.type, ej.json FROM current_state_events c JOIN event_json ej USING (event_id)
    WHERE c.room_id = ANY($1) AND c.state_key = '' AND c.type IN ('m.room.join_rules', 'm.room.history_visibility')";

/// Joined members of rooms (without those that are never shown, see [`PROFILES`]), all of them or (`$2` true) only the touched ones. `$3`/`$4`: touched rooms and users.
const PUBLIC_MEMBERS: &str = "
    INSERT INTO users_in_public_rooms (user_id, room_id)
    SELECT c.state_key, c.room_id FROM current_state_events c
    WHERE c.room_id = ANY($1) AND c.type = 'm.room.member' AND c.membership = 'join'
      AND (NOT $2 OR (c.room_id, c.state_key) IN (SELECT * FROM unnest($3::text[], $4::text[])))
      AND NOT EXISTS (SELECT 1 FROM users u WHERE u.name = c.state_key
          AND (u.deactivated = 1 OR u.appservice_id IS NOT NULL OR u.user_type = 'support'))
    ON CONFLICT DO NOTHING";

/// Pairs of members, without those that are never shown; the one who searches is ours (`$5`: `:` and our name).
const PRIVATE_PAIRS: &str = "
    INSERT INTO users_who_share_private_rooms (user_id, other_user_id, room_id)
    WITH m AS (
        SELECT c.room_id, c.state_key, right(c.state_key, length($5)) = $5 AS ours,
               NOT $2 OR (c.room_id, c.state_key) IN (SELECT * FROM unnest($3::text[], $4::text[])) AS touched
        FROM current_state_events c
        WHERE c.room_id = ANY($1) AND c.type = 'm.room.member' AND c.membership = 'join'
          AND NOT EXISTS (SELECT 1 FROM users u WHERE u.name = c.state_key
              AND (u.deactivated = 1 OR u.appservice_id IS NOT NULL OR u.user_type = 'support'))
    )
    SELECT a.state_key, b.state_key, a.room_id FROM m a JOIN m b ON a.room_id = b.room_id
    WHERE a.touched AND a.ours AND a.state_key <> b.state_key
    UNION
    SELECT b.state_key, a.state_key, a.room_id FROM m a JOIN m b ON a.room_id = b.room_id
    WHERE a.touched AND b.ours AND a.state_key <> b.state_key
    ON CONFLICT DO NOTHING";

/// Profiles of touched users: ours from `profiles`, others' from their newest join. Deactivated users, support
/// staff and users of application services are not shown.
const PROFILES: &str = "
    WITH shown AS (
        SELECT u.name AS user_id, p.displayname AS display_name, p.avatar_url
        FROM users u LEFT JOIN profiles p ON p.full_user_id = u.name
        WHERE u.name = ANY($1) AND u.deactivated = 0 AND u.appservice_id IS NULL
          AND u.user_type IS DISTINCT FROM 'support'
        UNION ALL
        SELECT DISTINCT ON (m.user_id) m.user_id, m.display_name, m.avatar_url
        FROM room_memberships m JOIN current_state_events c USING (event_id)
        WHERE m.user_id = ANY($1) AND right(m.user_id, length($2)) <> $2 AND c.membership = 'join'
        ORDER BY 1
    ), search AS (
        INSERT INTO user_directory_search (user_id, vector)
        SELECT user_id,
               setweight(to_tsvector('simple', substring(split_part(user_id, ':', 1) FROM 2)), 'A')
               || setweight(to_tsvector('simple', substring(user_id FROM position(':' IN user_id) + 1)), 'D')
               || setweight(to_tsvector('simple', coalesce(display_name, '')), 'B')
        FROM shown
        ON CONFLICT (user_id) DO UPDATE SET vector = EXCLUDED.vector
    )
    INSERT INTO user_directory (user_id, room_id, display_name, avatar_url)
    SELECT user_id, NULL, display_name, avatar_url FROM shown
    ON CONFLICT (user_id) DO UPDATE SET display_name = EXCLUDED.display_name, avatar_url = EXCLUDED.avatar_url";

/// Touched users that no longer share a room with anybody here.
const STRANGERS: &str = "
    SELECT u FROM unnest($1::text[]) u
    WHERE right(u, length($2)) <> $2
      AND NOT EXISTS (SELECT 1 FROM users_in_public_rooms p WHERE p.user_id = u)
      AND NOT EXISTS (SELECT 1 FROM users_who_share_private_rooms s WHERE s.other_user_id = u)";

/// What a batch of state changes touches.
#[derive(Default)]
struct Touched {
    /// Rooms that may have become public or private.
    whole: BTreeSet<String>,
    /// (room, user) whose membership changed.
    members: BTreeSet<(String, String)>,
}

impl Store {
    /// Takes the next state changes up to position `upto` into the directory. False when there are none left.
    pub async fn advance_user_directory(&self, upto: i64) -> Result<bool> {
        let row = self.db.query_opt("SELECT stream_id FROM user_directory_stream_pos", &[]).await?;
        let Some(from) = row.and_then(|r| r.get::<_, Option<i64>>(0)) else { return Ok(false) };
        let next = "SELECT MAX(stream_id) FROM (SELECT stream_id FROM current_state_delta_stream
                    WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3) t";
        let next = self.db.query_opt(next, &[&from, &upto, &BATCH]).await?;
        let Some(to) = next.and_then(|r| r.get::<_, Option<i64>>(0)) else { return Ok(false) };
        let touched = self.touched(from, to).await?;
        let public = self.public_of(&touched).await?;
        let ours = format!(":{}", self.server_name);
        transaction!(self.db, "update_user_directory", |tx| {
            let moved = tx
                .run("UPDATE user_directory_stream_pos SET stream_id = $2 WHERE stream_id = $1", &[&from, &to])
                .await?;
            if moved == 1 {
                share_rooms(tx, &touched, &public, &ours).await?;
                show_profiles(tx, &touched, &ours).await?;
            }
            Ok(true)
        })
    }

    async fn touched(&self, from: i64, to: i64) -> Result<Touched> {
        let mut touched = Touched::default();
        for row in self.db.query(CHANGES, &[&from, &to]).await? {
            let (room, kind, state_key): (String, &str, String) = (row.get(0), row.get(1), row.get(2));
            if kind == "m.room.member" {
                touched.members.insert((room, state_key));
            } else {
                touched.whole.insert(room);
            }
        }
        Ok(touched)
    }

    /// Touched rooms, and whether anybody may come in or look in.
    async fn public_of(&self, touched: &Touched) -> Result<BTreeMap<String, bool>> {
        let rooms = touched.whole.iter().chain(touched.members.iter().map(|(room, _)| room));
        let mut public: BTreeMap<String, bool> = rooms.map(|r| (r.clone(), false)).collect();
        let ids: Vec<&str> = public.keys().map(String::as_str).collect();
        for row in self.db.query(PUBLICNESS, &[&ids]).await? {
            let event: serde_json::Value = serde_json::from_str(row.get(2))?;
            let opens = match row.get(1) {
                "m.room.join_rules" => event["content"]["join_rule"] == "public",
                _ => event["content"]["history_visibility"] == "world_readable",
            };
            if let Some(is) = public.get_mut(row.get::<_, &str>(0)) {
                *is |= opens;
            }
        }
        Ok(public)
    }
}

async fn share_rooms(tx: &Tx, touched: &Touched, public: &BTreeMap<String, bool>, ours: &str) -> Result<()> {
    let whole: Vec<&str> = touched.whole.iter().map(String::as_str).collect();
    let partial = touched.members.iter().filter(|(room, _)| !touched.whole.contains(room));
    let (rooms, users): (Vec<&str>, Vec<&str>) = partial.map(|(r, u)| (r.as_str(), u.as_str())).unzip();
    for table in ["users_in_public_rooms", "users_who_share_private_rooms"] {
        tx.run(&format!("DELETE FROM {table} WHERE room_id = ANY($1)"), &[&whole]).await?;
        let sql =
            format!("DELETE FROM {table} WHERE (room_id, user_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))");
        tx.run(&sql, &[&rooms, &users]).await?;
    }
    let sql = "DELETE FROM users_who_share_private_rooms
               WHERE (room_id, other_user_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))";
    tx.run(sql, &[&rooms, &users]).await?;
    for (among, only_touched) in [(&whole, false), (&rooms, true)] {
        let is_public = |r: &&&str| public.get(**r).copied().unwrap_or(false);
        let open: Vec<&str> = among.iter().filter(is_public).copied().collect();
        let closed: Vec<&str> = among.iter().filter(|r| !is_public(r)).copied().collect();
        tx.run(PUBLIC_MEMBERS, &[&open, &only_touched, &rooms, &users]).await?;
        tx.run(PRIVATE_PAIRS, &[&closed, &only_touched, &rooms, &users, &ours]).await?;
    }
    Ok(())
}

async fn show_profiles(tx: &Tx, touched: &Touched, ours: &str) -> Result<()> {
    let users: BTreeSet<&str> = touched.members.iter().map(|(_, user)| user.as_str()).collect();
    let users: Vec<&str> = users.into_iter().collect();
    tx.run(PROFILES, &[&users, &ours]).await?;
    let strangers: Vec<String> = tx.query(STRANGERS, &[&users, &ours]).await?.iter().map(|r| r.get(0)).collect();
    if !strangers.is_empty() {
        tx.run("DELETE FROM user_directory WHERE user_id = ANY($1)", &[&strangers]).await?;
        tx.run("DELETE FROM user_directory_search WHERE user_id = ANY($1)", &[&strangers]).await?;
    }
    Ok(())
}
