//! Rules as values: parsed once, evaluated often.

use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// What to do; `dont_notify` and `coalesce` mean nothing and are dropped on parsing.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Notify,
    /// A tweak object as it is sent to pushers.
    Tweak(Map<String, Value>),
    Unknown(Value),
}

/// A condition of a rule, ready to be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Glob on a flattened key, lower-cased; words for `content.body`.
    EventMatch {
        key: String,
        pattern: String,
    },
    /// As [`Condition::EventMatch`] with the recipient's id or localpart as the pattern.
    EventMatchUser {
        key: String,
        localpart: bool,
    },
    PropertyIs {
        key: String,
        value: Value,
    },
    PropertyContains {
        key: String,
        value: Value,
    },
    /// The array holds the recipient's id.
    PropertyContainsUser {
        key: String,
    },
    ContainsDisplayName,
    MemberCount {
        op: Comparison,
        count: u64,
    },
    SenderPower {
        key: String,
    },
    /// Never matches.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads a condition as clients write it.
    pub fn parse(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let parsed = match value.get("kind").and_then(Value::as_str) {
            Some("event_match") => match (text("key"), text("pattern"), text("pattern_type")) {
                (Some(key), Some(p), _) => Some(Self::EventMatch { key, pattern: p.to_lowercase() }),
                (Some(key), None, Some(t)) => Some(Self::EventMatchUser { key, localpart: t == "user_localpart" }),
                _ => None,
            },
            Some("event_property_is") => {
                text("key").zip(value.get("value").cloned()).map(|(key, value)| Self::PropertyIs { key, value })
            }
            Some("event_property_contains") => match (text("key"), value.get("value").cloned()) {
                (Some(key), Some(value)) => Some(Self::PropertyContains { key, value }),
                (Some(key), None) if value.get("value_type").is_some() => Some(Self::PropertyContainsUser { key }),
                _ => None,
            },
            Some("contains_display_name") => Some(Self::ContainsDisplayName),
            Some("room_member_count") => text("is").and_then(|is| member_count(&is)),
            Some("sender_notification_permission") => text("key").map(|key| Self::SenderPower { key }),
            _ => None,
        };
        parsed.unwrap_or(Self::Unknown)
    }
}

fn member_count(is: &str) -> Option<Condition> {
    let digits = is.find(|c: char| c.is_ascii_digit())?;
    let op = match &is[..digits] {
        "" | "==" | "=" => Comparison::Equal,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    };
    Some(Condition::MemberCount { op, count: is[digits..].parse().ok()? })
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct PushRule {
    /// `global/override/.m.rule.master` and the like, as stored.
    pub id: String,
    /// 6 postcontent, 5 override, 4 content, 3 room, 2 sender, 1 underride.
    pub class: i32,
    pub conditions: Vec<Condition>,
    pub actions: Vec<Action>,
    /// One of the server's own rules.
    pub default: bool,
    pub enabled: bool,
    /// What the actions come to, ready for the database.
    pub outcome: Option<Arc<Outcome>>,
}

impl PushRule {
    /// Reads a rule from its JSON parts.
    pub fn new(id: &str, class: i32, conditions: &[Value], actions: &[Value], default: bool) -> Self {
        let actions: Vec<Action> = actions
            .iter()
            .filter(|a| *a != "dont_notify" && *a != "coalesce")
            .map(|a| match a {
                Value::String(s) if s == "notify" => Action::Notify,
                Value::Object(map) => Action::Tweak(map.clone()),
                other => Action::Unknown(other.clone()),
            })
            .collect();
        let outcome = Outcome::of(&actions).map(Arc::new);
        let conditions = conditions.iter().map(Condition::parse).collect();
        Self { id: id.to_owned(), class, conditions, actions, default, enabled: true, outcome }
    }
}

/// A notification, as `event_push_actions` holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// JSON of the actions; empty for the commonest ones.
    pub actions: String,
    pub highlight: bool,
}

