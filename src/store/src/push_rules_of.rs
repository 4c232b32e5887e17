//! Push rules of many users at once, as the writer of a room needs them: `push_rules`, `push_rules_enable`.

use crate::Store;
use serde_json::Value;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use types::{Boxed, Result};

/// A row of `push_rules`.
#[derive(Clone, Debug)]
pub struct RuleRow {
    pub id: String,
    pub class: i32,
    pub conditions: Vec<Value>,
    pub actions: Vec<Value>,
}

/// What a user changed of the default rules.
#[derive(Default)]
pub struct UserRules {
    /// Highest priority first.
    pub rules: Vec<RuleRow>,
    pub enabled: HashMap<String, bool>,
    /// The form rules are evaluated in; made by whoever evaluates them, and dropped with the entry.
    pub compiled: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl UserRules {
    /// Nothing was changed.
    pub fn is_default(&self) -> bool {
        self.rules.is_empty() && self.enabled.is_empty()
    }
}

fn list(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_default()
}

impl Store {
    /// Rules of users; each of them has an entry.
    pub fn push_rules_of<'a>(&'a self, users: &'a [&'a str]) -> Boxed<'a, Result<HashMap<String, Arc<UserRules>>>> {
        Box::pin(async move {
            let cache = &self.writer_caches.push_rules;
            let mut found = HashMap::with_capacity(users.len());
            let mut missing = Vec::new();
            for user in users {
                match cache.get(*user) {
                    Some(rules) => {
                        found.insert((*user).to_owned(), rules);
                    }
                    None => missing.push((*user, cache.stamp(*user))),
                }
            }
            if missing.is_empty() {
                return Ok(found);
            }
            let names: Vec<&str> = missing.iter().map(|(u, _)| *u).collect();
            let mut loaded = self.load_push_rules(&names).await?;
            for (user, stamp) in missing {
                let rules = Arc::new(loaded.remove(user).unwrap_or_default());
                cache.put_since(stamp, user.to_owned(), rules.clone());
                found.insert(user.to_owned(), rules);
            }
            Ok(found)
        })
    }

    async fn load_push_rules(&self, users: &[&str]) -> Result<HashMap<String, UserRules>> {
        let rules = "SELECT user_name, rule_id, priority_class::int, conditions, actions FROM push_rules
             WHERE user_name = ANY($1) ORDER BY priority_class DESC, priority DESC";
        let enabled = "SELECT user_name, rule_id, enabled::int FROM push_rules_enable WHERE user_name = ANY($1)";
        let params: crate::Params<'_> = &[&users];
        let (rules, enabled) = futures::try_join!(self.db.query(rules, params), self.db.query(enabled, params))?;
        let mut out: HashMap<String, UserRules> = HashMap::new();
        for r in &rules {
            out.entry(r.get(0)).or_default().rules.push(RuleRow {
                id: r.get(1),
                class: r.get(2),
                conditions: list(r.get(3)),
                actions: list(r.get(4)),
            });
        }
        for r in &enabled {
            let on: Option<i32> = r.get(2);
            out.entry(r.get(0)).or_default().enabled.insert(r.get(1), on.unwrap_or(1) != 0);
        }
        Ok(out)
    }
}
