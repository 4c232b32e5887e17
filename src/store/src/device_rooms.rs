//! Who sees whose devices: memberships as device lists need them (`current_state_events`,
//! `current_state_delta_stream`).

use crate::Store;
use std::collections::{HashMap, HashSet};
use types::{MultiToken, Result, RoomToken};

/// A member whose membership of a room changed.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberMove {
    pub room_id: String,
    pub user_id: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Store {
    /// Membership changes of `user_id` anywhere, and of anybody in `room_ids`, in (`from`, `to`], in order.
    pub async fn member_moves(
        &self,
        user_id: &str,
        room_ids: &[String],
        from: &RoomToken,
        to: &RoomToken,
    ) -> Result<Vec<MemberMove>> {
        let live = |t: &RoomToken| match t {
            RoomToken::Live(m) => m.clone(),
            RoomToken::Topological { stream, .. } => MultiToken::at(*stream),
        };
        let (low, high) = (live(from), live(to));
        let sql = "SELECT d.room_id, d.state_key, b.membership, a.membership, d.stream_id, d.instance_name
                   FROM current_state_delta_stream d
                   LEFT JOIN room_memberships a ON a.event_id = d.event_id
                   LEFT JOIN room_memberships b ON b.event_id = d.prev_event_id
                   WHERE d.stream_id > $1 AND d.stream_id <= $2 AND d.type = 'm.room.member'
                     AND (d.state_key = $3 OR d.room_id = ANY($4))
                   ORDER BY d.stream_id";
        let rows = self.db.query(sql, &[&low.stream, &high.max(), &user_id, &room_ids]).await?;
        let moves = rows.iter().filter(|r| self.in_range(&low, &high, r.get(5), r.get(4))).map(|r| MemberMove {
            room_id: r.get(0),
            user_id: r.get(1),
            before: r.get(2),
            after: r.get(3),
        });
        Ok(moves.collect())
    }

    /// Everybody joined to one of these rooms.
    pub async fn users_in_rooms(&self, room_ids: &[String]) -> Result<HashSet<String>> {
        if room_ids.is_empty() {
            return Ok(HashSet::new());
        }
        let sql = "SELECT DISTINCT state_key FROM current_state_events
                   WHERE room_id = ANY($1) AND type = 'm.room.member' AND membership = 'join'";
        Ok(self.db.query(sql, &[&room_ids]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// Those of `users` who are joined to one of `room_ids`.
    pub async fn users_among_rooms(&self, users: &[String], room_ids: &[String]) -> Result<HashSet<String>> {
        if users.is_empty() || room_ids.is_empty() {
            return Ok(HashSet::new());
        }
        let sql = "SELECT DISTINCT state_key FROM current_state_events
                   WHERE type = 'm.room.member' AND state_key = ANY($1) AND membership = 'join' AND room_id = ANY($2)";
        Ok(self.db.query(sql, &[&users, &room_ids]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// Rooms a user of any server is joined to.
    pub async fn joined_rooms_of_any(&self, user_id: &str) -> Result<Vec<String>> {
        let sql = "SELECT room_id FROM current_state_events
                   WHERE type = 'm.room.member' AND state_key = $1 AND membership = 'join'";
        Ok(self.db.query(sql, &[&user_id]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// Servers with joined members, by room.
    pub async fn servers_by_room(&self, room_ids: &[String]) -> Result<HashMap<String, Vec<String>>> {
        let sql = "SELECT room_id, array_agg(DISTINCT substring(state_key FROM '@[^:]*:(.*)$'))
                   FROM current_state_events
                   WHERE room_id = ANY($1) AND type = 'm.room.member' AND membership = 'join'
                     AND state_key LIKE '@%:%'
                   GROUP BY room_id";
        Ok(self.db.query(sql, &[&room_ids]).await?.iter().map(|r| (r.get(0), r.get(1))).collect())
    }
}
