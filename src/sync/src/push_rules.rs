//! Push rules as clients get them (`m.push_rules`).

use crate::Sync;
use rules::push::{Comparison, Condition, PushRule, base_rules};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use store::push_rules_stored::StoredPushRule;
use types::{OwnedUserId, Result};

const KINDS: [(i32, &str); 6] =
    [(5, "override"), (4, "content"), (6, "postcontent"), (3, "room"), (2, "sender"), (1, "underride")];

/// Rules that exist only where a feature is switched on.
const FEATURE_RULES: [(&str, &str); 1] = [("/.org.matrix.msc4075.", "msc4075_enabled")];

fn count(op: Comparison, n: u64) -> String {
    let sign = match op {
        Comparison::Equal => "",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    };
    format!("{sign}{n}")
}

/// A condition of one of the server's own rules, with the user's name where it stands for it.
fn condition(c: &Condition, user: &OwnedUserId) -> Option<Value> {
    Some(match c {
        Condition::EventMatch { key, pattern } => json!({"kind": "event_match", "key": key, "pattern": pattern}),
        Condition::EventMatchUser { key, localpart } => {
            let pattern = if *localpart { user.localpart() } else { user.as_str() };
            json!({"kind": "event_match", "key": key, "pattern": pattern})
        }
        Condition::PropertyIs { key, value } => json!({"kind": "event_property_is", "key": key, "value": value}),
        Condition::PropertyContains { key, value } => {
            json!({"kind": "event_property_contains", "key": key, "value": value})
        }
        Condition::PropertyContainsUser { key } => {
            json!({"kind": "event_property_contains", "key": key, "value": user})
        }
        Condition::ContainsDisplayName => json!({"kind": "contains_display_name"}),
        Condition::MemberCount { op, count: n } => json!({"kind": "room_member_count", "is": count(*op, *n)}),
        Condition::SenderPower { key } => json!({"kind": "sender_notification_permission", "key": key}),
        Condition::Unknown => return None,
    })
}

fn short(id: &str) -> &str {
    id.splitn(3, '/').last().unwrap_or(id)
}

/// One rule in its client form; content rules have a pattern, room and sender rules are named by it.
fn client_rule(
    id: &str,
    class: i32,
    conditions: Vec<Value>,
    actions: Vec<Value>,
    default: bool,
    enabled: bool,
) -> Option<Value> {
    let mut rule = Map::new();
    rule.insert("rule_id".into(), short(id).into());
    match class {
        6 | 5 | 1 => {
            rule.insert("conditions".into(), Value::Array(conditions));
        }
        4 => {
            rule.insert("pattern".into(), conditions.first()?.get("pattern")?.clone());
        }
        _ => {}
    }
    rule.insert("actions".into(), Value::Array(actions));
    rule.insert("default".into(), default.into());
    rule.insert("enabled".into(), enabled.into());
    Some(Value::Object(rule))
}

fn base_rule(
    rule: &PushRule,
    changed: Option<&StoredPushRule>,
    user: &OwnedUserId,
    enabled: &HashMap<String, bool>,
) -> Option<Value> {
    let conditions = rule.conditions.iter().filter_map(|c| condition(c, user)).collect();
    let actions = match changed {
        Some(stored) => stored.actions.clone(),
        None => rule.actions.iter().map(|a| a.to_json()).collect(),
    };
    let on = enabled.get(&rule.id).copied().unwrap_or(rule.enabled);
    client_rule(&rule.id, rule.class, conditions, actions, true, on)
}

/// All rules of a user, by kind, in the order of evaluation.
fn client_rules(
    user: &OwnedUserId,
    stored: &[StoredPushRule],
    enabled: &HashMap<String, bool>,
    has: impl Fn(&str) -> bool,
) -> Value {
    let is_on = |r: &&PushRule| FEATURE_RULES.iter().all(|(id, feature)| !r.id.contains(id) || has(feature));
    let base: Vec<&PushRule> = base_rules().iter().filter(is_on).collect();
    let changed = |id: &str| stored.iter().find(|r| r.id == id);
    let mut kinds = Map::new();
    for (class, kind) in KINDS {
        let of_class = base.iter().copied().filter(|r| r.class == class);
        let shown = |r: &PushRule| base_rule(r, changed(&r.id), user, enabled);
        let (first, last): (Vec<&PushRule>, Vec<&PushRule>) = of_class.partition(|r| r.id.ends_with("/.m.rule.master"));
        let own = stored.iter().filter(|r| r.class == class && !base.iter().any(|b| b.id == r.id));
        let own = own.filter_map(|r| {
            let on = enabled.get(&r.id).copied().unwrap_or(true);
            client_rule(&r.id, class, r.conditions.clone(), r.actions.clone(), false, on)
        });
        let list: Vec<Value> =
            first.into_iter().filter_map(shown).chain(own).chain(last.into_iter().filter_map(shown)).collect();
        kinds.insert(kind.into(), Value::Array(list));
    }
    json!({"global": kinds})
}

impl Sync {
    /// Content of `m.push_rules`.
    pub async fn push_rules(&self, user_id: &OwnedUserId) -> Result<Value> {
        let (stored, enabled) = self.cx.store.stored_push_rules(user_id.as_str()).await?;
        let experimental = &self.cx.config.experimental;
        Ok(client_rules(user_id, &stored, &enabled, |feature| experimental.on(feature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_rules_stand_between_master_and_the_rest() {
        let user = OwnedUserId::try_from("@ann:a").unwrap();
        let own = StoredPushRule {
            id: "global/override/mine".into(),
            class: 5,
            conditions: vec![json!({"kind": "event_match", "key": "type", "pattern": "X"})],
            actions: vec![json!("notify")],
        };
        let rules = client_rules(&user, &[own], &HashMap::from([("global/override/mine".into(), false)]), |_| false);
        let list = rules["global"]["override"].as_array().unwrap();
        assert_eq!(list[0]["rule_id"], ".m.rule.master");
        assert_eq!(
            list[1],
            json!({"rule_id": "mine", "default": false, "enabled": false, "actions": ["notify"],
            "conditions": [{"kind": "event_match", "key": "type", "pattern": "X"}]})
        );
        assert!(rules["global"]["room"].as_array().unwrap().is_empty());
    }
}
