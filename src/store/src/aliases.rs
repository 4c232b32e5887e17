//! `room_aliases`, `room_alias_servers`.

use crate::db::is_constraint;
use crate::{Store, Tx, transaction};
use ruma::OwnedRoomId;
use types::{Error, Result};

/// What an alias points to.
#[derive(Clone, Debug)]
pub struct AliasTarget {
    pub room_id: OwnedRoomId,
    /// Servers through which the room may be joined.
    pub servers: Vec<String>,
    pub creator: Option<String>,
}

impl Store {
    /// The room behind a local alias.
    pub async fn alias(&self, alias: &str) -> Result<Option<AliasTarget>> {
        let sql = "SELECT a.room_id, a.creator,
                          (SELECT coalesce(array_agg(server), '{}') FROM room_alias_servers s WHERE s.room_alias = $1)
                   FROM room_aliases a WHERE a.room_alias = $1";
        let Some(row) = self.db.query_opt(sql, &[&alias]).await? else { return Ok(None) };
        let servers: Vec<String> = row.get(2);
        if servers.is_empty() {
            return Ok(None);
        }
        Ok(Some(AliasTarget { room_id: row.get::<_, &str>(0).try_into()?, servers, creator: row.get(1) }))
    }

    /// Local aliases of a room.
    pub async fn aliases_of(&self, room_id: &str) -> Result<Vec<String>> {
        let rows = self.db.query("SELECT room_alias FROM room_aliases WHERE room_id = $1", &[&room_id]).await?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }

    /// Adds an alias; 409 if there is one already.
    pub async fn add_alias(&self, alias: &str, room_id: &str, servers: &[String], creator: &str) -> Result<()> {
        let added = transaction!(self, "create_room_alias_association", |tx| {
            tx.insert_alias(self, alias, room_id, servers, creator).await
        });
        match added {
            Err(e) if is_constraint(&e) => {
                Err(Error::client(409, "M_UNKNOWN", format!("Room alias {alias} already exists")))
            }
            other => other,
        }
    }

    /// Removes an alias; the room it pointed to.
    pub async fn delete_alias(&self, alias: &str) -> Result<Option<OwnedRoomId>> {
        transaction!(self, "delete_room_alias", |tx| {
            let sql = "DELETE FROM room_aliases WHERE room_alias = $1 RETURNING room_id";
            let Some(row) = tx.query_opt(sql, &[&alias]).await? else { return Ok(None) };
            tx.run("DELETE FROM room_alias_servers WHERE room_alias = $1", &[&alias]).await?;
            let room_id: String = row.get(0);
            tx.forget_named(self, "get_aliases_for_room", Some(vec![room_id.clone()])).await?;
            Ok(Some(room_id.try_into()?))
        })
    }

    /// Points all aliases of a room to another one (room upgrades). `creator`: None leaves them with their makers.
    pub async fn move_aliases(&self, old_room: &str, new_room: &str, creator: Option<&str>) -> Result<()> {
        transaction!(self, "_update_aliases_for_room_txn", |tx| {
            let sql = "UPDATE room_aliases SET room_id = $1, creator = coalesce($2, creator) WHERE room_id = $3";
            tx.run(sql, &[&new_room, &creator, &old_room]).await?;
            let forgotten = [old_room, new_room].map(|r| ("get_aliases_for_room".to_owned(), Some(vec![r.to_owned()])));
            tx.forget_many(self, forgotten.into()).await
        })
    }
}

impl Tx {
    async fn insert_alias(
        &mut self,
        store: &Store,
        alias: &str,
        room_id: &str,
        servers: &[String],
        creator: &str,
    ) -> Result<()> {
        let sql = "WITH a AS (INSERT INTO room_aliases (room_alias, room_id, creator) VALUES ($1, $2, $3))
                   INSERT INTO room_alias_servers (room_alias, server) SELECT $1, s FROM unnest($4::text[]) s";
        self.run(sql, &[&alias, &room_id, &creator, &servers]).await?;
        self.forget_named(store, "get_aliases_for_room", Some(vec![room_id.to_owned()])).await
    }
}
