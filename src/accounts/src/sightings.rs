//! Noting where users are seen, at most once in two minutes for each token and address.

use crate::{Accounts, Credentials};
use replication::{Command, UserIp};
use slog::warn;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use store::user_ips::Sighting;
use store::{Cache, Registry};
use types::Requester;

/// Milliseconds during which another sighting says nothing new.
const GRANULARITY_MS: i64 = 120_000;

/// When somebody was last noted, by a hash of (user, token, address).
pub(crate) struct LastSeen {
    times: Cache<i64, i64>,
    hasher: RandomState,
}

impl LastSeen {
    pub fn new(registry: &Registry) -> Self {
        Self { times: registry.cache("client_ip_last_seen", 50_000), hasher: RandomState::new() }
    }

    /// True once in a while.
    fn is_news(&self, user: &str, token: &str, ip: &str, now_ms: i64) -> bool {
        let key = self.hasher.hash_one((user, token, ip)) as i64;
        if self.times.get(&key).is_some_and(|seen| now_ms - seen < GRANULARITY_MS) {
            return false;
        }
        self.times.put(key, now_ms);
        true
    }
}

impl Accounts {
    pub(crate) fn note_seen(&self, who: &Requester, c: &Credentials<'_>) {
        let operations = &self.cx.config.operations;
        let Some(ip) = c.ip else { return };
        if who.app_service.is_some() && !operations.track_appservice_user_ips {
            return;
        }
        let ip = ip.to_string();
        let device = match (&who.device_id, &who.app_service) {
            (None, Some(_)) => Some("dummy-device".to_owned()),
            (device, _) => device.clone(),
        };
        self.note(&who.authenticated_entity, &ip, device, c);
        if operations.track_puppeted_user_ips && who.user_id.as_str() != who.authenticated_entity {
            self.note(who.user_id.as_str(), &ip, who.device_id.clone(), c);
        }
    }

    fn note(&self, user_id: &str, ip: &str, device_id: Option<String>, c: &Credentials<'_>) {
        let now = self.cx.now_ms();
        if !self.inner.seen.is_news(user_id, c.token, ip, now) {
            return;
        }
        let sighting = Sighting {
            user_id: user_id.to_owned(),
            access_token: c.token.to_owned(),
            ip: ip.to_owned(),
            user_agent: c.user_agent.to_owned(),
            device_id,
            last_seen: now,
        };
        if self.cx.duties.background_tasks || self.cx.config.redis.is_none() {
            self.cx.store.note_sighting(sighting);
        } else {
            self.cx.bus.send(Command::UserIp(UserIp {
                user_id: sighting.user_id,
                access_token: sighting.access_token,
                ip: sighting.ip,
                user_agent: sighting.user_agent,
                device_id: sighting.device_id,
                last_seen_ms: sighting.last_seen,
            }));
        }
    }

    /// Writes what was seen every five seconds, and forgets what is old. Never returns; for the process that runs
    /// background tasks.
    pub async fn write_sightings(self) {
        let mut rounds = 0u32;
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.flush_sightings().await;
            rounds += 1;
            if rounds.is_multiple_of(12)
                && let Some(age) = self.cx.config.server.user_ips_max_age_ms
                && let Err(e) = self.cx.store.prune_sightings(self.cx.now_ms() - age as i64).await
            {
                warn!(self.cx.log, "cannot prune user_ips"; "error" => %e);
            }
        }
    }

    /// Writes what was seen since the last time; also to be called before the process ends.
    pub async fn flush_sightings(&self) {
        let seen = self.cx.store.take_sightings();
        if seen.is_empty() {
            return;
        }
        let mau = &self.cx.config.server.mau;
        if mau.limit_usage || mau.stats_only {
            let mut users: Vec<String> = seen.iter().map(|s| s.user_id.clone()).collect();
            users.sort_unstable();
            users.dedup();
            let limit = mau.limit_usage.then_some(mau.max_value as i64);
            if let Err(e) = self.cx.store.mark_monthly_active(&users, self.cx.now_ms(), limit).await {
                warn!(self.cx.log, "cannot count active users"; "error" => %e);
            }
        }
        if let Err(e) = self.cx.store.record_sightings(&seen).await {
            warn!(self.cx.log, "cannot write user_ips"; "error" => %e, "rows" => seen.len());
        }
    }
}
