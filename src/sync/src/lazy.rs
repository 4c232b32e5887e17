//! Which members a lazy-loading client has been told of, so that they need not be told again.

use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use types::{MultiToken, OwnedEventId};

/// Members remembered for each device.
const MEMBERS: usize = 100;
/// After this long without a sync nothing is assumed to be known any more.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// What one device was told. A member counts as told only if the client came back with the token of the
/// answer that carried it (or a later one).
pub struct Told {
    sent: HashMap<String, (OwnedEventId, MultiToken, u64)>,
    tick: u64,
    used: Instant,
}

impl Default for Told {
    fn default() -> Self {
        Self { sent: HashMap::new(), tick: 0, used: Instant::now() }
    }
}

impl Told {
    /// A request begins: forget what was in answers the client did not get. None: an initial sync.
    pub fn start(&mut self, since: Option<&MultiToken>) {
        match since {
            Some(since) if self.used.elapsed() < MAX_AGE => self.sent.retain(|_, (_, at, _)| at.is_before_or_eq(since)),
            _ => self.sent.clear(),
        }
        self.used = Instant::now();
    }

    pub fn was_sent(&mut self, user_id: &str, event_id: &OwnedEventId) -> bool {
        self.tick += 1;
        match self.sent.get_mut(user_id) {
            Some((sent, _, used)) if sent == event_id => {
                *used = self.tick;
                true
            }
            _ => false,
        }
    }

    /// The member is part of the answer that ends at `at`.
    pub fn mark(&mut self, user_id: &str, event_id: OwnedEventId, at: &MultiToken) {
        self.tick += 1;
        self.sent.insert(user_id.to_owned(), (event_id, at.clone(), self.tick));
        if self.sent.len() > MEMBERS {
            let oldest = self.sent.iter().min_by_key(|(_, (_, _, used))| *used).map(|(u, _)| u.clone());
            if let Some(user) = oldest {
                self.sent.remove(&user);
            }
        }
    }
}

/// [`Told`] by (user, device).
pub struct LazyMembers(Cache<(String, Option<String>), Arc<Mutex<Told>>>);

impl Default for LazyMembers {
    fn default() -> Self {
        Self(Cache::new(5_000))
    }
}

impl LazyMembers {
    pub fn of(&self, user_id: &str, device_id: Option<&str>) -> Arc<Mutex<Told>> {
        let key = (user_id.to_owned(), device_id.map(str::to_owned));
        if let Some(told) = self.0.get(&key) {
            return told;
        }
        let told = Arc::new(Mutex::new(Told::default()));
        self.0.insert(key, told.clone());
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_lost_answer_are_told_again() {
        let id = OwnedEventId::try_from("$a").unwrap();
        let mut told = Told::default();
        told.start(Some(&MultiToken::at(5)));
        told.mark("@a:b", id.clone(), &MultiToken::at(7));
        told.start(Some(&MultiToken::at(7)));
        assert!(told.was_sent("@a:b", &id));
        told.start(Some(&MultiToken::at(5)));
        assert!(!told.was_sent("@a:b", &id));
    }

    #[test]
    fn only_the_last_hundred_are_remembered() {
        let id = OwnedEventId::try_from("$a").unwrap();
        let mut told = Told::default();
        for i in 0..150 {
            told.mark(&format!("@{i}:b"), id.clone(), &MultiToken::at(1));
        }
        assert_eq!(told.sent.len(), MEMBERS);
        assert!(told.was_sent("@149:b", &id) && !told.was_sent("@0:b", &id));
    }
}
