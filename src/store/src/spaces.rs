//! State of several rooms as room summaries need it.

use crate::{Params, Store};
use ruma::OwnedEventId;
use std::collections::{HashMap, HashSet};
use types::Result;

/// What a summary is made of.
#[derive(Clone, Debug, Default)]
pub struct SummaryState {
    /// The state events that describe the room, its `m.space.child`ren, and the requester's membership.
    pub events: Vec<OwnedEventId>,
    pub joined_members: i64,
    /// Somebody of this server is in the room.
    pub host_in_room: bool,
}

/// Types of state (with an empty state key) that describe a room.
const DESCRIBING: &[&str] = &[
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.avatar",
    "m.room.encryption",
];

const STATE: &str = "
    SELECT room_id, event_id FROM current_state_events
    WHERE room_id = ANY($1) AND (
        (state_key = '' AND type = ANY($2)) OR type = 'm.space.child' OR (type = 'm.room.member' AND state_key = $3))";

const HOSTED: &str =
    "SELECT DISTINCT room_id FROM local_current_membership WHERE room_id = ANY($1) AND membership = 'join'";

impl Store {
    /// Describing state of several rooms; rooms without any are left out.
    pub async fn summary_states(
        &self,
        room_ids: &[&str],
        user_id: Option<&str>,
    ) -> Result<HashMap<String, SummaryState>> {
        let state: Params<'_> = &[&room_ids, &DESCRIBING, &user_id];
        let rooms: Params<'_> = &[&room_ids];
        let (state, counts, hosted) = futures::try_join!(
            self.db.query(STATE, state),
            self.joined_counts(room_ids),
            self.db.query(HOSTED, rooms)
        )?;
        let hosted: HashSet<String> = hosted.iter().map(|r| r.get(0)).collect();
        let mut rooms: HashMap<String, SummaryState> = HashMap::new();
        for row in state {
            let room_id: String = row.get(0);
            rooms.entry(room_id).or_default().events.push(row.get::<_, &str>(1).try_into()?);
        }
        for (room_id, room) in &mut rooms {
            room.joined_members = counts.get(room_id).copied().unwrap_or_default();
            room.host_in_room = hosted.contains(room_id);
        }
        Ok(rooms)
    }

    /// Keeps a value for a while, for whichever process is asked next (`sessions`).
    pub async fn put_session(&self, kind: &str, id: &str, value: &str, expires_ms: i64) -> Result<()> {
        let sql = "INSERT INTO sessions (session_type, session_id, value, expiry_time_ms) VALUES ($1, $2, $3, $4)";
        self.db.execute(sql, &[&kind, &id, &value, &expires_ms]).await?;
        Ok(())
    }

    /// A value kept with [`Store::put_session`], unless it has expired.
    pub async fn session(&self, kind: &str, id: &str, now_ms: i64) -> Result<Option<String>> {
        let sql = "SELECT value FROM sessions WHERE session_type = $1 AND session_id = $2 AND expiry_time_ms > $3";
        Ok(self.db.query_opt(sql, &[&kind, &id, &now_ms]).await?.map(|r| r.get(0)))
    }
}
