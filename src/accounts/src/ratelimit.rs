//! Leaky buckets, as Synapse counts them.

use config::{RateLimit, RateLimits};
use dashmap::DashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use types::{Error, Result};

/// Buckets held before those that have run empty are swept out.
const SWEEP_AT: usize = 4096;

#[derive(Clone, Copy)]
struct Bucket {
    /// Actions since `start`.
    count: f64,
    /// Seconds.
    start: f64,
    rate: f64,
}

impl Bucket {
    fn is_empty(&self, now: f64) -> bool {
        self.count - (now - self.start) * self.rate <= 0.0
    }
}

/// Counts actions by key (a user, an address …) in memory of this process.
pub struct RateLimiter {
    limit: RwLock<RateLimit>,
    buckets: DashMap<String, Bucket>,
    sweep_at: AtomicUsize,
}

/// Whether an action is only checked or also counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Yes,
    No,
}

impl RateLimiter {
    pub fn new(limit: RateLimit) -> Self {
        Self { limit: RwLock::new(limit), buckets: DashMap::new(), sweep_at: AtomicUsize::new(SWEEP_AT) }
    }

    /// The limit that holds now.
    pub fn limit(&self) -> RateLimit {
        *self.limit.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Sets another limit; what was counted stays counted.
    fn set(&self, limit: RateLimit) {
        *self.limit.write().unwrap_or_else(|e| e.into_inner()) = limit;
    }

    /// Counts one action. 429 with the time to wait if there were too many. `now_ms`: the time.
    pub fn check(&self, key: &str, now_ms: i64) -> Result<()> {
        self.check_with(key, now_ms, self.limit(), Count::Yes)
    }

    /// 429 if an action would be too many; does not count it.
    pub fn peek(&self, key: &str, now_ms: i64) -> Result<()> {
        self.check_with(key, now_ms, self.limit(), Count::No)
    }

    /// As [`RateLimiter::check`] with a limit of its own for this key.
    pub fn check_with(&self, key: &str, now_ms: i64, limit: RateLimit, count: Count) -> Result<()> {
        let now = now_ms as f64 / 1000.0;
        let (rate, burst) = (limit.per_second, limit.burst_count as f64);
        let fresh = Bucket { count: 0.0, start: now, rate };
        let old = self.buckets.get(key).map(|b| *b).unwrap_or(fresh);
        let mut bucket = Bucket { rate, ..old };
        let mut performed = bucket.count - (now - bucket.start) * rate;
        if performed < 0.0 {
            (performed, bucket) = (0.0, fresh);
        }
        if performed > burst - 1.0 {
            // Without any rate there is no time at which it would be allowed.
            let wait = if rate > 0.0 { bucket.start + (bucket.count - burst + 1.0) / rate - now } else { -1.0 - now };
            return Err(Error::limit_exceeded((wait.max(0.0) * 1000.0) as i64));
        }
        if count == Count::Yes {
            bucket.count += 1.0;
            self.buckets.insert(key.to_owned(), bucket);
            self.sweep(now);
        }
        Ok(())
    }

    /// Sweeps when the map has doubled, so that the cost stays constant per action.
    fn sweep(&self, now: f64) {
        if self.buckets.len() < self.sweep_at.load(Ordering::Relaxed) {
            return;
        }
        self.buckets.retain(|_, b| !b.is_empty(now));
        self.sweep_at.store((self.buckets.len() * 2).max(SWEEP_AT), Ordering::Relaxed);
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One limiter for each `rc_*` setting.
        pub struct Limits { $($(#[$doc])* pub $name: RateLimiter,)* }

        impl Limits {
            pub fn new(c: &RateLimits) -> Self {
                Self { $($name: RateLimiter::new(c.$name),)* }
            }

            /// Takes over limits that were changed in the files.
            pub fn set(&self, c: &RateLimits) {
                $(self.$name.set(c.$name);)*
            }
        }
    };
}

limits! {
    message, registration, registration_token_validity, login_address, login_account, login_failed_attempts,
    joins_local, joins_remote, joins_per_room, key_requests, threepid_validation, invites_per_room, invites_per_user,
    invites_per_issuer, third_party_invite, media_create, presence_per_user, delayed_event_mgmt, room_creation, reports,
    user_directory, profile,
}

impl crate::Accounts {
    /// Counts an action of a user against a limiter. Application services that are not limited and users with an
    /// override of 0 go free.
    pub async fn limit_user(&self, limiter: &RateLimiter, who: &types::Requester) -> Result<()> {
        if self.is_unlimited(who).await? {
            return Ok(());
        }
        limiter.check(who.user_id.as_str(), self.cx.now_ms())
    }

    /// `rc_message`, with the user's own limits if an administrator set some.
    pub async fn limit_message(&self, who: &types::Requester) -> Result<()> {
        if who.app_service.as_deref().and_then(|id| self.app_service(id)).is_some_and(|s| !s.rate_limited) {
            return Ok(());
        }
        let limit = match self.cx.store.ratelimit_override(who.user_id.as_str()).await? {
            Some((0, _)) => return Ok(()),
            Some((per_second, burst_count)) => {
                RateLimit { per_second: per_second as f64, burst_count: burst_count.max(0) as u64 }
            }
            None => self.limits().message.limit(),
        };
        self.limits().message.check_with(who.user_id.as_str(), self.cx.now_ms(), limit, Count::Yes)
    }

    /// Application services and users that no limit holds for.
    pub async fn is_unlimited(&self, who: &types::Requester) -> Result<bool> {
        if who.app_service.as_deref().and_then(|id| self.app_service(id)).is_some_and(|s| !s.rate_limited) {
            return Ok(true);
        }
        Ok(matches!(self.cx.store.ratelimit_override(&who.authenticated_entity).await?, Some((0, _))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let l = RateLimiter::new(RateLimit { per_second: 0.1, burst_count: 2 });
        assert!(l.check("a", 0).is_ok());
        assert!(l.check("a", 0).is_ok());
        let e = l.check("a", 0).unwrap_err();
        assert_eq!((e.status(), e.errcode()), (429, Some("M_LIMIT_EXCEEDED")));
        assert!(l.check("b", 0).is_ok());
        assert!(l.check("a", 9_000).is_err());
        assert!(l.check("a", 10_000).is_ok());
        assert!(l.check("a", 10_000).is_err());
    }

    #[test]
    fn a_new_limit_holds_at_once_and_keeps_the_count() {
        let l = RateLimiter::new(RateLimit { per_second: 0.1, burst_count: 1 });
        assert!(l.check("a", 0).is_ok() && l.check("a", 0).is_err());
        l.set(RateLimit { per_second: 0.1, burst_count: 2 });
        assert!(l.check("a", 0).is_ok() && l.check("a", 0).is_err());
    }

    #[test]
    fn peeking_does_not_count() {
        let l = RateLimiter::new(RateLimit { per_second: 1.0, burst_count: 1 });
        assert!(l.peek("a", 0).is_ok());
        assert!(l.peek("a", 0).is_ok());
        assert!(l.check("a", 0).is_ok());
        assert!(l.peek("a", 0).is_err());
    }
}
