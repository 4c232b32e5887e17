//! Which local users an event notifies.

use crate::Rooms;
use crate::head::Head;
use rules::Relation;
use rules::push::{Evaluator, Recipient, RoomFacts, Ruleset, StoredRule};
use rules::relations::THREAD;
use std::sync::Arc;
use store::persist::PushAction;
use store::push_rules_of::UserRules;
use types::{Boxed, Pdu, Result};

/// Thread of events that are in none.
const MAIN: &str = "main";

impl Rooms {
    /// Rows for `event_push_actions`, and the thread they belong to.
    pub(crate) fn notifications<'a>(
        &'a self,
        head: &'a mut Head,
        event: &'a Pdu,
        relation: Option<&'a Relation>,
    ) -> Boxed<'a, Result<(Vec<PushAction>, String)>> {
        Box::pin(async move {
            if !self.cx.config.push.enabled {
                return Ok((Vec::new(), MAIN.to_owned()));
            }
            let mut users = recipients(head, event);
            // Bridges hear of events otherwise; nobody reads the notifications of their users.
            let services = &self.cx.config.app_services;
            users.retain(|(user, _)| !services.iter().any(|s| s.is_interested_in_user(user)));
            if users.is_empty() {
                return Ok((Vec::new(), MAIN.to_owned()));
            }
            let names: Vec<&str> = users.iter().map(|(u, _)| u.as_str()).collect();
            let rules = self.cx.store.push_rules_of(&names).await?;
            let levels = head.levels();
            let facts = RoomFacts {
                joined_members: head.members.joined.len() as u64,
                sender_power: levels.of(event.sender.as_str()),
                notification_levels: levels.notifications.clone(),
            };
            let evaluator = Evaluator::new(event, facts);
            let mut actions = Vec::new();
            for (user, display_name) in &users {
                let Some(rules) = rules.get(user) else { continue };
                let who = Recipient { user_id: user, display_name: display_name.as_deref() };
                if let Some(outcome) = evaluator.run(&compiled(rules), &who) {
                    actions.push(PushAction {
                        user_id: user.clone(),
                        actions: outcome.actions.clone(),
                        notify: true,
                        highlight: outcome.highlight,
                        unread: false,
                    });
                }
            }
            let thread = match relation {
                Some(r) if r.rel_type == THREAD => r.parent.clone(),
                Some(r) if !actions.is_empty() => {
                    self.cx.store.thread_of(&r.parent).await?.unwrap_or_else(|| MAIN.to_owned())
                }
                _ => MAIN.to_owned(),
            };
            Ok((actions, thread))
        })
    }
}

/// Local users whose rules are asked, with their display names. Membership events concern their target only.
fn recipients(head: &Head, event: &Pdu) -> Vec<(String, Option<String>)> {
    let is_member = event.kind == "m.room.member" && event.state_key.is_some();
    if !is_member {
        let local = head.members.local.iter();
        return local.filter(|(u, _)| u.as_str() != event.sender).map(|(u, n)| (u.clone(), n.clone())).collect();
    }
    let target = event.state_key.as_deref().unwrap_or_default();
    if target == event.sender || !target.ends_with(&format!(":{}", head.members.server)) {
        return Vec::new();
    }
    let known = head.members.local.get(target);
    if known.is_none() && event.membership().as_deref() != Some("invite") {
        return Vec::new();
    }
    let name = known.cloned().flatten().or_else(|| event.content_str("displayname"));
    vec![(target.to_owned(), name)]
}

/// The evaluable form of a user's rules, made once.
fn compiled(rules: &UserRules) -> Arc<Ruleset> {
    if rules.is_default() {
        return Ruleset::default_rules();
    }
    let made = rules.compiled.get_or_init(|| {
        let stored = rules.rules.iter().map(|r| StoredRule {
            id: r.id.clone(),
            class: r.class,
            conditions: r.conditions.clone(),
            actions: r.actions.clone(),
        });
        Arc::new(Ruleset::new(stored.collect(), &rules.enabled))
    });
    made.clone().downcast().unwrap_or_else(|_| Ruleset::default_rules())
}
