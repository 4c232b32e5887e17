//! Devices: `devices`, `device_auth_providers`, and what goes with a device when it is deleted.

use crate::{Row, Store, Stream, Tx, transaction};
use std::collections::HashMap;
use types::{Error, Result};

/// A device as its user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub device_id: String,
    pub display_name: Option<String>,
    /// Milliseconds since the epoch.
    pub last_seen_ts: Option<i64>,
    pub last_seen_ip: Option<String>,
    pub last_seen_user_agent: Option<String>,
}

/// A pusher that belonged to a deleted device.
#[derive(Clone, Debug, PartialEq)]
pub struct PusherKey {
    pub app_id: String,
    pub pushkey: String,
}

const SELECT_DEVICES: &str = "
    SELECT device_id, display_name, last_seen, ip, user_agent FROM devices
    WHERE user_id = $1 AND NOT COALESCE(hidden, false)";

const MESSAGES_AT_ONCE: u64 = 1000;

const DELETE_SOME_MESSAGES: &str = "
    DELETE FROM device_inbox WHERE ctid IN (
        SELECT i.ctid FROM device_inbox i
        WHERE i.user_id = $1 AND i.device_id = ANY($2)
          AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.user_id = $1 AND d.device_id = i.device_id)
        LIMIT 1000)";

fn device(row: &tokio_postgres::Row) -> Device {
    Device {
        device_id: row.get(0),
        display_name: row.get(1),
        last_seen_ts: row.get(2),
        last_seen_ip: row.get(3),
        last_seen_user_agent: row.get(4),
    }
}

impl Store {
    /// All devices of a user but the hidden ones (cross-signing keys).
    pub async fn devices_of(&self, user_id: &str) -> Result<Vec<Device>> {
        let sql = format!("{SELECT_DEVICES} ORDER BY device_id");
        Ok(self.db.query(&sql, &[&user_id]).await?.iter().map(device).collect())
    }

    /// One device, unless it is hidden.
    pub async fn device(&self, user_id: &str, device_id: &str) -> Result<Option<Device>> {
        let sql = format!("{SELECT_DEVICES} AND device_id = $2");
        Ok(self.db.query_opt(&sql, &[&user_id, &device_id]).await?.as_ref().map(device))
    }

    /// Adds a device unless the user has it; true if it is new. 400 if the id is that of a hidden device.
    pub async fn store_device(
        &self,
        user_id: &str,
        device_id: &str,
        display_name: Option<&str>,
        auth_provider: Option<(&str, &str)>,
    ) -> Result<bool> {
        transaction!(self, "store_device", |tx| {
            tx.store_device(self, user_id, device_id, display_name, auth_provider).await
        })
    }

    /// Renames a device; false if there is none.
    pub async fn rename_device(&self, user_id: &str, device_id: &str, display_name: &str) -> Result<bool> {
        transaction!(self, "update_device", |tx| {
            let sql = "UPDATE devices SET display_name = $3
                       WHERE user_id = $1 AND device_id = $2 AND NOT COALESCE(hidden, false)";
            let found = tx.run(sql, &[&user_id, &device_id, &display_name]).await? > 0;
            if found {
                tx.forget_named(self, "get_device", Some(vec![user_id.to_owned(), device_id.to_owned()])).await?;
            }
            Ok(found)
        })
    }

    /// Deletes devices with their keys, tokens and undelivered to-device messages, in one transaction.
    /// True if there may be more messages than one transaction should delete
    /// ([`Store::delete_to_device_of`] deletes the rest).
    pub async fn delete_devices(&self, user_id: &str, device_ids: &[String]) -> Result<bool> {
        if device_ids.is_empty() {
            return Ok(false);
        }
        transaction!(self, "delete_devices", |tx| {
            tx.delete_devices(self, user_id, device_ids).await?;
            // A later device with the same id must not get the messages of this one.
            let deleted = tx.run(DELETE_SOME_MESSAGES, &[&user_id, &device_ids]).await?;
            Ok(deleted >= MESSAGES_AT_ONCE)
        })
    }

