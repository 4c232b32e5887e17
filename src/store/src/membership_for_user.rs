//! The rooms of a user, and how they changed.

use crate::Store;
use ruma::OwnedEventId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use types::{MultiToken, Result};

/// A local user's latest membership in a room.
#[derive(Clone, Debug)]
pub struct UserRoom {
    pub room_id: String,
    pub membership: String,
    /// Sender of the membership event (differs from the user for invites, kicks, bans).
    pub sender: String,
    pub event_id: OwnedEventId,
    /// Where the membership event is in the events stream.
    pub stream: i64,
    pub instance: Option<String>,
    /// None: a room known only from an invite.
    pub room_version: Option<String>,
}

/// Up to six members of a room, for its heroes, and how many there are of each membership.
#[derive(Clone, Debug, Default)]
pub struct RoomSummary {
    pub counts: HashMap<String, i64>,
    /// (user, membership, event), joined first, then invited, then the others; oldest first.
    pub members: Vec<(String, String, OwnedEventId)>,
}

impl RoomSummary {
    pub fn count(&self, membership: &str) -> i64 {
        self.counts.get(membership).copied().unwrap_or_default()
    }
}

/// `LATERAL … LIMIT`: otherwise all memberships there are are read, for few are expected to be not forgotten.
const USER_ROOMS: &str = "
    SELECT c.room_id, c.membership, m.sender, c.event_id, e.stream_ordering, e.instance_name, r.room_version
    FROM local_current_membership c
    JOIN LATERAL (SELECT sender, forgotten FROM room_memberships WHERE event_id = c.event_id LIMIT 1) m ON true
    JOIN events e ON e.event_id = c.event_id
    LEFT JOIN rooms r ON r.room_id = c.room_id
    WHERE c.user_id = $1 AND c.membership = ANY($2) AND COALESCE(m.forgotten, 0) = 0
    ORDER BY e.stream_ordering";

const CHANGES: &str = "
    SELECT m.event_id, e.instance_name, e.stream_ordering
    FROM room_memberships m JOIN events e ON e.event_id = m.event_id
    WHERE m.user_id = $1 AND e.stream_ordering > $2 AND e.stream_ordering <= $3
    ORDER BY e.stream_ordering";

const SUMMARY_COUNTS: &str = "
    SELECT room_id, membership, count(*) FROM current_state_events
    WHERE type = 'm.room.member' AND room_id = ANY($1) AND membership IS NOT NULL
    GROUP BY room_id, membership";

const SUMMARY_MEMBERS: &str = "
    SELECT r.room_id, s.state_key, s.membership, s.event_id
    FROM unnest($1::text[]) AS r(room_id), LATERAL (
        SELECT state_key, membership, event_id FROM current_state_events
        WHERE type = 'm.room.member' AND room_id = r.room_id AND membership IS NOT NULL
        ORDER BY CASE membership WHEN 'join' THEN 1 WHEN 'invite' THEN 2 WHEN 'knock' THEN 3 ELSE 4 END,
                 event_stream_ordering
        LIMIT 6) s";

impl Store {
    /// Rooms the user is joined to.
    pub async fn rooms_joined_by(&self, user_id: &str) -> Result<Arc<Vec<String>>> {
        self.sync
            .joined_rooms
            .get_or_load(user_id, async {
                let sql = "SELECT room_id FROM current_state_events
                           WHERE type = 'm.room.member' AND membership = 'join' AND state_key = $1";
                let rows = self.db.query(sql, &[&user_id]).await?;
                Ok(Arc::new(rows.iter().map(|r| r.get(0)).collect()))
            })
            .await
    }

    /// A local user's rooms by latest membership, without the forgotten ones; oldest membership first.
    pub async fn rooms_of_user(&self, user_id: &str, memberships: &[&str]) -> Result<Vec<UserRoom>> {
        let rows = self.db.query(USER_ROOMS, &[&user_id, &memberships]).await?;
        let parse = |r: &tokio_postgres::Row| {
            Ok(UserRoom {
                room_id: r.get(0),
                membership: r.get(1),
                sender: r.get(2),
                event_id: r.get::<_, &str>(3).try_into()?,
                stream: r.get(4),
                instance: r.get(5),
                room_version: r.get(6),
            })
        };
        rows.iter().map(parse).collect()
    }

    /// Membership events of a user after `from`, up to `to`, oldest first.
    pub async fn membership_changes_of(
        &self,
        user_id: &str,
        from: &MultiToken,
        to: &MultiToken,
    ) -> Result<Vec<OwnedEventId>> {
        if from == to || !self.changed.members.since(user_id, from.stream) {
            return Ok(Vec::new());
        }
        let rows = self.db.query(CHANGES, &[&user_id, &from.stream, &to.max()]).await?;
        rows.iter()
            .filter(|r| self.is_within(from, to, r.get(1), r.get(2)))
            .map(|r| Ok(r.get::<_, &str>(0).try_into()?))
            .collect()
    }

