//! Nonces of registrations with the shared secret: in memory, good once, for a minute.

use crate::Accounts;
use dashmap::DashMap;

const LIFETIME_MS: i64 = 60_000;
/// More than this many are not kept at once.
const MAX: usize = 10_000;

/// Nonces by when they were made.
pub(crate) type Nonces = DashMap<String, i64>;

impl Accounts {
    /// A nonce that [`Accounts::use_nonce`] accepts once within a minute.
    pub fn new_nonce(&self) -> String {
        let now = self.cx.now_ms();
        self.inner.nonces.retain(|_, made| now - *made <= LIFETIME_MS);
        let nonce = hex::encode(rand::random::<[u8; 64]>());
        if self.inner.nonces.len() < MAX {
            self.inner.nonces.insert(nonce.clone(), now);
        }
        nonce
    }

    /// Uses a nonce up; false if it is none of ours.
    pub fn use_nonce(&self, nonce: &str) -> bool {
        let made = self.inner.nonces.remove(nonce);
        made.is_some_and(|(_, made)| self.cx.now_ms() - made <= LIFETIME_MS)
    }
}