    /// Deletes to-device messages of deleted devices until none are left.
    pub async fn delete_to_device_of(&self, user_id: &str, device_ids: &[String]) -> Result<()> {
        while self.db.execute(DELETE_SOME_MESSAGES, &[&user_id, &device_ids]).await? >= MESSAGES_AT_ONCE {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Pushers that were set by these devices.
    pub async fn pushers_of_devices(&self, user_id: &str, device_ids: &[String]) -> Result<Vec<PusherKey>> {
        let sql = "SELECT app_id, pushkey FROM pushers WHERE user_name = $1 AND device_id = ANY($2)";
        let rows = self.db.query(sql, &[&user_id, &device_ids]).await?;
        Ok(rows.iter().map(|r| PusherKey { app_id: r.get(0), pushkey: r.get(1) }).collect())
    }

    /// Deletes pushers. Only the main process may: it alone writes the stream.
    pub async fn delete_pushers(&self, user_id: &str, pushers: &[PusherKey]) -> Result<()> {
        if pushers.is_empty() {
            return Ok(());
        }
        let app_ids: Vec<&str> = pushers.iter().map(|p| p.app_id.as_str()).collect();
        let pushkeys: Vec<&str> = pushers.iter().map(|p| p.pushkey.as_str()).collect();
        transaction!(self, "delete_pusher", |tx| {
            let sql = "DELETE FROM pushers p USING unnest($2::text[], $3::text[]) AS t(app_id, pushkey)
                       WHERE p.user_name = $1 AND p.app_id = t.app_id AND p.pushkey = t.pushkey";
            tx.run(sql, &[&user_id, &app_ids, &pushkeys]).await?;
            tx.forget_named(self, "get_if_user_has_pusher", Some(vec![user_id.to_owned()])).await?;
            let ids = tx.next_n(&self.streams, Stream::Pushers, pushers.len()).await?;
            let sql = "INSERT INTO deleted_pushers (stream_id, app_id, pushkey, user_id, instance_name)
                       SELECT t.id, t.app_id, t.pushkey, $1, $2
                       FROM unnest($3::bigint[], $4::text[], $5::text[]) AS t(id, app_id, pushkey)";
            tx.run(sql, &[&user_id, &self.instance(), &ids, &app_ids, &pushkeys]).await?;
            for (id, p) in ids.into_iter().zip(pushers) {
                let (app_id, pushkey) = (p.app_id.clone(), p.pushkey.clone());
                let row = Row::Pusher { user_id: user_id.to_owned(), app_id, pushkey, deleted: true };
                tx.announce(Stream::Pushers, id, row);
            }
            Ok(())
        })
    }

    /// Devices of users of this server that were last seen before `before_ms`, by user.
    pub async fn devices_not_seen_since(&self, before_ms: i64) -> Result<HashMap<String, Vec<String>>> {
        let sql = "SELECT user_id, array_agg(device_id) FROM devices
                   WHERE last_seen < $1 AND NOT COALESCE(hidden, false) GROUP BY user_id";
        Ok(self.db.query(sql, &[&before_ms]).await?.iter().map(|r| (r.get(0), r.get(1))).collect())
    }
}

impl Tx {
    /// See [`Store::store_device`]; for logins that make device and token at once.
    pub async fn store_device(
        &mut self,
        store: &Store,
        user_id: &str,
        device_id: &str,
        display_name: Option<&str>,
        auth_provider: Option<(&str, &str)>,
    ) -> Result<bool> {
        let sql = "INSERT INTO devices (user_id, device_id, display_name, hidden) VALUES ($1, $2, $3, false)
                   ON CONFLICT (user_id, device_id) DO NOTHING";
        let new = self.run(sql, &[&user_id, &device_id, &display_name]).await? > 0;
        if new {
            let keys = vec![user_id.to_owned(), device_id.to_owned()];
            self.forget_named(store, "get_device", Some(keys)).await?;
        } else {
            let sql = "SELECT COALESCE(hidden, false) FROM devices WHERE user_id = $1 AND device_id = $2";
            let hidden = self.query_opt(sql, &[&user_id, &device_id]).await?.is_some_and(|r| r.get(0));
            if hidden {
                return Err(Error::client(400, "M_FORBIDDEN", "The device ID is in use"));
            }
        }
        if let Some((provider, session)) = auth_provider {
            let sql = "INSERT INTO device_auth_providers
                           (user_id, device_id, auth_provider_id, auth_provider_session_id)
                       VALUES ($1, $2, $3, $4)";
            self.run(sql, &[&user_id, &device_id, &provider, &session]).await?;
        }
        Ok(new)
    }

    /// See [`Store::delete_devices`].
    pub async fn delete_devices(&mut self, store: &Store, user_id: &str, device_ids: &[String]) -> Result<()> {
        let sql = "DELETE FROM devices
                   WHERE user_id = $1 AND device_id = ANY($2) AND NOT COALESCE(hidden, false)";
        self.run(sql, &[&user_id, &device_ids]).await?;
        for table in [
            "device_auth_providers",
            "e2e_device_keys_json",
            "e2e_one_time_keys_json",
            "dehydrated_devices",
            "e2e_fallback_keys_json",
        ] {
            let sql = format!("DELETE FROM {table} WHERE user_id = $1 AND device_id = ANY($2)");
            self.run(&sql, &[&user_id, &device_ids]).await?;
        }
        let mut forget: Vec<(String, Option<Vec<String>>)> =
            ["get_device", "count_e2e_one_time_keys", "get_e2e_unused_fallback_key_types"]
                .map(|name| (name.to_owned(), Some(vec![user_id.to_owned()])))
                .into();
        // Access tokens point at refresh tokens: those that are referred to go last.
        let sql = "DELETE FROM access_tokens WHERE user_id = $1 AND device_id = ANY($2) RETURNING token";
        for row in self.query(sql, &[&user_id, &device_ids]).await? {
            forget.push(("get_user_by_access_token".to_owned(), Some(vec![row.get(0)])));
        }
        let sql = "DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = ANY($2)";
        self.run(sql, &[&user_id, &device_ids]).await?;
        self.forget_many(store, forget).await
    }
}