    /// Whether a row of the events stream lies after `from` and not after `to`.
    pub fn is_within(&self, from: &MultiToken, to: &MultiToken, instance: Option<&str>, id: i64) -> bool {
        let writer = self.streams.instance_id(instance);
        id > from.for_instance(writer) && id <= to.for_instance(writer)
    }

    /// Users joined to any of these rooms, by room.
    pub async fn joined_members_of(&self, room_ids: &[&str]) -> Result<HashMap<String, Arc<Vec<String>>>> {
        let (mut found, missing) = split_cached(&self.sync.room_members, room_ids);
        if missing.is_empty() {
            return Ok(found);
        }
        let stamps: Vec<_> = missing.iter().map(|r| self.sync.room_members.stamp(*r)).collect();
        let sql = "SELECT room_id, state_key FROM current_state_events
                   WHERE type = 'm.room.member' AND membership = 'join' AND room_id = ANY($1)";
        let mut members: HashMap<&str, Vec<String>> = missing.iter().map(|r| (*r, Vec::new())).collect();
        let rows = self.db.query(sql, &[&missing]).await?;
        for row in &rows {
            if let Some(list) = members.get_mut(row.get::<_, &str>(0)) {
                list.push(row.get(1));
            }
        }
        for (room, stamp) in missing.iter().zip(stamps) {
            let list = Arc::new(members.remove(room).unwrap_or_default());
            self.sync.room_members.put_since(stamp, (*room).to_owned(), list.clone());
            found.insert((*room).to_owned(), list);
        }
        Ok(found)
    }

    /// Summaries of several rooms.
    pub async fn room_summaries(&self, room_ids: &[&str]) -> Result<HashMap<String, Arc<RoomSummary>>> {
        let (mut found, missing) = split_cached(&self.sync.room_summary, room_ids);
        if missing.is_empty() {
            return Ok(found);
        }
        let stamps: Vec<_> = missing.iter().map(|r| self.sync.room_summary.stamp(*r)).collect();
        let params: crate::Params<'_> = &[&missing];
        let (counts, members) =
            futures::try_join!(self.db.query(SUMMARY_COUNTS, params), self.db.query(SUMMARY_MEMBERS, params))?;
        let mut made: HashMap<&str, RoomSummary> = missing.iter().map(|r| (*r, RoomSummary::default())).collect();
        for row in &counts {
            if let Some(s) = made.get_mut(row.get::<_, &str>(0)) {
                s.counts.insert(row.get(1), row.get(2));
            }
        }
        for row in &members {
            if let Some(s) = made.get_mut(row.get::<_, &str>(0)) {
                s.members.push((row.get(1), row.get(2), row.get::<_, &str>(3).try_into()?));
            }
        }
        for (room, stamp) in missing.iter().zip(stamps) {
            let summary = Arc::new(made.remove(room).unwrap_or_default());
            self.sync.room_summary.put_since(stamp, (*room).to_owned(), summary.clone());
            found.insert((*room).to_owned(), summary);
        }
        Ok(found)
    }

    /// Those of these rooms that are listed in the public directory.
    pub async fn public_among(&self, room_ids: &[&str]) -> Result<Vec<String>> {
        let sql = "SELECT room_id FROM rooms WHERE room_id = ANY($1) AND is_public";
        Ok(self.db.query(sql, &[&room_ids]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// All rooms whose state is not fully known yet; few, if any.
    pub async fn partial_state_rooms(&self) -> Result<Arc<HashSet<String>>> {
        let load = async {
            let rows = self.db.query("SELECT room_id FROM partial_state_rooms", &[]).await?;
            Ok(Arc::new(rows.iter().map(|r| r.get(0)).collect()))
        };
        self.sync.partial.get_or_load("", load).await
    }

    /// The highest position of any event.
    pub async fn last_event_position(&self) -> Result<i64> {
        let row = self.db.query_opt("SELECT MAX(stream_ordering) FROM events", &[]).await?;
        Ok(row.and_then(|r| r.get(0)).unwrap_or(1))
    }
}

/// Values found in a cache by room, and the rooms that are not there.
pub(crate) fn split_cached<'a, V: Clone + Send + Sync + 'static>(
    cache: &crate::Cache<String, V>,
    room_ids: &[&'a str],
) -> (HashMap<String, V>, Vec<&'a str>) {
    let mut found = HashMap::with_capacity(room_ids.len());
    let mut missing = Vec::new();
    for room in room_ids {
        match cache.get(*room) {
            Some(v) => {
                found.insert((*room).to_owned(), v);
            }
            None => missing.push(*room),
        }
    }
    (found, missing)
}
