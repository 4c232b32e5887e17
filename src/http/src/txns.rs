//! Answers to requests with a client transaction id, so that a repeated request gets the answer of the first.

use crate::{Reply, Rq};
use dashmap::DashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use types::{Requester, Result};

/// How long an answer is kept.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Answers held before old ones are swept out; twice as many are never held.
const SWEEP_AT: usize = 20_000;

struct Entry {
    made: Instant,
    answer: Arc<OnceCell<Reply>>,
}

/// Answers by (who, path). Errors are not kept: their request may be repeated in earnest.
#[derive(Default)]
pub struct Txns {
    entries: DashMap<(String, String), Entry>,
    sweep_at: AtomicUsize,
}

/// Whom a transaction id belongs to: a device, an application service, a guest.
fn owner(who: &Requester) -> String {
    match (&who.app_service, &who.device_id) {
        (Some(service), _) => format!("appservice {service} {}", who.user_id),
        (None, Some(device)) => format!("device {} {device}", who.user_id),
        (None, None) => format!("token {} {:?}", who.user_id, who.access_token_id),
    }
}

impl Txns {
    /// The answer of the first request with this path, or `run`'s. Requests at the same time share one run.
    pub async fn once<F>(&self, who: &Requester, rq: &Rq, run: F) -> Result<Reply>
    where
        F: Future<Output = Result<Reply>>,
    {
        self.sweep();
        let key = (owner(who), rq.path.clone());
        let fresh = || Entry { made: Instant::now(), answer: Arc::default() };
        let answer = self.entries.entry(key).or_insert_with(fresh).answer.clone();
        Ok(answer.get_or_try_init(|| run).await?.clone())
    }

    fn sweep(&self) {
        let limit = self.sweep_at.load(Ordering::Relaxed).max(SWEEP_AT);
        if self.entries.len() < limit {
            return;
        }
        self.entries.retain(|_, e| e.made.elapsed() < LIFETIME);
        if self.entries.len() > SWEEP_AT {
            // More than this within the lifetime: the older half goes.
            let mut ages: Vec<Instant> = self.entries.iter().map(|e| e.made).collect();
            ages.sort_unstable();
            let middle = ages[ages.len() / 2];
            self.entries.retain(|_, e| e.made > middle);
        }
        self.sweep_at.store(self.entries.len() + SWEEP_AT, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use types::Error;

    fn rq(path: &str) -> Rq {
        Rq {
            method: httpcrate::Method::PUT,
            path: path.into(),
            raw_query: String::new(),
            args: vec![],
            query: vec![],
            headers: Default::default(),
            body: Default::default(),
            ip: None,
            id: 0,
            route: "test",
        }
    }

    #[tokio::test]
    async fn a_repeated_request_gets_the_first_answer_and_an_error_is_not_kept() {
        let (txns, runs) = (Txns::default(), AtomicU32::new(0));
        let who = Requester::for_user(ruma::user_id!("@a:b"));
        let failing = txns.once(&who, &rq("/x/1"), async { Err(Error::forbidden("no")) }).await;
        assert_eq!(failing.unwrap_err().status(), 403);
        for _ in 0..2 {
            let run = async {
                let n = runs.fetch_add(1, Ordering::SeqCst);
                Reply::json(&n)
            };
            assert_eq!(&txns.once(&who, &rq("/x/1"), run).await.unwrap().body[..], b"0");
        }
        let other = txns.once(&who, &rq("/x/2"), async { Reply::json(&7) }).await.unwrap();
        assert_eq!(&other.body[..], b"7");
        let mut device = who.clone();
        device.device_id = Some("D".into());
        let other = txns.once(&device, &rq("/x/1"), async { Reply::json(&8) }).await.unwrap();
        assert_eq!(&other.body[..], b"8");
    }
}
