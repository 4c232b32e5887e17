//! Waiting for locks between processes, and telling the others when one is free.

use crate::{Bus, Command, Cx};
use dashmap::DashMap;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use store::locks::{Lock, Mode};
use tokio::sync::{Notify, broadcast};
use types::{Boxed, Result};

/// Read by whoever makes events in a room, written by whoever purges it. Key: room id.
pub const NEW_EVENT_DURING_PURGE: &str = "new_event_during_purge_lock";
/// Read by pagination and backfill, written by purges. Key: room id.
pub const PURGE_PAGINATION: &str = "purge_pagination_lock";
/// Exclusive. Key: user id, `_`, device id.
pub const ONE_TIME_KEY_UPLOAD: &str = "one_time_key_upload_lock";
/// Exclusive: a changed profile on its way to the user's rooms. Key: user id.
pub const UPDATE_JOIN_STATES: &str = "update_join_states_lock";

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Those who wait in this process, by name and key of the lock.
#[derive(Default)]
pub(crate) struct Waiters(DashMap<(String, String), Arc<Notify>>);

impl Waiters {
    fn of(&self, name: &str, key: &str) -> Arc<Notify> {
        self.0.entry((name.to_owned(), key.to_owned())).or_default().clone()
    }

    fn wake(&self, name: &str, key: &str) {
        if let Some((_, waiters)) = self.0.remove(&(name.to_owned(), key.to_owned())) {
            waiters.notify_waiters();
        }
    }

    /// Wakes waiters when another process lets a lock go. Never returns.
    pub async fn listen(self: Arc<Self>, mut commands: broadcast::Receiver<Command>) {
        loop {
            match commands.recv().await {
                Ok(Command::LockReleased { name, key, .. }) => self.wake(&name, &key),
                // Whoever missed a word tries again by the clock.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

impl Cx {
    /// The lock, as soon as it can be had.
    pub fn lock<'a>(&'a self, name: &'a str, key: &'a str, mode: Mode) -> Boxed<'a, Result<Lock>> {
        Box::pin(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let waiters = self.waiters.of(name, key);
                let woken = waiters.notified();
                tokio::pin!(woken);
                woken.as_mut().enable();
                if let Some(mut lock) = self.store.try_lock(name, key, mode).await? {
                    let (waiters, bus) = (self.waiters.clone(), self.bus.clone());
                    let (instance, name, key) = (self.instance.to_string(), name.to_owned(), key.to_owned());
                    lock.on_release(move || announce(&waiters, &bus, instance, name, key));
                    return Ok(lock);
                }
                let jitter = rand::rng().random_range(0.9..1.1);
                let _ = tokio::time::timeout(pause.mul_f64(jitter), woken).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        })
    }
}

fn announce(waiters: &Waiters, bus: &Bus, instance: String, name: String, key: String) {
    waiters.wake(&name, &key);
    bus.send(Command::LockReleased { instance, name, key });
}
