//! Locks between processes: `worker_locks` (exclusive) and `worker_read_write_locks`.
//!
//! A lock is a row that its holder renews; one that was not renewed for two minutes is nobody's. Waiting for a lock
//! and telling others that it is free is the business of crate `replication`.

use crate::Store;
use crate::db::is_constraint;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use types::{Result, credentials};

/// A lock that was not renewed for this long is free. Milliseconds.
const TIMEOUT_MS: i64 = 120_000;
/// How often held locks are renewed.
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// How often locks of dead processes are looked for.
const REAP_EVERY: Duration = Duration::from_secs(12);

/// How a lock is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One holder.
    Exclusive,
    /// Any number of readers, or one writer.
    Read,
    /// See [`Mode::Read`].
    Write,
}

/// Name and key of a lock, and how it is held.
type Held = (String, String, Mode);

/// Locks this process holds, by token.
pub(crate) struct Locks {
    /// Random letters chosen at start: `instance_name` in both tables, USER_SYNC on the bus.
    run_id: String,
    held: Mutex<HashMap<String, Held>>,
}

impl Default for Locks {
    fn default() -> Self {
        Self { run_id: credentials::letters(5), held: Mutex::default() }
    }
}

impl Locks {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A lock that is held until it is released or dropped.
pub struct Lock {
    store: Arc<Store>,
    token: Option<String>,
    on_release: Option<Box<dyn FnOnce() + Send>>,
}

impl Lock {
    /// Runs once the lock is free again.
    pub fn on_release(&mut self, f: impl FnOnce() + Send + 'static) {
        self.on_release = Some(Box::new(f));
    }

    /// Gives the lock back; returns when others can have it.
    pub async fn release(mut self) -> Result<()> {
        let Some(token) = self.token.take() else { return Ok(()) };
        let done = self.store.unlock(&token).await;
        if let Some(f) = self.on_release.take() {
            f();
        }
        done
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else { return };
        let (store, after) = (self.store.clone(), self.on_release.take());
        // Without a runtime the process is at its end; the row expires by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // If the row can't be deleted now it expires.
                let _ = store.unlock(&token).await;
                if let Some(f) = after {
                    f();
                }
            });
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl Store {
    /// Random letters this process chose at its start.
    pub fn run_id(&self) -> &str {
        &self.locks.run_id
    }

    /// The lock, if nobody holds it in a way that excludes ours.
    pub async fn try_lock(self: &Arc<Self>, name: &str, key: &str, mode: Mode) -> Result<Option<Lock>> {
        let token = credentials::letters(6);
        let got = match mode {
            Mode::Exclusive => self.lock_exclusive(name, key, &token).await?,
            Mode::Read => self.lock_shared(name, key, &token, false).await?,
            Mode::Write => self.lock_shared(name, key, &token, true).await?,
        };
        if !got {
            return Ok(None);
        }
        self.locks.held().insert(token.clone(), (name.to_owned(), key.to_owned(), mode));
        Ok(Some(Lock { store: self.clone(), token: Some(token), on_release: None }))
    }

    async fn lock_exclusive(&self, name: &str, key: &str, token: &str) -> Result<bool> {
        // The row alone would let a process have its own lock again.
        if self.locks.held().values().any(|(n, k, m)| n == name && k == key && *m == Mode::Exclusive) {
            return Ok(false);
        }
        let now = now_ms();
        let rows = self
            .db
            .execute(
                "INSERT INTO worker_locks (lock_name, lock_key, instance_name, token, last_renewed_ts)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (lock_name, lock_key) DO UPDATE
                 SET instance_name = EXCLUDED.instance_name, token = EXCLUDED.token,
                     last_renewed_ts = EXCLUDED.last_renewed_ts
                 WHERE worker_locks.last_renewed_ts < $6 OR worker_locks.instance_name = EXCLUDED.instance_name",
                &[&name, &key, &self.run_id(), &token, &now, &(now - TIMEOUT_MS)],
            )
            .await?;
        Ok(rows > 0)
    }

    async fn lock_shared(&self, name: &str, key: &str, token: &str, write: bool) -> Result<bool> {
        let inserted = self
            .db
            .execute(
                "INSERT INTO worker_read_write_locks
                     (lock_name, lock_key, write_lock, instance_name, token, last_renewed_ts)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[&name, &key, &write, &self.run_id(), &token, &now_ms()],
            )
            .await;
        match inserted {
            Ok(_) => Ok(true),
            Err(e) if is_constraint(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn unlock(&self, token: &str) -> Result<()> {
        let Some((name, key, mode)) = self.locks.held().remove(token) else { return Ok(()) };
        let table = if mode == Mode::Exclusive { "worker_locks" } else { "worker_read_write_locks" };
        let sql = format!("DELETE FROM {table} WHERE lock_name = $1 AND lock_key = $2 AND token = $3");
        self.db.execute(&sql, &[&name, &key, &token]).await?;
        Ok(())
    }

    /// Renews what is held and removes what dead processes left. Never returns.
    pub async fn tend_locks(self: Arc<Self>) {
        let mut renew = tokio::time::interval(RENEW_EVERY);
        let mut reap = tokio::time::interval(REAP_EVERY);
        loop {
            // A failure now is made good by the next round, well before the locks expire.
            let _ = tokio::select! {
                _ = renew.tick() => self.renew_locks().await,
                _ = reap.tick() => self.reap_locks().await,
            };
        }
    }

    async fn renew_locks(&self) -> Result<()> {
        let tokens: Vec<String> = self.locks.held().keys().cloned().collect();
        if tokens.is_empty() {
            return Ok(());
        }
        for table in ["worker_locks", "worker_read_write_locks"] {
            let sql = format!("UPDATE {table} SET last_renewed_ts = $1 WHERE token = ANY($2) AND instance_name = $3");
            self.db.execute(&sql, &[&now_ms(), &tokens, &self.run_id()]).await?;
        }
        Ok(())
    }

    async fn reap_locks(&self) -> Result<()> {
        self.db
            .execute("DELETE FROM worker_read_write_locks WHERE last_renewed_ts < $1", &[&(now_ms() - TIMEOUT_MS)])
            .await?;
        Ok(())
    }
}
