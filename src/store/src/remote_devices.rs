//! What we know of other servers' devices: `device_lists_remote_cache`, `device_lists_remote_extremeties`,
//! `device_lists_remote_resync`. Written by the writers of device lists.

use crate::{Store, transaction};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::Result;

impl Store {
    /// Devices, by user and device id, of users of other servers whose lists are complete: they share a room with us
    /// and nothing has to be fetched anew.
    pub async fn cached_remote_devices(
        &self,
        users: &[String],
    ) -> Result<BTreeMap<String, BTreeMap<String, Map<String, Value>>>> {
        let sql = "SELECT e.user_id, c.device_id, c.content
                   FROM device_lists_remote_extremeties e LEFT JOIN device_lists_remote_cache c USING (user_id)
                   WHERE e.user_id = ANY($1)
                     AND NOT EXISTS (SELECT 1 FROM device_lists_remote_resync r WHERE r.user_id = e.user_id)
                     AND EXISTS (SELECT 1 FROM current_state_events s
                                 WHERE s.type = 'm.room.member' AND s.state_key = e.user_id AND s.membership = 'join')";
        let mut found: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
        for row in self.db.query(sql, &[&users]).await? {
            let devices = found.entry(row.get(0)).or_default();
            if let Some(device_id) = row.get::<_, Option<String>>(1) {
                devices.insert(device_id, serde_json::from_str(row.get(2))?);
            }
        }
        Ok(found)
    }

    /// Those of `users` whom somebody of this server shares a room with.
    pub async fn users_sharing_rooms(&self, users: &[String]) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT state_key FROM current_state_events
                   WHERE type = 'm.room.member' AND state_key = ANY($1) AND membership = 'join'";
        Ok(self.db.query(sql, &[&users]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// Notes that the devices of these users of other servers have to be fetched anew.
    pub async fn mark_remote_devices_stale(&self, users: &[String], now_ms: i64) -> Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO device_lists_remote_resync (user_id, added_ts)
                   SELECT u, $2 FROM unnest($1::text[]) AS u ON CONFLICT (user_id) DO NOTHING";
        self.db.execute(sql, &[&users, &now_ms]).await?;
        Ok(())
    }

    /// Users whose devices have to be fetched anew, those who wait longest first.
    pub async fn stale_remote_devices(&self, limit: i64) -> Result<Vec<String>> {
        let sql = "SELECT user_id FROM device_lists_remote_resync ORDER BY added_ts LIMIT $1";
        Ok(self.db.query(sql, &[&limit]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// Id of the last change of a user's devices that is known here.
    pub async fn remote_devices_at(&self, user_id: &str) -> Result<Option<String>> {
        let sql = "SELECT stream_id FROM device_lists_remote_extremeties WHERE user_id = $1";
        Ok(self.db.query_opt(sql, &[&user_id]).await?.map(|r| r.get(0)))
    }

    /// Replaces all devices of a user, and notes that they are complete. `devices`: (device id, JSON). Returns the
    /// ids of those that are gone.
    pub async fn replace_remote_devices(
        &self,
        user_id: &str,
        devices: &[(String, String)],
        at: &str,
    ) -> Result<Vec<String>> {
        let (ids, contents): (Vec<&str>, Vec<&str>) =
            devices.iter().map(|(id, json)| (id.as_str(), json.as_str())).unzip();
        transaction!(self, "update_remote_device_list_cache", |tx| {
            let sql = "DELETE FROM device_lists_remote_cache WHERE user_id = $1 RETURNING device_id";
            let before = tx.query(sql, &[&user_id]).await?;
            let sql = "INSERT INTO device_lists_remote_cache (user_id, device_id, content)
                       SELECT $1, t.id, t.content FROM unnest($2::text[], $3::text[]) AS t(id, content)
                       ON CONFLICT (user_id, device_id) DO UPDATE SET content = excluded.content";
            tx.run(sql, &[&user_id, &ids, &contents]).await?;
            tx.run(REACHED, &[&user_id, &at]).await?;
            tx.run("DELETE FROM device_lists_remote_resync WHERE user_id = $1", &[&user_id]).await?;
            let before = before.iter().map(|r| r.get(0));
            Ok(before.filter(|id: &String| !ids.contains(&id.as_str())).collect())
        })
    }

    /// Notes one change of a user's devices. None: the device is gone.
    pub async fn set_remote_device(
        &self,
        user_id: &str,
        device_id: &str,
        content: Option<&str>,
        at: &str,
    ) -> Result<()> {
        transaction!(self, "update_remote_device_list_cache_entry", |tx| {
            match content {
                None => {
                    let sql = "DELETE FROM device_lists_remote_cache WHERE user_id = $1 AND device_id = $2";
                    tx.run(sql, &[&user_id, &device_id]).await?
                }
                Some(content) => {
                    let sql = "INSERT INTO device_lists_remote_cache (user_id, device_id, content) VALUES ($1, $2, $3)
                               ON CONFLICT (user_id, device_id) DO UPDATE SET content = excluded.content";
                    tx.run(sql, &[&user_id, &device_id, &content]).await?
                }
            };
            tx.run(REACHED, &[&user_id, &at]).await?;
            Ok(())
        })
    }
}

/// Only while a room is shared with the user: nobody tells us what changes afterwards.
const REACHED: &str = "INSERT INTO device_lists_remote_extremeties (user_id, stream_id)
                       SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM current_state_events s
                           WHERE s.type = 'm.room.member' AND s.state_key = $1 AND s.membership = 'join')
                       ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id";
