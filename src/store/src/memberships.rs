//! Who is in which room: `local_current_membership`, `room_memberships`, `current_state_events`.

use crate::{Cache, Store, transaction};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use std::sync::Arc;
use types::Result;

/// The current membership of a local user in a room.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalMembership {
    pub membership: String,
    pub event_id: OwnedEventId,
}

/// Cache of [`LocalMembership`]s by (user, room).
pub type MembershipCache = Cache<(String, String), Option<Arc<LocalMembership>>>;

/// A joined member and the profile in its membership event.
#[derive(Clone, Debug)]
pub struct Member {
    pub user_id: OwnedUserId,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

impl Store {
    /// Current membership of a local user; None: never had one.
    pub async fn local_membership(&self, user_id: &str, room_id: &str) -> Result<Option<Arc<LocalMembership>>> {
        let key = (user_id.to_owned(), room_id.to_owned());
        self.room_caches
            .local_memberships
            .get_or_load(&key, async {
                let sql =
                    "SELECT membership, event_id FROM local_current_membership WHERE user_id = $1 AND room_id = $2";
                let row = self.db.query_opt(sql, &[&user_id, &room_id]).await?;
                let read = |r: tokio_postgres::Row| {
                    let event_id = r.get::<_, &str>(1).try_into()?;
                    Ok(Arc::new(LocalMembership { membership: r.get(0), event_id }))
                };
                row.map(read).transpose()
            })
            .await
    }

    /// Whether a user who left has forgotten the room.
    pub async fn has_forgotten(&self, user_id: &str, room_id: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM room_memberships WHERE user_id = $1 AND room_id = $2 AND forgotten = 0 LIMIT 1";
        Ok(self.db.query_opt(sql, &[&user_id, &room_id]).await?.is_none())
    }

    /// Marks the room as forgotten by a user.
    pub async fn forget_room(&self, user_id: &str, room_id: &str) -> Result<()> {
        transaction!(self, "forget_membership", |tx| {
            let sql = "UPDATE room_memberships SET forgotten = 1 WHERE user_id = $1 AND room_id = $2";
            tx.run(sql, &[&user_id, &room_id]).await?;
            let sql = "UPDATE sliding_sync_membership_snapshots SET forgotten = 1 WHERE user_id = $1 AND room_id = $2";
            tx.run(sql, &[&user_id, &room_id]).await?;
            let both = Some(vec![user_id.to_owned(), room_id.to_owned()]);
            let user = Some(vec![user_id.to_owned()]);
            tx.forget_many(
                self,
                vec![
                    ("did_forget".into(), both),
                    ("get_forgotten_rooms_for_user".into(), user.clone()),
                    ("get_sliding_sync_rooms_for_user_from_membership_snapshots".into(), user),
                ],
            )
            .await?;
            Ok(())
        })
    }

    /// Rooms a local user is joined to.
    pub async fn joined_rooms(&self, user_id: &str) -> Result<Vec<OwnedRoomId>> {
        let sql = "SELECT room_id FROM local_current_membership WHERE user_id = $1 AND membership = 'join'";
        let rows = self.db.query(sql, &[&user_id]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Those of these rooms a local user is joined to.
    pub async fn joined_among(&self, user_id: &str, room_ids: &[&str]) -> Result<Vec<OwnedRoomId>> {
        let sql = "SELECT room_id FROM local_current_membership
                   WHERE user_id = $1 AND membership = 'join' AND room_id = ANY($2)";
        let rows = self.db.query(sql, &[&user_id, &room_ids]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Joined members with their profiles in the room.
    pub async fn joined_members(&self, room_id: &str) -> Result<Vec<Member>> {
        let sql = "SELECT c.state_key, m.display_name, m.avatar_url
                   FROM current_state_events c JOIN room_memberships m USING (event_id)
                   WHERE c.room_id = $1 AND c.type = 'm.room.member' AND c.membership = 'join'";
        let rows = self.db.query(sql, &[&room_id]).await?;
        let members = rows.iter().filter_map(|r| {
            // Rooms of old versions hold members whose ids are none.
            let user_id = OwnedUserId::try_from(r.get::<_, &str>(0)).ok()?;
            Some(Member { user_id, display_name: r.get(1), avatar_url: r.get(2) })
        });
        Ok(members.collect())
    }

    /// Servers with joined members, the one with the oldest membership first.
    pub async fn servers_in_room(&self, room_id: &str) -> Result<Vec<String>> {
        let sql = "SELECT substring(c.state_key FROM '@[^:]*:(.*)$') AS host
                   FROM current_state_events c JOIN events e USING (event_id)
                   WHERE c.room_id = $1 AND c.type = 'm.room.member' AND c.membership = 'join'
                   GROUP BY host ORDER BY min(e.depth)";
        let rows = self.db.query(sql, &[&room_id]).await?;
        Ok(rows.iter().filter_map(|r| r.get::<_, Option<String>>(0)).collect())
    }

    /// Servers with joined members in the state a group stands for.
    pub async fn servers_at_group(&self, group: i64) -> Result<Vec<String>> {
        let state = self.state_of_group(group).await?;
        let members: Vec<&str> =
            state.state.iter().filter(|((kind, _), _)| kind == "m.room.member").map(|(_, id)| id.as_str()).collect();
        let sql = "SELECT DISTINCT substring(user_id FROM '@[^:]*:(.*)$') FROM room_memberships
                   WHERE event_id = ANY($1) AND membership = 'join'";
        let rows = self.db.query(sql, &[&members]).await?;
        Ok(rows.iter().filter_map(|r| r.get::<_, Option<String>>(0)).collect())
    }

    /// Local users joined to a room.
    pub async fn local_users_in(&self, room_id: &str) -> Result<Vec<OwnedUserId>> {
        let sql = "SELECT user_id FROM local_current_membership WHERE room_id = $1 AND membership = 'join'";
        let rows = self.db.query(sql, &[&room_id]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Guests of this server joined to a room.
    pub async fn guests_in(&self, room_id: &str) -> Result<Vec<OwnedUserId>> {
        let sql = "SELECT l.user_id FROM local_current_membership l JOIN users u ON u.name = l.user_id
                   WHERE l.room_id = $1 AND l.membership = 'join' AND u.is_guest = 1";
        let rows = self.db.query(sql, &[&room_id]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Membership events of those who are banned.
    pub async fn bans_in(&self, room_id: &str) -> Result<Vec<OwnedEventId>> {
        let sql = "SELECT event_id FROM current_state_events
                   WHERE room_id = $1 AND type = 'm.room.member' AND membership = 'ban'";
        let rows = self.db.query(sql, &[&room_id]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Joined-member counts of rooms.
    pub async fn joined_counts(&self, room_ids: &[&str]) -> Result<std::collections::HashMap<String, i64>> {
        let sql = "SELECT room_id, count(*) FROM current_state_events
                   WHERE room_id = ANY($1) AND type = 'm.room.member' AND membership = 'join' GROUP BY room_id";
        let rows = self.db.query(sql, &[&room_ids]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }
}
