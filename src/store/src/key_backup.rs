//! Server-side key backup: `e2e_room_keys`, `e2e_room_keys_versions`.

use crate::{Store, Tx, transaction};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use types::{Error, Result};

/// A backup version.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupVersion {
    pub version: i64,
    pub algorithm: String,
    pub auth_data: Value,
    /// Grows with every change of the keys.
    pub etag: i64,
}

/// A room key as uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomKey {
    pub room_id: String,
    pub session_id: String,
    pub first_message_index: i32,
    pub forwarded_count: i32,
    pub is_verified: bool,
    pub session_data: Value,
}

impl RoomKey {
    /// Spec, "Client-server key backups": whether `self` is better than what is stored.
    fn replaces(&self, stored: &Worth) -> bool {
        if self.is_verified != stored.is_verified {
            return self.is_verified;
        }
        self.first_message_index < stored.first_message_index
            || (self.first_message_index == stored.first_message_index && self.forwarded_count < stored.forwarded_count)
    }

    /// The JSON of `KeyBackupData`.
    pub fn to_json(&self) -> Value {
        json!({
            "first_message_index": self.first_message_index,
            "forwarded_count": self.forwarded_count,
            "is_verified": self.is_verified,
            "session_data": self.session_data,
        })
    }
}

/// What a stored key is compared by.
struct Worth {
    first_message_index: i32,
    forwarded_count: i32,
    is_verified: bool,
}

/// State of a backup after a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackupState {
    pub etag: i64,
    pub count: i64,
}

const SELECT_VERSION: &str = "
    SELECT version, algorithm, auth_data, COALESCE(etag, 0) FROM e2e_room_keys_versions
    WHERE user_id = $1 AND deleted = 0";

fn version(row: &tokio_postgres::Row) -> Result<BackupVersion> {
    Ok(BackupVersion {
        version: row.get(0),
        algorithm: row.get(1),
        auth_data: serde_json::from_str(row.get(2))?,
        etag: row.get(3),
    })
}

impl Store {
    /// A version of a user's backup; None as `wanted` means the newest.
    pub async fn backup_version(&self, user_id: &str, wanted: Option<i64>) -> Result<Option<BackupVersion>> {
        let sql = format!("{SELECT_VERSION} AND ($2::bigint IS NULL OR version = $2) ORDER BY version DESC LIMIT 1");
        self.db.query_opt(&sql, &[&user_id, &wanted]).await?.as_ref().map(version).transpose()
    }

