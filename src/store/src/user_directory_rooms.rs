//! Keeping the user directory: who is seen through which room. A room's rows are made anew from its current state
//! whenever it changes, so that nothing can be missed.

use crate::{Store, Tx, transaction};
use ruma::OwnedEventId;
use serde_json::Value;
use types::Result;

/// State that decides who is seen through a room.
const DECISIVE: [&str; 3] = ["m.room.member", "m.room.join_rules", "m.room.history_visibility"];

/// A joined member and their name and avatar in the room.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryMember {
    pub user_id: String,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

impl Store {
    /// Up to where (in the events stream) the directory knows of changes. None: it was never made.
    pub async fn directory_position(&self) -> Result<Option<i64>> {
        let row = self.db.query_opt("SELECT stream_id FROM user_directory_stream_pos", &[]).await?;
        Ok(row.and_then(|r| r.get(0)))
    }

    /// Sets [`Store::directory_position`].
    pub async fn set_directory_position(&self, at: i64) -> Result<()> {
        self.db.execute("UPDATE user_directory_stream_pos SET stream_id = $1", &[&at]).await.map(|_| ())
    }

    /// Rooms with changes in (`from`, `to`] that may concern the directory; with `from` None, all rooms.
    pub async fn rooms_for_directory(&self, from: Option<i64>, to: i64) -> Result<Vec<String>> {
        let rows = match from {
            Some(from) => {
                let sql = "SELECT DISTINCT room_id FROM current_state_delta_stream
                           WHERE stream_id > $1 AND stream_id <= $2 AND type = ANY($3)";
                self.db.query(sql, &[&from, &to, &&DECISIVE[..]]).await?
            }
            None => self.db.query("SELECT room_id FROM rooms", &[]).await?,
        };
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }

    /// Joined members of a room that may be in the directory: nobody deactivated or of support.
    pub async fn members_for_directory(&self, room_id: &str) -> Result<Vec<DirectoryMember>> {
        let rows = self
            .db
            .query(
                "SELECT c.state_key, m.display_name, m.avatar_url
                 FROM current_state_events c JOIN room_memberships m USING (event_id)
                 LEFT JOIN users u ON u.name = c.state_key
                 WHERE c.room_id = $1 AND c.type = 'm.room.member' AND c.membership = 'join'
                   AND COALESCE(u.deactivated, 0) = 0 AND u.user_type IS DISTINCT FROM 'support'",
                &[&room_id],
            )
            .await?;
        let parse = |r: &tokio_postgres::Row| DirectoryMember {
            user_id: r.get(0),
            display_name: r.get(1),
            avatar_url: r.get(2),
        };
        Ok(rows.iter().map(parse).collect())
    }

    /// Whether anybody may join a room or read it.
    pub async fn is_public_for_directory(&self, room_id: &str) -> Result<bool> {
        let sql = "SELECT event_id FROM current_state_events WHERE room_id = $1 AND state_key = ''
                       AND type IN ('m.room.join_rules', 'm.room.history_visibility')";
        let rows = self.db.query(sql, &[&room_id]).await?;
        let ids: Vec<OwnedEventId> =
            rows.iter().map(|r| r.get::<_, &str>(0).try_into()).collect::<std::result::Result<_, _>>()?;
        Ok(self.events(&ids).await?.values().any(|event| {
            let content: Value = serde_json::from_str(event.content.get()).unwrap_or_default();
            content.get("join_rule").is_some_and(|r| r == "public")
                || content.get("history_visibility").is_some_and(|v| v == "world_readable")
        }))
    }

    /// Makes these the members seen through a room.
    pub async fn set_directory_room(&self, room_id: &str, members: &[DirectoryMember], public: bool) -> Result<()> {
        let all: Vec<&str> = members.iter().map(|m| m.user_id.as_str()).collect();
        let ours = format!(":{}", self.server_name);
        let local: Vec<&str> = all.iter().copied().filter(|u| u.ends_with(&ours)).collect();
        let none: Vec<&str> = Vec::new();
        let (in_public, from, to) = if public { (&all, &none, &none) } else { (&none, &local, &all) };
        transaction!(self, "user_directory_room", |tx| {
            show_members(tx, members, &ours).await?;
            let sql = "DELETE FROM users_in_public_rooms WHERE room_id = $1 AND NOT (user_id = ANY($2)) RETURNING user_id";
            let mut gone: Vec<String> =
                tx.query(sql, &[&room_id, in_public]).await?.iter().map(|r| r.get(0)).collect();
            let sql = "INSERT INTO users_in_public_rooms (user_id, room_id) SELECT u, $1 FROM unnest($2::text[]) u
                       ON CONFLICT (user_id, room_id) DO NOTHING";
            tx.run(sql, &[&room_id, in_public]).await?;
            let sql = "DELETE FROM users_who_share_private_rooms
                       WHERE room_id = $1 AND NOT (user_id = ANY($2) AND other_user_id = ANY($3)) RETURNING other_user_id";
            gone.extend(tx.query(sql, &[&room_id, from, to]).await?.iter().map(|r| r.get::<_, String>(0)));
            let sql = "INSERT INTO users_who_share_private_rooms (user_id, other_user_id, room_id)
                       SELECT a, b, $1 FROM unnest($2::text[]) a CROSS JOIN unnest($3::text[]) b WHERE a <> b
                       ON CONFLICT (user_id, other_user_id, room_id) DO NOTHING";
            tx.run(sql, &[&room_id, from, to]).await?;
            gone.retain(|u| !u.ends_with(&ours));
            drop_unseen(tx, &gone).await
        })
    }

