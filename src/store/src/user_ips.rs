//! Where users were last seen: tables `user_ips`, `devices` and `monthly_active_users`.

use crate::{Store, transaction};
use std::collections::HashMap;
use std::sync::Mutex;
use types::Result;

/// Sightings that may wait to be written; more are dropped while the database is away.
const MAX_PENDING: usize = 100_000;

/// Sightings not written yet by (user, token, address).
pub(crate) type Pending = Mutex<HashMap<(String, String, String), Sighting>>;

/// One sighting. Written in batches by the process that runs background tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    pub user_id: String,
    pub access_token: String,
    pub ip: String,
    pub user_agent: String,
    pub device_id: Option<String>,
    /// Milliseconds.
    pub last_seen: i64,
}

impl Store {
    /// Writes sightings; there may be only one for each (user, token, address).
    pub async fn record_sightings(&self, seen: &[Sighting]) -> Result<()> {
        let users: Vec<&str> = seen.iter().map(|s| s.user_id.as_str()).collect();
        let tokens: Vec<&str> = seen.iter().map(|s| s.access_token.as_str()).collect();
        let ips: Vec<&str> = seen.iter().map(|s| s.ip.as_str()).collect();
        let agents: Vec<&str> = seen.iter().map(|s| s.user_agent.as_str()).collect();
        let devices: Vec<Option<&str>> = seen.iter().map(|s| s.device_id.as_deref()).collect();
        let times: Vec<i64> = seen.iter().map(|s| s.last_seen).collect();
        transaction!(self, "_update_client_ips_batch", |tx| {
            tx.run(
                "INSERT INTO user_ips (user_id, access_token, ip, user_agent, device_id, last_seen)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
                 ON CONFLICT (user_id, access_token, ip) DO UPDATE
                 SET user_agent = EXCLUDED.user_agent, device_id = EXCLUDED.device_id, last_seen = EXCLUDED.last_seen",
                &[&users, &tokens, &ips, &agents, &devices, &times],
            )
            .await?;
            tx.run(
                "UPDATE devices d SET user_agent = s.agent, last_seen = s.at, ip = s.ip
                 FROM (SELECT DISTINCT ON (u, dev) * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
                           AS t(u, dev, agent, ip, at) ORDER BY u, dev, at DESC) s
                 WHERE d.user_id = s.u AND d.device_id = s.dev",
                &[&users, &devices, &agents, &ips, &times],
            )
            .await?;
            Ok(())
        })
    }

    /// Forgets sightings up to a time in milliseconds, some thousands at once.
    pub async fn prune_sightings(&self, before_ms: i64) -> Result<u64> {
        self.db
            .execute(
                "DELETE FROM user_ips WHERE last_seen IN
                     (SELECT last_seen FROM user_ips WHERE last_seen <= $1 ORDER BY last_seen LIMIT 5000)",
                &[&before_ms],
            )
            .await
    }

    /// Counts users as active this month (not guests). `limit`: no more users than this are added.
    pub async fn mark_monthly_active(&self, users: &[String], now_ms: i64, limit: Option<i64>) -> Result<()> {
        transaction!(self, "upsert_monthly_active_users", |tx| {
            let sql = "UPDATE monthly_active_users SET timestamp = $2 WHERE user_id = ANY($1)";
            tx.run(sql, &[&users, &now_ms]).await?;
            tx.run(
                "INSERT INTO monthly_active_users (user_id, timestamp)
                 SELECT name, $2 FROM users u WHERE name = ANY($1) AND is_guest = 0
                     AND NOT EXISTS (SELECT 1 FROM monthly_active_users m WHERE m.user_id = u.name)
                 LIMIT (SELECT GREATEST($3::bigint - COUNT(*), 0) FROM monthly_active_users)
                 ON CONFLICT (user_id) DO NOTHING",
                &[&users, &now_ms, &limit.unwrap_or(i64::MAX / 2)],
            )
            .await?;
            tx.forget_named(self, "user_last_seen_monthly_active", None).await
        })
    }

    /// Whether a user counts as active this month.
    pub async fn is_monthly_active(&self, user_id: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM monthly_active_users WHERE user_id = $1";
        Ok(self.db.query_opt(sql, &[&user_id]).await?.is_some())
    }

    /// Keeps a sighting until [`Store::take_sightings`]; of several with the same key the last.
    pub fn note_sighting(&self, s: Sighting) {
        let mut pending = self.accounts.sightings.lock().unwrap_or_else(|e| e.into_inner());
        if pending.len() < MAX_PENDING {
            pending.insert((s.user_id.clone(), s.access_token.clone(), s.ip.clone()), s);
        }
    }

    /// What was noted since the last call.
    pub fn take_sightings(&self) -> Vec<Sighting> {
        let mut pending = self.accounts.sightings.lock().unwrap_or_else(|e| e.into_inner());
        std::mem::take(&mut *pending).into_values().collect()
    }

    /// Users active this month.
    pub async fn count_monthly_active(&self) -> Result<i64> {
        let row = self.db.query_opt("SELECT COUNT(*) FROM monthly_active_users", &[]).await?;
        Ok(row.map_or(0, |r| r.get(0)))
    }

    /// A user's connections since a time, newest first; those still to be written too, in the process that writes them.
    pub async fn sightings(&self, user_id: &str, since_ms: i64) -> Result<Vec<Sighting>> {
        let sql = "SELECT user_id, access_token, ip, user_agent, device_id, last_seen FROM user_ips
                   WHERE user_id = $1 AND last_seen >= $2";
        let rows = self.db.query(sql, &[&user_id, &since_ms]).await?;
        let written = rows.iter().map(|r| Sighting {
            user_id: r.get(0),
            access_token: r.get(1),
            ip: r.get(2),
            user_agent: r.get(3),
            device_id: r.get(4),
            last_seen: r.get(5),
        });
        let mut all: HashMap<(String, String), Sighting> =
            written.map(|s| ((s.access_token.clone(), s.ip.clone()), s)).collect();
        let pending = self.accounts.sightings.lock().unwrap_or_else(|e| e.into_inner());
        for s in pending.values().filter(|s| s.user_id == user_id && s.last_seen >= since_ms) {
            all.insert((s.access_token.clone(), s.ip.clone()), s.clone());
        }
        drop(pending);
        let mut all: Vec<Sighting> = all.into_values().collect();
        all.sort_by_key(|s| std::cmp::Reverse(s.last_seen));
        Ok(all)
    }
}