    /// Makes a new version and returns its number.
    pub async fn create_backup_version(&self, user_id: &str, algorithm: &str, auth_data: &Value) -> Result<i64> {
        let sql = "INSERT INTO e2e_room_keys_versions (user_id, version, algorithm, auth_data)
                   SELECT $1, COALESCE(MAX(version), 0) + 1, $2, $3 FROM e2e_room_keys_versions WHERE user_id = $1
                   RETURNING version";
        // Two at once collide on the unique index.
        for _ in 0..5 {
            match self.db.query(sql, &[&user_id, &algorithm, &auth_data.to_string()]).await {
                Err(e) if crate::db::is_constraint(&e) || crate::db::is_serialisation(&e) => continue,
                Ok(rows) => {
                    return rows.first().map(|r| r.get(0)).ok_or_else(|| Error::internal("no backup version made"));
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::internal("backup versions are being made faster than they can be numbered"))
    }

    /// Replaces a version's `auth_data`; false if there is no such version.
    pub async fn update_backup_version(&self, user_id: &str, version: i64, auth_data: &Value) -> Result<bool> {
        let sql = "UPDATE e2e_room_keys_versions SET auth_data = $3
                   WHERE user_id = $1 AND version = $2 AND deleted = 0";
        Ok(self.db.execute(sql, &[&user_id, &version, &auth_data.to_string()]).await? > 0)
    }

    /// Deletes a version with its keys; false if there is no such version.
    pub async fn delete_backup_version(&self, user_id: &str, version: i64) -> Result<bool> {
        transaction!(self, "delete_e2e_room_keys_version", |tx| {
            let sql = "UPDATE e2e_room_keys_versions SET deleted = 1 WHERE user_id = $1 AND version = $2";
            let found = tx.run(sql, &[&user_id, &version]).await? > 0;
            tx.run("DELETE FROM e2e_room_keys WHERE user_id = $1 AND version = $2", &[&user_id, &version]).await?;
            Ok(found)
        })
    }

    /// Keys of a version: all, of one room, or one session.
    pub async fn backup_keys(
        &self,
        user_id: &str,
        version: i64,
        room_id: Option<&str>,
        session_id: Option<&str>,
    ) -> Result<Vec<RoomKey>> {
        let sql = "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data
                   FROM e2e_room_keys WHERE user_id = $1 AND version = $2
                     AND ($3::text IS NULL OR room_id = $3) AND ($4::text IS NULL OR session_id = $4)";
        let key = |r: &tokio_postgres::Row| {
            Ok(RoomKey {
                room_id: r.get(0),
                session_id: r.get(1),
                first_message_index: r.get::<_, Option<i32>>(2).unwrap_or_default(),
                forwarded_count: r.get::<_, Option<i32>>(3).unwrap_or_default(),
                is_verified: r.get::<_, Option<bool>>(4).unwrap_or_default(),
                session_data: serde_json::from_str(r.get(5))?,
            })
        };
        self.db.query(sql, &[&user_id, &version, &room_id, &session_id]).await?.iter().map(key).collect()
    }

    /// How many keys a version holds.
    pub async fn count_backup_keys(&self, user_id: &str, version: i64) -> Result<i64> {
        let sql = "SELECT COUNT(*) FROM e2e_room_keys WHERE user_id = $1 AND version = $2";
        Ok(self.db.query_opt(sql, &[&user_id, &version]).await?.map_or(0, |r| r.get(0)))
    }

    /// Deletes keys of a version (all, of one room, or one session). None: no such version.
    pub async fn delete_backup_keys(
        &self,
        user_id: &str,
        version: i64,
        room_id: Option<&str>,
        session_id: Option<&str>,
    ) -> Result<Option<BackupState>> {
        transaction!(self, "delete_e2e_room_keys", |tx| {
            if tx.lock_backup(user_id, Some(version)).await?.is_none() {
                return Ok(None);
            }
            let sql = "DELETE FROM e2e_room_keys WHERE user_id = $1 AND version = $2
                       AND ($3::text IS NULL OR room_id = $3) AND ($4::text IS NULL OR session_id = $4)";
            tx.run(sql, &[&user_id, &version, &room_id, &session_id]).await?;
            Ok(Some(tx.finish_backup(user_id, version, true).await?))
        })
    }

    /// Stores keys where they are better than those there. `Err(newest)` inside: `version` is not the newest;
    /// None: the user has no such version.
    pub async fn add_backup_keys(
        &self,
        user_id: &str,
        version: i64,
        keys: &[RoomKey],
    ) -> Result<Option<Result<BackupState, i64>>> {
        transaction!(self, "add_e2e_room_keys", |tx| {
            let Some(newest) = tx.lock_backup(user_id, None).await? else { return Ok(None) };
            if newest != version {
                let known = tx.lock_backup(user_id, Some(version)).await?;
                return Ok(known.map(|_| Err(newest)));
            }
            let changed = tx.upsert_backup_keys(user_id, version, keys).await?;
            Ok(Some(Ok(tx.finish_backup(user_id, version, changed).await?)))
        })
    }
}

impl Tx {
    /// Locks a version (None: the newest) against other changes of its keys; its number if it exists.
    async fn lock_backup(&mut self, user_id: &str, wanted: Option<i64>) -> Result<Option<i64>> {
        let sql = "SELECT version FROM e2e_room_keys_versions
                   WHERE user_id = $1 AND deleted = 0 AND ($2::bigint IS NULL OR version = $2)
                   ORDER BY version DESC LIMIT 1 FOR UPDATE";
        Ok(self.query_opt(sql, &[&user_id, &wanted]).await?.map(|r| r.get(0)))
    }

    /// Raises the etag if something changed.
    async fn finish_backup(&mut self, user_id: &str, version: i64, changed: bool) -> Result<BackupState> {
        let sql = "UPDATE e2e_room_keys_versions v SET etag = COALESCE(etag, 0) + $3
                   WHERE user_id = $1 AND version = $2
                   RETURNING etag, (SELECT COUNT(*) FROM e2e_room_keys k
                                    WHERE k.user_id = v.user_id AND k.version = v.version)";
        let row = self.query_opt(sql, &[&user_id, &version, &i64::from(changed)]).await?;
        row.map(|r| BackupState { etag: r.get(0), count: r.get(1) })
            .ok_or_else(|| Error::internal("the backup version vanished while it was locked"))
    }

    async fn upsert_backup_keys(&mut self, user_id: &str, version: i64, keys: &[RoomKey]) -> Result<bool> {
        // The same session twice in one request: the better one counts.
        let mut best: BTreeMap<(&str, &str), &RoomKey> = BTreeMap::new();
        for key in keys {
            let slot = best.entry((&key.room_id, &key.session_id)).or_insert(key);
            if key.replaces(&worth(slot)) {
                *slot = key;
            }
        }
        let rooms: Vec<&str> = best.keys().map(|(r, _)| *r).collect();
        let sessions: Vec<&str> = best.keys().map(|(_, s)| *s).collect();
        let sql = "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified FROM e2e_room_keys
                   WHERE user_id = $1 AND version = $2
                     AND (room_id, session_id) IN (SELECT * FROM unnest($3::text[], $4::text[]))";
        let rows = self.query(sql, &[&user_id, &version, &rooms, &sessions]).await?;
        let stored: HashMap<(&str, &str), Worth> = rows
            .iter()
            .map(|r| {
                let worth = Worth {
                    first_message_index: r.get::<_, Option<i32>>(2).unwrap_or(i32::MAX),
                    forwarded_count: r.get::<_, Option<i32>>(3).unwrap_or(i32::MAX),
                    is_verified: r.get::<_, Option<bool>>(4).unwrap_or_default(),
                };
                ((r.get(0), r.get(1)), worth)
            })
            .collect();
        best.retain(|name, key| stored.get(name).is_none_or(|s| key.replaces(s)));
        if best.is_empty() {
            return Ok(false);
        }
        self.write_backup_keys(user_id, version, &best.into_values().collect::<Vec<_>>()).await?;
        Ok(true)
    }

    async fn write_backup_keys(&mut self, user_id: &str, version: i64, keys: &[&RoomKey]) -> Result<()> {
        let rooms: Vec<&str> = keys.iter().map(|k| k.room_id.as_str()).collect();
        let sessions: Vec<&str> = keys.iter().map(|k| k.session_id.as_str()).collect();
        let first: Vec<i32> = keys.iter().map(|k| k.first_message_index).collect();
        let forwarded: Vec<i32> = keys.iter().map(|k| k.forwarded_count).collect();
        let verified: Vec<bool> = keys.iter().map(|k| k.is_verified).collect();
        let data: Vec<String> = keys.iter().map(|k| k.session_data.to_string()).collect();
        let sql = "INSERT INTO e2e_room_keys (user_id, version, room_id, session_id, first_message_index,
                                              forwarded_count, is_verified, session_data)
                   SELECT $1, $2, t.* FROM unnest($3::text[], $4::text[], $5::int[], $6::int[], $7::bool[], $8::text[]) AS t
                   ON CONFLICT (user_id, version, room_id, session_id)
                   DO UPDATE SET first_message_index = EXCLUDED.first_message_index,
                                 forwarded_count = EXCLUDED.forwarded_count,
                                 is_verified = EXCLUDED.is_verified, session_data = EXCLUDED.session_data";
        self.run(sql, &[&user_id, &version, &rooms, &sessions, &first, &forwarded, &verified, &data]).await?;
        Ok(())
    }
}

fn worth(key: &RoomKey) -> Worth {
    Worth {
        first_message_index: key.first_message_index,
        forwarded_count: key.forwarded_count,
        is_verified: key.is_verified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first_message_index: i32, forwarded_count: i32, is_verified: bool) -> RoomKey {
        let (room_id, session_id) = ("!r".to_owned(), "s".to_owned());
        RoomKey { room_id, session_id, first_message_index, forwarded_count, is_verified, session_data: Value::Null }
    }

    #[test]
    fn verified_then_earlier_then_less_forwarded_wins() {
        let stored = worth(&key(5, 5, false));
        assert!(key(9, 9, true).replaces(&stored));
        assert!(key(4, 9, false).replaces(&stored));
        assert!(key(5, 4, false).replaces(&stored));
        assert!(!key(5, 5, false).replaces(&stored));
        assert!(!key(1, 1, false).replaces(&worth(&key(5, 5, true))));
        assert!(!key(6, 1, false).replaces(&stored));
    }
}
