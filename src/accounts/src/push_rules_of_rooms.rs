//! Push rules for a room that follow it when it is upgraded.

use crate::Accounts;
use config::StreamGroup;
use serde_json::{Map, Value, json};
use store::push_rules::{NewRule, Place};
use types::Result;

/// Whether a condition names the room.
fn names(condition: &Value, room_id: &str) -> bool {
    condition["key"] == "room_id" && condition["pattern"] == room_id
}

impl Accounts {
    /// Copies a user's rules for one room to another; rules that are switched off stay behind.
    pub async fn copy_push_rules(&self, user_id: &str, old_room: &str, new_room: &str) -> Result<()> {
        if !self.cx.duties.writes(StreamGroup::PushRules) {
            let writer = self.cx.owner(StreamGroup::PushRules, user_id);
            let args = [user_id, old_room, new_room];
            self.cx.peers.call(writer, "copy_push_rules", &args, false, Map::new()).await?;
            return Ok(());
        }
        let (rules, enabled) = self.cx.store.stored_push_rules(user_id).await?;
        let wanted = rules.into_iter().filter(|r| {
            enabled.get(&r.id).copied().unwrap_or(true) && r.conditions.iter().any(|c| names(c, old_room))
        });
        for mut rule in wanted {
            for condition in rule.conditions.iter_mut().filter(|c| c["key"] == "room_id") {
                condition["pattern"] = json!(new_room);
            }
            let scope = rule.id.rsplit_once('/').map_or("", |(scope, _)| scope);
            let new = NewRule {
                id: format!("{scope}/{new_room}"),
                class: rule.class as i16,
                conditions: serde_json::to_string(&rule.conditions)?,
                actions: serde_json::to_string(&rule.actions)?,
            };
            self.cx.store.add_push_rule(user_id, &new, &Place::First).await?;
        }
        Ok(())
    }
}
