//! Commits that are under way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Commits under way of one generation of a room. Once one has failed, all later ones do, and the room
/// reloads from the database.
#[derive(Default)]
pub(crate) struct Flight {
    broken: AtomicBool,
    jobs: AtomicUsize,
    idle: Notify,
}

impl Flight {
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub fn broke(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub fn took_off(&self) {
        self.jobs.fetch_add(1, Ordering::AcqRel);
    }

    pub fn landed(&self) {
        if self.jobs.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.load(Ordering::Acquire) == 0
    }

    pub async fn wait_idle(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_idle() {
                return;
            }
            notified.await;
        }
    }
}
