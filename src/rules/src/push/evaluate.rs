//! One event against the rules of many users.

use super::rule::{Comparison, RuleRef};
use super::{Condition, Outcome, PushRule, Ruleset, base_rules, glob, glob_word};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use types::Pdu;

/// What rules ask about the room and the sender.
#[derive(Clone, Debug, Default)]
pub struct RoomFacts {
    pub joined_members: u64,
    /// Power of the sender; creators of v12 rooms have [`i64::MAX`].
    pub sender_power: i64,
    /// `notifications` of the power levels.
    pub notification_levels: HashMap<String, i64>,
}

/// Whose rules are evaluated.
pub struct Recipient<'a> {
    pub user_id: &'a str,
    pub display_name: Option<&'a str>,
}

/// Turns an event into `a.b.c` → simple value, or list of simple values (dots in keys are escaped).
pub fn flatten(event: &Pdu) -> HashMap<String, Value> {
    let mut flat = HashMap::with_capacity(16);
    flat.insert("type".to_owned(), event.kind.as_str().into());
    flat.insert("sender".to_owned(), event.sender.as_str().into());
    flat.insert("room_id".to_owned(), event.room_id.as_str().into());
    if let Some(key) = &event.state_key {
        flat.insert("state_key".to_owned(), key.as_str().into());
    }
    if let Ok(content) = serde_json::from_str::<Map<String, Value>>(event.content.get()) {
        let mut prefix = String::from("content");
        flatten_map(content, &mut prefix, &mut flat);
    }
    flat
}

fn simple(v: &Value) -> bool {
    matches!(v, Value::Null | Value::Bool(_) | Value::String(_)) || v.is_i64() || v.is_u64()
}

fn flatten_map(map: Map<String, Value>, prefix: &mut String, out: &mut HashMap<String, Value>) {
    for (key, value) in map {
        let before = prefix.len();
        prefix.push('.');
        prefix.push_str(&key.replace('\\', "\\\\").replace('.', "\\."));
        match value {
            Value::Object(inner) => flatten_map(inner, prefix, out),
            Value::Array(items) => {
                out.insert(prefix.clone(), Value::Array(items.into_iter().filter(simple).collect()));
            }
            v if simple(&v) => {
                out.insert(prefix.clone(), v);
            }
            _ => {}
        }
        prefix.truncate(before);
    }
}

/// An event ready to be matched. What base rules say regardless of the recipient is computed once.
pub struct Evaluator {
    flat: HashMap<String, Value>,
    /// Lower-cased `content.body`.
    body: String,
    has_mentions: bool,
    facts: RoomFacts,
    /// By base rule: whether the conditions that do not depend on the recipient hold.
    base: RefCell<Vec<Option<bool>>>,
}

/// Rules that events with `m.mentions` switch off.
const LEGACY_MENTIONS: [&str; 3] = [
    "global/override/.m.rule.contains_display_name",
    "global/content/.m.rule.contains_user_name",
    "global/override/.m.rule.roomnotif",
];

impl Evaluator {
    pub fn new(event: &Pdu, facts: RoomFacts) -> Self {
        let flat = flatten(event);
        let body = flat.get("content.body").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        let has_mentions = event.content.get().contains("\"m.mentions\"")
            && event.content_as::<Map<String, Value>>().is_ok_and(|c| c.contains_key("m.mentions"));
        Self { flat, body, has_mentions, facts, base: RefCell::new(vec![None; base_rules().len()]) }
    }

    /// The outcome for one user; None: not notified.
    pub fn run(&self, rules: &Ruleset, who: &Recipient<'_>) -> Option<Arc<Outcome>> {
        let base = base_rules();
        for rule in &rules.rules {
            let (rule, holds) = match rule {
                RuleRef::Base(i) => (&base[*i], self.base_holds(*i, &base[*i], who)),
                RuleRef::Own(r) => (&**r, r.conditions.iter().all(|c| self.matches(c, who))),
            };
            let off = self.has_mentions && LEGACY_MENTIONS.contains(&rule.id.as_str());
            if rule.enabled && holds && !off {
                return rule.outcome.clone();
            }
        }
        None
    }

    fn base_holds(&self, i: usize, rule: &PushRule, who: &Recipient<'_>) -> bool {
        if !rule.enabled {
            return false;
        }
        let known = self.base.borrow()[i];
        let common = known.unwrap_or_else(|| {
            let holds = rule.conditions.iter().filter(|c| !personal(c)).all(|c| self.matches(c, who));
            self.base.borrow_mut()[i] = Some(holds);
            holds
        });
        common && rule.conditions.iter().filter(|c| personal(c)).all(|c| self.matches(c, who))
    }