impl Outcome {
    /// None if the actions do not notify.
    fn of(actions: &[Action]) -> Option<Self> {
        if !actions.contains(&Action::Notify) {
            return None;
        }
        let highlight = actions.iter().any(|a| match a {
            Action::Tweak(t) => {
                t.get("set_tweak").is_some_and(|v| v == "highlight") && t.get("value").is_none_or(|v| v == &json!(true))
            }
            _ => false,
        });
        let value: Vec<Value> = actions.iter().map(Action::to_json).collect();
        let common = if highlight {
            json!(["notify", {"set_tweak": "sound", "value": "default"}, {"set_tweak": "highlight"}])
        } else {
            json!(["notify", {"set_tweak": "highlight", "value": false}])
        };
        let value = Value::Array(value);
        let actions = if value == common { String::new() } else { value.to_string() };
        Some(Self { actions, highlight })
    }
}

impl Action {
    pub fn to_json(&self) -> Value {
        match self {
            Action::Notify => json!("notify"),
            Action::Tweak(t) => Value::Object(t.clone()),
            Action::Unknown(v) => v.clone(),
        }
    }
}

/// A row of `push_rules`.
pub struct StoredRule {
    pub id: String,
    pub class: i32,
    pub conditions: Vec<Value>,
    pub actions: Vec<Value>,
}

/// A user's rules in the order of evaluation, the server's own among them.
#[derive(Clone, Debug)]
pub struct Ruleset {
    pub rules: Vec<RuleRef>,
}

/// Own rules are shared by everybody and known by their place in [`super::base_rules`].
#[derive(Clone, Debug)]
pub enum RuleRef {
    Base(usize),
    Own(Arc<PushRule>),
}

impl Ruleset {
    /// `stored`: the user's rules, highest priority first (class, then priority). A stored rule with the id of
    /// a base rule replaces that rule's actions. `enabled`: `push_rules_enable`.
    pub fn new(stored: Vec<StoredRule>, enabled: &HashMap<String, bool>) -> Self {
        let base = super::base_rules();
        let (changed, own): (Vec<_>, Vec<_>) = stored.into_iter().partition(|r| base.iter().any(|b| b.id == r.id));
        let changed: HashMap<String, StoredRule> = changed.into_iter().map(|r| (r.id.clone(), r)).collect();
        let own: Vec<PushRule> = own
            .iter()
            .map(|r| {
                let mut rule = PushRule::new(&r.id, r.class, &r.conditions, &r.actions, false);
                rule.enabled = enabled.get(&r.id).copied().unwrap_or(true);
                rule
            })
            .collect();
        let mut rules = Vec::with_capacity(base.len() + own.len());
        for slot in super::base::ORDER {
            match slot {
                super::base::Slot::Own(class) => {
                    rules.extend(own.iter().filter(|r| r.class == *class).map(|r| RuleRef::Own(Arc::new(r.clone()))));
                }
                super::base::Slot::Base(range) => rules.extend(range().map(|i| {
                    let rule = &base[i];
                    let on = enabled.get(&rule.id).copied().unwrap_or(rule.enabled);
                    match changed.get(&rule.id) {
                        None if on == rule.enabled => RuleRef::Base(i),
                        changed => {
                            let mut own = match changed {
                                Some(c) => PushRule {
                                    conditions: rule.conditions.clone(),
                                    ..PushRule::new(&rule.id, rule.class, &[], &c.actions, true)
                                },
                                None => rule.clone(),
                            };
                            own.enabled = on;
                            RuleRef::Own(Arc::new(own))
                        }
                    }
                })),
            }
        }
        Self { rules }
    }

    /// The rules of a user who never touched any.
    pub fn default_rules() -> Arc<Self> {
        static DEFAULT: std::sync::OnceLock<Arc<Ruleset>> = std::sync::OnceLock::new();
        DEFAULT.get_or_init(|| Arc::new(Self::new(Vec::new(), &HashMap::new()))).clone()
    }

    /// The rules themselves, in the order of evaluation.
    pub fn iter(&self) -> impl Iterator<Item = &PushRule> {
        let base = super::base_rules();
        self.rules.iter().map(move |r| match r {
            RuleRef::Base(i) => &base[*i],
            RuleRef::Own(rule) => &**rule,
        })
    }
}
