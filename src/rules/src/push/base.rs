//! The rules every user has (spec: "Predefined rules", and those Synapse adds).

use super::PushRule;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::OnceLock;

/// A stretch of a ruleset in the order of evaluation.
pub(super) enum Slot {
    /// Indexes of base rules.
    Base(fn() -> Range<usize>),
    /// The user's own rules of a class.
    Own(i32),
}

pub(super) const ORDER: &[Slot] = &[
    Slot::Base(|| PREPEND_OVERRIDE),
    Slot::Own(5),
    Slot::Base(|| APPEND_OVERRIDE),
    Slot::Own(4),
    Slot::Base(|| APPEND_CONTENT),
    Slot::Own(6),
    Slot::Own(3),
    Slot::Own(2),
    Slot::Own(1),
    Slot::Base(|| APPEND_UNDERRIDE),
];

/// `.m.rule.master`, before everything.
pub const PREPEND_OVERRIDE: Range<usize> = 0..1;
/// After the user's override rules.
pub const APPEND_OVERRIDE: Range<usize> = 1..14;
/// After the user's content rules.
pub const APPEND_CONTENT: Range<usize> = 14..15;
/// Last of all.
pub const APPEND_UNDERRIDE: Range<usize> = 15..21;

fn rule(id: &str, class: i32, conditions: Value, actions: Value) -> PushRule {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    PushRule::new(id, class, &list(&conditions), &list(&actions), true)
}

fn over(id: &str, conditions: Value, actions: Value) -> PushRule {
    rule(&format!("global/override/{id}"), 5, conditions, actions)
}

fn under(id: &str, conditions: Value, actions: Value) -> PushRule {
    rule(&format!("global/underride/{id}"), 1, conditions, actions)
}

fn is(key: &str, pattern: &str) -> Value {
    json!({"kind": "event_match", "key": key, "pattern": pattern})
}

fn sound(name: &str) -> Value {
    json!({"set_tweak": "sound", "value": name})
}

/// What the actions of most rules are made of.
fn highlight() -> Value {
    json!({"set_tweak": "highlight"})
}

fn quiet() -> Value {
    json!({"set_tweak": "highlight", "value": false})
}

fn loud() -> Value {
    json!(["notify", highlight(), sound("default")])
}

fn make() -> Vec<PushRule> {
    let mut master = over(".m.rule.master", json!([]), json!([]));
    master.enabled = false;
    let user_name = rule(
        "global/content/.m.rule.contains_user_name",
        4,
        json!([{"kind": "event_match", "key": "content.body", "pattern_type": "user_localpart"}]),
        loud(),
    );
    [vec![master], overrides(), vec![user_name], underrides()].concat()
}

fn overrides() -> Vec<PushRule> {
    let (highlight, quiet) = (highlight(), quiet());
    let room_power = json!({"kind": "sender_notification_permission", "key": "room"});
    let room_mention = json!({"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": true});
    let me_mentioned =
        json!({"kind": "event_property_contains", "key": "content.m\\.mentions.user_ids", "value_type": "user_id"});
    let rtc = is("type", "org.matrix.msc4075.rtc.notification");
    let edit = json!({"kind": "event_property_is", "key": "content.m\\.relates_to.rel_type", "value": "m.replace"});
    vec![
        over(".m.rule.suppress_notices", json!([is("content.msgtype", "m.notice")]), json!([])),
        over(
            ".m.rule.invite_for_me",
            json!([
                is("type", "m.room.member"),
                is("content.membership", "invite"),
                {"kind": "event_match", "key": "state_key", "pattern_type": "user_id"}
            ]),
            json!(["notify", quiet, sound("default")]),
        ),
        over(".m.rule.member_event", json!([is("type", "m.room.member")]), json!([])),
        over(
            ".org.matrix.msc4075.rule.rtc.invite_for_me",
            json!([rtc, me_mentioned]),
            json!(["notify", sound("ring")]),
        ),
        over(
            ".org.matrix.msc4075.rule.rtc.invite_for_room",
            json!([rtc, room_mention, room_power]),
            json!(["notify", sound("ring")]),
        ),
        over(".m.rule.is_user_mention", json!([me_mentioned]), loud()),
        over(".m.rule.contains_display_name", json!([{"kind": "contains_display_name"}]), loud()),
        over(".m.rule.is_room_mention", json!([room_mention, room_power]), json!(["notify", highlight])),
        over(".m.rule.roomnotif", json!([room_power, is("content.body", "@room")]), json!(["notify", highlight])),
        over(
            ".m.rule.tombstone",
            json!([is("type", "m.room.tombstone"), is("state_key", "")]),
            json!(["notify", highlight]),
        ),
        over(".m.rule.reaction", json!([is("type", "m.reaction")]), json!([])),
        over(".m.rule.room.server_acl", json!([is("type", "m.room.server_acl"), is("state_key", "")]), json!([])),
        over(".m.rule.suppress_edits", json!([edit]), json!([])),
    ]
}

fn underrides() -> Vec<PushRule> {
    let (quiet, two) = (quiet(), json!({"kind": "room_member_count", "is": "2"}));
    vec![
        under(".m.rule.call", json!([is("type", "m.call.invite")]), json!(["notify", sound("ring"), quiet])),
        under(
            ".m.rule.encrypted_room_one_to_one",
            json!([is("type", "m.room.encrypted"), two]),
            json!(["notify", sound("default"), quiet]),
        ),
        under(
            ".m.rule.room_one_to_one",
            json!([is("type", "m.room.message"), two]),
            json!(["notify", sound("default"), quiet]),
        ),
        under(".m.rule.message", json!([is("type", "m.room.message")]), json!(["notify", quiet])),
        under(".m.rule.encrypted", json!([is("type", "m.room.encrypted")]), json!(["notify", quiet])),
        under(
            ".im.vector.jitsi",
            json!([is("type", "im.vector.modular.widgets"), is("content.type", "jitsi"), is("state_key", "*")]),
            json!(["notify", quiet]),
        ),
    ]
}

/// All base rules; the ranges of this module point into it.
pub fn base_rules() -> &'static [PushRule] {
    static RULES: OnceLock<Vec<PushRule>> = OnceLock::new();
    RULES.get_or_init(make)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_rules() {
        let rules = base_rules();
        assert_eq!(APPEND_UNDERRIDE.end, rules.len());
        assert!(APPEND_OVERRIDE.clone().all(|i| rules[i].class == 5));
        assert!(APPEND_CONTENT.clone().all(|i| rules[i].class == 4));
        assert!(APPEND_UNDERRIDE.clone().all(|i| rules[i].class == 1));
        assert!(rules.iter().all(|r| !r.conditions.contains(&super::super::Condition::Unknown)));
    }
}