    fn matches(&self, condition: &Condition, who: &Recipient<'_>) -> bool {
        match condition {
            Condition::EventMatch { key, pattern } => self.event_match(key, pattern),
            Condition::EventMatchUser { key, localpart } => {
                let whole = who.user_id.to_lowercase();
                let pattern = if *localpart { localpart_of(&whole) } else { &whole };
                self.event_match(key, pattern)
            }
            Condition::PropertyIs { key, value } => self.flat.get(key) == Some(value),
            Condition::PropertyContains { key, value } => {
                self.flat.get(key).and_then(Value::as_array).is_some_and(|a| a.contains(value))
            }
            Condition::PropertyContainsUser { key } => {
                let list = self.flat.get(key).and_then(Value::as_array);
                list.is_some_and(|a| a.iter().any(|v| v.as_str() == Some(who.user_id)))
            }
            Condition::ContainsDisplayName => who
                .display_name
                .filter(|n| !n.is_empty() && !self.body.is_empty())
                .is_some_and(|n| glob_word(&n.to_lowercase(), &self.body)),
            Condition::MemberCount { op, count } => {
                let n = self.facts.joined_members;
                match op {
                    Comparison::Equal => n == *count,
                    Comparison::Less => n < *count,
                    Comparison::LessOrEqual => n <= *count,
                    Comparison::Greater => n > *count,
                    Comparison::GreaterOrEqual => n >= *count,
                }
            }
            Condition::SenderPower { key } => {
                self.facts.sender_power >= self.facts.notification_levels.get(key).copied().unwrap_or(50)
            }
            Condition::Unknown => false,
        }
    }

    fn event_match(&self, key: &str, pattern: &str) -> bool {
        if key == "content.body" {
            return !self.body.is_empty() && glob_word(pattern, &self.body);
        }
        match self.flat.get(key).and_then(Value::as_str) {
            Some(text) if text == pattern => true,
            Some(text) => glob(pattern, &text.to_lowercase()),
            None => false,
        }
    }
}

fn personal(c: &Condition) -> bool {
    matches!(
        c,
        Condition::EventMatchUser { .. } | Condition::PropertyContainsUser { .. } | Condition::ContainsDisplayName
    )
}

fn localpart_of(user_id: &str) -> &str {
    user_id.trim_start_matches('@').split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::StoredRule;
    use super::*;
    use ruma::RoomVersionId;
    use serde_json::json;

    fn event(kind: &str, content: Value) -> Pdu {
        let json =
            json!({"type": kind, "sender": "@a:s", "room_id": "!r:s", "content": content, "origin_server_ts": 1});
        Pdu::parse(&json.to_string(), "$e".try_into().unwrap(), &RoomVersionId::V10).unwrap()
    }

    fn run(event: &Pdu, members: u64, rules: &Ruleset, user: &str, name: Option<&str>) -> Option<Outcome> {
        let facts = RoomFacts { joined_members: members, ..RoomFacts::default() };
        let e = Evaluator::new(event, facts);
        e.run(rules, &Recipient { user_id: user, display_name: name }).map(|o| (*o).clone())
    }

    #[test]
    fn default_rules_notify_of_messages() {
        let rules = Ruleset::default_rules();
        let m = event("m.room.message", json!({"msgtype": "m.text", "body": "hello Bob Smith"}));
        let plain = run(&m, 5, &rules, "@x:s", None).unwrap();
        assert_eq!((plain.actions.as_str(), plain.highlight), ("", false));
        let direct = run(&m, 2, &rules, "@x:s", None).unwrap();
        assert!(direct.actions.contains("sound") && !direct.highlight);
        assert!(run(&m, 5, &rules, "@x:s", Some("bob smith")).unwrap().highlight);
        assert!(run(&m, 5, &rules, "@Hello:s", None).unwrap().highlight);
        let notice = event("m.room.message", json!({"msgtype": "m.notice", "body": "x"}));
        assert_eq!(run(&notice, 5, &rules, "@x:s", None), None);
        assert_eq!(run(&event("m.reaction", json!({})), 5, &rules, "@x:s", None), None);
    }

    #[test]
    fn mentions_replace_the_search_for_names() {
        let rules = Ruleset::default_rules();
        let m =
            event("m.room.message", json!({"msgtype": "m.text", "body": "bob", "m.mentions": {"user_ids": ["@y:s"]}}));
        assert!(!run(&m, 5, &rules, "@bob:s", Some("bob")).unwrap().highlight);
        assert!(run(&m, 5, &rules, "@y:s", None).unwrap().highlight);
    }

    #[test]
    fn own_rules_come_first_and_base_rules_can_be_changed() {
        let stored = |id: &str, class, conditions, actions: Value| StoredRule {
            id: id.into(),
            class,
            conditions,
            actions: actions.as_array().cloned().unwrap(),
        };
        let m = event("m.room.message", json!({"msgtype": "m.text", "body": "hi"}));
        let mute = json!({"kind": "event_match", "key": "room_id", "pattern": "!r:s"});
        let rules = Ruleset::new(vec![stored("global/override/x", 5, vec![mute], json!([]))], &HashMap::new());
        assert_eq!(run(&m, 5, &rules, "@x:s", None), None);
        let master = HashMap::from([("global/override/.m.rule.master".to_owned(), true)]);
        assert_eq!(run(&m, 5, &Ruleset::new(vec![], &master), "@x:s", None), None);
        let silent = stored("global/underride/.m.rule.message", 1, vec![], json!(["dont_notify"]));
        assert_eq!(run(&m, 5, &Ruleset::new(vec![silent], &HashMap::new()), "@x:s", None), None);
    }

    #[test]
    fn keys_are_flattened_and_escaped() {
        let flat = flatten(&event("x", json!({"a.b": {"c": 1}, "l": [1, {}, "s"], "f": 1.5})));
        assert_eq!(flat.get("content.a\\.b.c"), Some(&json!(1)));
        assert_eq!(flat.get("content.l"), Some(&json!([1, "s"])));
        assert!(!flat.contains_key("content.f"));
    }
}