    /// Puts users of this server that are missing into the directory.
    pub async fn fill_directory(&self) -> Result<()> {
        transaction!(self, "populate_user_directory", |tx| {
            tx.run(
                "INSERT INTO user_directory (user_id, display_name, avatar_url)
                 SELECT u.name, p.displayname, p.avatar_url FROM users u JOIN profiles p ON p.full_user_id = u.name
                 WHERE u.deactivated = 0 AND u.user_type IS DISTINCT FROM 'support' AND u.appservice_id IS NULL
                 ON CONFLICT (user_id) DO NOTHING",
                &[],
            )
            .await?;
            tx.run(&index_missing(""), &[]).await?;
            Ok(())
        })
    }
}

/// Indexes users who are not in the index; `which`: a further condition on `d`.
fn index_missing(which: &str) -> String {
    format!(
        "INSERT INTO user_directory_search (user_id, vector)
         SELECT d.user_id,
                setweight(to_tsvector('simple', substr(split_part(d.user_id, ':', 1), 2)), 'A')
                || setweight(to_tsvector('simple', substr(d.user_id, strpos(d.user_id, ':') + 1)), 'D')
                || setweight(to_tsvector('simple', normalize(lower(COALESCE(d.display_name, '')), NFKC)), 'B')
         FROM user_directory d
         WHERE {which} NOT EXISTS (SELECT 1 FROM user_directory_search s WHERE s.user_id = d.user_id)
         ON CONFLICT (user_id) DO NOTHING"
    )
}

/// Remote users as they are in the room; local users have profiles, which are shown as they change.
async fn show_members(tx: &Tx, members: &[DirectoryMember], ours: &str) -> Result<()> {
    let (local, remote): (Vec<_>, Vec<_>) = members.iter().partition(|m| m.user_id.ends_with(ours));
    let local: Vec<&str> = local.iter().map(|m| m.user_id.as_str()).collect();
    tx.run(
        "INSERT INTO user_directory (user_id, display_name, avatar_url)
         SELECT u, p.displayname, p.avatar_url FROM unnest($1::text[]) u LEFT JOIN profiles p ON p.full_user_id = u
         ON CONFLICT (user_id) DO NOTHING",
        &[&local],
    )
    .await?;
    let ids: Vec<&str> = remote.iter().map(|m| m.user_id.as_str()).collect();
    let names: Vec<Option<&str>> = remote.iter().map(|m| m.display_name.as_deref()).collect();
    let avatars: Vec<Option<&str>> = remote.iter().map(|m| m.avatar_url.as_deref()).collect();
    let changed = tx
        .query(
            "INSERT INTO user_directory AS d (user_id, display_name, avatar_url)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
             ON CONFLICT (user_id) DO UPDATE SET display_name = EXCLUDED.display_name, avatar_url = EXCLUDED.avatar_url
             WHERE (d.display_name, d.avatar_url) IS DISTINCT FROM (EXCLUDED.display_name, EXCLUDED.avatar_url)
             RETURNING user_id",
            &[&ids, &names, &avatars],
        )
        .await?;
    let changed: Vec<String> = changed.iter().map(|r| r.get(0)).collect();
    tx.run("DELETE FROM user_directory_search WHERE user_id = ANY($1)", &[&changed]).await?;
    let all: Vec<&str> = local.into_iter().chain(ids).collect();
    tx.run(&index_missing("d.user_id = ANY($1) AND"), &[&all]).await?;
    Ok(())
}

/// Remote users who are seen through no room any more.
async fn drop_unseen(tx: &Tx, gone: &[String]) -> Result<()> {
    let dropped = tx
        .query(
            "DELETE FROM user_directory d WHERE d.user_id = ANY($1)
                 AND NOT EXISTS (SELECT 1 FROM users_in_public_rooms p WHERE p.user_id = d.user_id)
                 AND NOT EXISTS (SELECT 1 FROM users_who_share_private_rooms s WHERE s.other_user_id = d.user_id)
             RETURNING user_id",
            &[&gone],
        )
        .await?;
    let dropped: Vec<String> = dropped.iter().map(|r| r.get(0)).collect();
    tx.run("DELETE FROM user_directory_search WHERE user_id = ANY($1)", &[&dropped]).await?;
    Ok(())
}
