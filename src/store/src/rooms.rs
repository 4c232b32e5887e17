//! `rooms`, `blocked_rooms`, `appservice_room_list`: what is known of a room besides its state.

use crate::Store;
use std::collections::HashMap;
use types::Result;

/// A row of `rooms`.
#[derive(Clone, Debug)]
pub struct RoomRow {
    pub is_public: bool,
    pub creator: Option<String>,
    pub version: Option<String>,
}

impl Store {
    /// A room's row; None: unknown room.
    pub async fn room(&self, room_id: &str) -> Result<Option<RoomRow>> {
        let sql = "SELECT is_public, creator, room_version FROM rooms WHERE room_id = $1";
        let row = self.db.query_opt(sql, &[&room_id]).await?;
        Ok(row.map(|r| RoomRow {
            is_public: r.get::<_, Option<bool>>(0).unwrap_or(false),
            creator: r.get(1),
            version: r.get(2),
        }))
    }

    /// Room versions of several rooms.
    pub async fn versions_of(&self, room_ids: &[&str]) -> Result<HashMap<String, String>> {
        let sql = "SELECT room_id, room_version FROM rooms WHERE room_id = ANY($1) AND room_version IS NOT NULL";
        let rows = self.db.query(sql, &[&room_ids]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// Lists a room in the public directory or takes it off.
    pub async fn set_public(&self, room_id: &str, is_public: bool) -> Result<()> {
        self.db.execute("UPDATE rooms SET is_public = $2 WHERE room_id = $1", &[&room_id, &is_public]).await?;
        Ok(())
    }

    /// The same for the list of an application service's network.
    pub async fn set_public_on_network(
        &self,
        room_id: &str,
        appservice: &str,
        network: &str,
        is_public: bool,
    ) -> Result<()> {
        let sql = if is_public {
            "INSERT INTO appservice_room_list (appservice_id, network_id, room_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM appservice_room_list WHERE appservice_id = $1 AND network_id = $2 AND room_id = $3"
        };
        self.db.execute(sql, &[&appservice, &network, &room_id]).await?;
        Ok(())
    }

    /// Whether an admin has blocked the room.
    pub async fn is_blocked(&self, room_id: &str) -> Result<bool> {
        let key = room_id.to_owned();
        self.room_caches
            .blocked
            .get_or_load(&key, async {
                let row = self.db.query_opt("SELECT 1 FROM blocked_rooms WHERE room_id = $1", &[&room_id]).await?;
                Ok(row.is_some())
            })
            .await
    }
}
