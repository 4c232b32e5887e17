//! Caches of accounts and of what belongs to them, under Synapse's names.

use crate::tokens::{AccessToken, TokenIds};
use crate::users::User;
use crate::{Cache, Registry};
use std::sync::Arc;

pub(crate) struct AccountCaches {
    /// Everything Synapse caches of `users` is forgotten along with this name.
    pub users: Cache<String, Option<Arc<User>>>,
    pub tokens: Cache<String, Arc<AccessToken>>,
    pub token_ids: TokenIds,
    pub limits: Cache<String, Option<(i64, i64)>>,
    pub rule_ids: crate::push_rules::RuleIds,
    pub sightings: crate::user_ips::Pending,
}

impl AccountCaches {
    pub fn new(registry: &Registry) -> Self {
        Self {
            users: registry.cache("get_user_by_id", 10_000),
            tokens: registry.cache("get_user_by_access_token", 20_000),
            token_ids: TokenIds::default(),
            limits: registry.cache("get_ratelimit_for_user", 10_000),
            rule_ids: Default::default(),
            sightings: Default::default(),
        }
    }
}
