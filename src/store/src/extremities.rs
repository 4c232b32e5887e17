//! What a room's writer needs to know when it wakes up: extremities, members, chain cover.

use crate::Store;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, RoomVersionId};
use std::collections::HashMap;
use types::{Error, Result};

/// A row of `rooms`.
#[derive(Clone, Debug)]
pub struct RoomHead {
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    pub creator: Option<String>,
    pub is_public: bool,
    /// Events of the room are to be given a place in the chain cover.
    pub has_auth_chain_index: bool,
}

/// A forward extremity.
#[derive(Clone, Debug)]
pub struct Extremity {
    pub event_id: OwnedEventId,
    pub depth: i64,
    /// None for an extremity that was rejected.
    pub state_group: Option<i64>,
    /// JSON of the event, for reference hashes in rooms v1 and v2.
    pub json: String,
}

/// Membership of a user by the current state.
#[derive(Clone, Debug)]
pub struct MemberRow {
    pub user_id: String,
    pub membership: String,
    pub display_name: Option<String>,
    /// Has sent a message since this membership began.
    pub participant: bool,
}

impl Store {
    /// A room's row; None if the room is unknown or its version is.
    pub async fn room_row(&self, room_id: &RoomId) -> Result<Option<RoomHead>> {
        let sql = "SELECT room_version, creator, is_public, has_auth_chain_index FROM rooms WHERE room_id = $1";
        let Some(row) = self.db.query_opt(sql, &[&room_id.as_str()]).await? else { return Ok(None) };
        let Some(version) = row.get::<_, Option<&str>>(0) else { return Ok(None) };
        Ok(Some(RoomHead {
            room_id: room_id.to_owned(),
            version: version.try_into()?,
            creator: row.get(1),
            is_public: row.get::<_, Option<bool>>(2).unwrap_or(false),
            has_auth_chain_index: row.get::<_, Option<bool>>(3).unwrap_or(true),
        }))
    }

    /// Version of a room, remembered for good.
    pub async fn room_version(&self, room_id: &RoomId) -> Result<Option<RoomVersionId>> {
        if let Some(version) = self.writer_caches.versions.get(room_id.as_str()) {
            return Ok(Some(version));
        }
        let version = self.room_row(room_id).await?.map(|r| r.version);
        if let Some(v) = &version {
            self.writer_caches.versions.put(room_id.to_string(), v.clone());
        }
        Ok(version)
    }

    /// Forward extremities of a room.
    pub async fn extremities(&self, room_id: &RoomId) -> Result<Vec<Extremity>> {
        let sql = "SELECT f.event_id, e.depth, g.state_group, j.json
             FROM event_forward_extremities f JOIN events e USING (event_id) JOIN event_json j USING (event_id)
             LEFT JOIN event_to_state_groups g USING (event_id)
             WHERE f.room_id = $1 ORDER BY e.depth DESC, f.event_id";
        let rows = self.db.query(sql, &[&room_id.as_str()]).await?;
        rows.iter()
            .map(|r| {
                Ok(Extremity {
                    event_id: r.get::<_, &str>(0).try_into().map_err(Error::from)?,
                    depth: r.get(1),
                    state_group: r.get(2),
                    json: r.get(3),
                })
            })
            .collect()
    }

    /// All memberships of a room's current state.
    pub async fn members_of(&self, room_id: &RoomId) -> Result<Vec<MemberRow>> {
        let sql = "SELECT c.state_key, m.membership, m.display_name, m.participant
             FROM current_state_events c JOIN room_memberships m USING (event_id)
             WHERE c.room_id = $1 AND c.type = 'm.room.member'";
        let rows = self.db.query(sql, &[&room_id.as_str()]).await?;
        Ok(rows
            .iter()
            .map(|r| MemberRow {
                user_id: r.get(0),
                membership: r.get(1),
                display_name: r.get(2),
                participant: r.get::<_, Option<bool>>(3).unwrap_or(false),
            })
            .collect())
    }

    /// Place of events in the chain cover: (chain, sequence number).
    pub async fn chains_of(&self, ids: &[&str]) -> Result<HashMap<String, (i64, i64)>> {
        let sql = "SELECT event_id, chain_id, sequence_number FROM event_auth_chains WHERE event_id = ANY($1)";
        let rows = self.db.query(sql, &[&ids]).await?;
        Ok(rows.iter().map(|r| (r.get(0), (r.get(1), r.get(2)))).collect())
    }

    /// Highest sequence number of chains.
    pub async fn chain_ends(&self, chains: &[i64]) -> Result<HashMap<i64, i64>> {
        let sql =
            "SELECT chain_id, MAX(sequence_number) FROM event_auth_chains WHERE chain_id = ANY($1) GROUP BY chain_id";
        let rows = self.db.query(sql, &[&chains]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// Auth events of these events and of everything in their auth chains.
    pub async fn auth_edges(&self, ids: &[&str]) -> Result<HashMap<OwnedEventId, Vec<OwnedEventId>>> {
        let sql = "WITH RECURSIVE up(event_id, auth_id) AS (
                 SELECT event_id, auth_id FROM event_auth WHERE event_id = ANY($1)
                 UNION
                 SELECT a.event_id, a.auth_id FROM event_auth a JOIN up u ON a.event_id = u.auth_id
             ) SELECT event_id, auth_id FROM up";
        let mut edges: HashMap<OwnedEventId, Vec<OwnedEventId>> = HashMap::new();
        for row in self.db.query(sql, &[&ids]).await? {
            let (event, auth): (OwnedEventId, OwnedEventId) =
                (row.get::<_, &str>(0).try_into()?, row.get::<_, &str>(1).try_into()?);
            edges.entry(event).or_default().push(auth);
        }
        Ok(edges)
    }

    /// JSON of stored events.
    pub async fn event_jsons(&self, ids: &[&str]) -> Result<HashMap<String, String>> {
        let rows = self.db.query("SELECT event_id, json FROM event_json WHERE event_id = ANY($1)", &[&ids]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// The event a client transaction made (`event_txn_id_device_id`): (event id, stream ordering, writer).
    pub async fn event_of_txn(
        &self,
        room_id: &RoomId,
        user_id: &str,
        device_id: &str,
        txn_id: &str,
    ) -> Result<Option<(OwnedEventId, i64, Option<String>)>> {
        let sql = "SELECT t.event_id, e.stream_ordering, e.instance_name
             FROM event_txn_id_device_id t JOIN events e USING (event_id)
             WHERE t.user_id = $1 AND t.device_id = $2 AND t.room_id = $3 AND t.txn_id = $4";
        let row = self.db.query_opt(sql, &[&user_id, &device_id, &room_id.as_str(), &txn_id]).await?;
        row.map(|r| Ok((r.get::<_, &str>(0).try_into()?, r.get(1), r.get(2)))).transpose()
    }
}
