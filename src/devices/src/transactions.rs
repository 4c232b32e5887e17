//! Requests that a client repeats with the same transaction id are carried out once.

use dashmap::DashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use types::Result;

/// Done requests are remembered for one to two of these.
const PERIOD: Duration = Duration::from_secs(30 * 60);
/// Entries at which a period ends early.
const CAPACITY: usize = 50_000;

type Done = Arc<OnceCell<()>>;

/// What this process has done, by requester and request path.
pub(crate) struct Transactions(Mutex<Generations>);

struct Generations {
    current: DashMap<String, Done>,
    previous: DashMap<String, Done>,
    since: Instant,
}

impl Default for Transactions {
    fn default() -> Self {
        Self(Mutex::new(Generations { current: DashMap::new(), previous: DashMap::new(), since: Instant::now() }))
    }
}

impl Transactions {
    fn entry(&self, key: &str) -> Done {
        let mut g = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if g.since.elapsed() > PERIOD || g.current.len() >= CAPACITY {
            g.previous = std::mem::take(&mut g.current);
            g.since = Instant::now();
        }
        if let Some((_, done)) = g.previous.remove(key) {
            g.current.insert(key.to_owned(), done);
        }
        g.current.entry(key.to_owned()).or_default().clone()
    }

    /// Runs `work` unless it succeeded for this key before; who comes meanwhile waits for the same outcome.
    pub async fn once(&self, key: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
        self.entry(key).get_or_try_init(|| work).await.copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use types::Error;

    #[tokio::test]
    async fn success_is_remembered_and_failure_is_not() {
        let transactions = Transactions::default();
        let runs = AtomicU32::new(0);
        let work = |fails: bool| async {
            runs.fetch_add(1, Ordering::Relaxed);
            if fails { Err(Error::bad_request("no")) } else { Ok(()) }
        };
        assert!(transactions.once("a", work(true)).await.is_err());
        assert!(transactions.once("a", work(false)).await.is_ok());
        assert!(transactions.once("a", work(true)).await.is_ok());
        assert!(transactions.once("b", work(false)).await.is_ok());
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }
}
