//! What decides on a change of membership, read in one statement.

use crate::Store;
use ruma::OwnedEventId;
use std::collections::HashMap;
use types::Result;

/// A room as it stands towards one user.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// State event ids by type; `m.room.member` is the target's.
    pub state: HashMap<String, OwnedEventId>,
    /// Somebody of this server is in the room.
    pub host_in_room: bool,
    /// None: the room is not known here.
    pub version: Option<String>,
    pub is_blocked: bool,
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
}

/// Types of state (with an empty state key) that policy may ask for.
const TYPES: &[&str] = &["m.room.create", "m.room.join_rules", "m.room.guest_access", "m.room.power_levels"];

const STANDING: &str = "
    SELECT 's', type, event_id FROM current_state_events
    WHERE room_id = $1 AND type = 'm.room.member' AND state_key = $2
    UNION ALL
    SELECT 's', type, event_id FROM current_state_events
    WHERE room_id = $1 AND type = ANY($3) AND state_key = ''
    UNION ALL
    SELECT 'p', displayname, avatar_url FROM profiles WHERE full_user_id = $2
    UNION ALL
    SELECT 'v', room_version, NULL FROM rooms WHERE room_id = $1
    UNION ALL
    SELECT 'b', NULL, NULL FROM blocked_rooms WHERE room_id = $1
    UNION ALL
    SELECT 'h', NULL, NULL
    WHERE EXISTS (SELECT 1 FROM local_current_membership WHERE room_id = $1 AND membership = 'join')";

impl Store {
    /// A room and a user as they stand towards each other now.
    pub async fn standing(&self, room_id: &str, user_id: &str) -> Result<Standing> {
        let mut standing = Standing::default();
        for row in self.db.query(STANDING, &[&room_id, &user_id, &TYPES]).await? {
            match row.get::<_, &str>(0) {
                "s" => {
                    standing.state.insert(row.get(1), row.get::<_, &str>(2).try_into()?);
                }
                "p" => (standing.displayname, standing.avatar_url) = (row.get(1), row.get(2)),
                "v" => standing.version = row.get(1),
                "b" => standing.is_blocked = true,
                _ => standing.host_in_room = true,
            }
        }
        Ok(standing)
    }

    /// Display names and avatars of several users; those without a profile are left out.
    pub async fn names_of(&self, user_ids: &[&str]) -> Result<HashMap<String, (Option<String>, Option<String>)>> {
        let sql = "SELECT full_user_id, displayname, avatar_url FROM profiles WHERE full_user_id = ANY($1)";
        let rows = self.db.query(sql, &[&user_ids]).await?;
        Ok(rows.iter().map(|r| (r.get(0), (r.get(1), r.get(2)))).collect())
    }
}
