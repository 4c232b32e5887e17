//! How many requests of one server are answered at once (`rc_federation`), as each process counts for itself.

use config::ratelimit::FederationRateLimit;
use dashmap::DashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use types::{Error, Result};

/// Servers remembered before those that ask nothing are forgotten.
const SWEEP_AT: usize = 4_096;

/// The servers that ask something.
pub(crate) struct Door {
    /// As it was when the process started.
    limit: FederationRateLimit,
    servers: DashMap<String, Arc<Server>>,
}

struct Server {
    /// When its latest requests came, as far as they are in the window.
    came: Mutex<VecDeque<Instant>>,
    /// Requests that are delayed or wait for their turn.
    waiting: AtomicU64,
    turns: Arc<Semaphore>,
}

/// A request's turn: lasts until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// One that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    pub fn new(limit: FederationRateLimit) -> Self {
        Self { limit, servers: DashMap::new() }
    }

    /// Waits for a request's turn. 429 if too many of its server wait.
    pub async fn admit(&self, server: &str) -> Result<Turn> {
        let FederationRateLimit { window_size_ms, sleep_limit, sleep_delay_ms, reject_limit, .. } = self.limit;
        let server = self.server(server);
        let before = server.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&server.waiting);
        if before > reject_limit {
            return Err(Error::limit_exceeded(i64::try_from(window_size_ms / sleep_limit.max(1)).unwrap_or(i64::MAX)));
        }
        if server.count(Duration::from_millis(window_size_ms)) > sleep_limit {
            tokio::time::sleep(Duration::from_millis(sleep_delay_ms)).await;
        }
        let _permit = server.turns.clone().acquire_owned().await?;
        drop(waiting);
        Ok(Turn { _permit })
    }

    fn server(&self, name: &str) -> Arc<Server> {
        if let Some(server) = self.servers.get(name) {
            return server.clone();
        }
        if self.servers.len() >= SWEEP_AT {
            let window = Duration::from_millis(self.limit.window_size_ms);
            self.servers.retain(|_, s| Arc::strong_count(s) > 1 || s.is_recent(window));
        }
        let concurrent = usize::try_from(self.limit.concurrent).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        let new = || {
            Arc::new(Server {
                came: Mutex::default(),
                waiting: AtomicU64::new(0),
                turns: Arc::new(Semaphore::new(concurrent)),
            })
        };
        self.servers.entry(name.to_owned()).or_insert_with(new).clone()
    }
}

impl Server {
    /// Requests within the window, with one that comes now.
    fn count(&self, window: Duration) -> u64 {
        let now = Instant::now();
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        while came.front().is_some_and(|first| now.duration_since(*first) >= window) {
            came.pop_front();
        }
        came.push_back(now);
        came.len() as u64
    }

    fn is_recent(&self, window: Duration) -> bool {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.back().is_some_and(|last| last.elapsed() < window) || self.turns.available_permits() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(sleep_limit: u64, reject_limit: u64, concurrent: u64) -> Arc<Door> {
        let (window_size_ms, sleep_delay_ms) = (3_600_000, 100);
        Arc::new(Door::new(FederationRateLimit {
            window_size_ms,
            sleep_limit,
            sleep_delay_ms,
            reject_limit,
            concurrent,
        }))
    }

    #[tokio::test]
    async fn requests_beyond_the_limit_of_the_window_are_delayed() {
        let door = door(2, 50, 3);
        for _ in 0..2 {
            assert!(futures::FutureExt::now_or_never(door.admit("a")).expect("no delay").is_ok());
        }
        let start = Instant::now();
        door.admit("a").await.expect("turn");
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert!(futures::FutureExt::now_or_never(door.admit("b")).expect("another server").is_ok());
    }

    #[tokio::test]
    async fn turns_are_given_back_and_there_is_an_end_to_the_line() {
        let door = door(100, 1, 2);
        let held = (door.admit("a").await.expect("turn"), door.admit("a").await.expect("turn"));
        let queue: Vec<_> = (0..2)
            .map(|_| {
                let door = door.clone();
                tokio::spawn(async move { door.admit("a").await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        let refused = door.admit("a").await.expect_err("two wait");
        assert_eq!((refused.status(), refused.errcode()), (429, Some("M_LIMIT_EXCEEDED")));
        drop(held);
        for waiting in queue {
            waiting.await.expect("task").expect("turn");
        }
        door.admit("a").await.expect("nobody waits any more");
    }
}
