//! Push rules of one user as the table holds them.

use crate::Store;
use serde_json::Value;
use std::collections::HashMap;
use types::Result;

/// A row of `push_rules`.
#[derive(Clone, Debug)]
pub struct StoredPushRule {
    /// `global/<kind>/<id>`
    pub id: String,
    /// 5 override, 4 content, 3 room, 2 sender, 1 underride.
    pub class: i32,
    pub conditions: Vec<Value>,
    pub actions: Vec<Value>,
}

impl Store {
    /// A user's own and changed rules, highest priority first, and which rules are switched on or off.
    pub async fn stored_push_rules(&self, user_id: &str) -> Result<(Vec<StoredPushRule>, HashMap<String, bool>)> {
        let rules = "SELECT rule_id, priority_class::int, conditions, actions FROM push_rules
                     WHERE user_name = $1 ORDER BY priority_class DESC, priority DESC";
        let enabled = "SELECT rule_id, enabled::int FROM push_rules_enable WHERE user_name = $1";
        let params: crate::Params<'_> = &[&user_id];
        let (rules, enabled) = futures::try_join!(self.db.query(rules, params), self.db.query(enabled, params))?;
        let parse = |r: &tokio_postgres::Row| {
            Ok(StoredPushRule {
                id: r.get(0),
                class: r.get(1),
                conditions: serde_json::from_str(r.get(2))?,
                actions: serde_json::from_str(r.get(3))?,
            })
        };
        let rules = rules.iter().map(parse).collect::<Result<_>>()?;
        let is_on = |r: &tokio_postgres::Row| (r.get(0), r.get::<_, Option<i32>>(1).unwrap_or(1) != 0);
        Ok((rules, enabled.iter().map(is_on).collect()))
    }

    /// Whether a user's push rules changed after a position.
    pub async fn push_rules_changed(&self, user_id: &str, since: i64) -> Result<bool> {
        if !self.changed.push_rules.since(user_id, since) {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM push_rules_stream WHERE user_id = $1 AND stream_id > $2 LIMIT 1";
        Ok(self.db.query_opt(sql, &[&user_id, &since]).await?.is_some())
    }
}
