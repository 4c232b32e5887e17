//! What users of this server keep about a room that follows it when it is upgraded: tags, `m.direct`, push rules.

use crate::Accounts;
use config::StreamGroup;
use ruma::RoomId;
use serde_json::{Map, Value, json};
use slog::warn;
use std::time::Duration;
use store::db::is_away;
use store::push_rules::{NewRule, Place};
use types::Result;

/// Whether a condition names the room.
fn names(condition: &Value, room_id: &str) -> bool {
    condition["key"] == "room_id" && condition["pattern"] == room_id
}

/// Adds the new room wherever the old one is listed in an `m.direct`; None if there is nothing to add.
fn direct_with(mut direct: Value, old_room: &str, new_room: &str) -> Option<Value> {
    let mut changed = false;
    for rooms in direct.as_object_mut()?.values_mut().filter_map(Value::as_array_mut) {
        if rooms.iter().any(|r| r == old_room) && !rooms.iter().any(|r| r == new_room) {
            rooms.push(new_room.into());
            changed = true;
        }
    }
    changed.then_some(direct)
}

/// When what failed is tried again, each counted from the attempt before.
const AGAIN: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(3_600)];

impl Accounts {
    /// Gives a room that was made or entered just now what this server and its users keep about the room it replaces,
    /// if it replaces one. Never fails, since the room stays: what could not be done is tried again later.
    pub async fn follow_upgrade(&self, new_room: &RoomId) {
        if !self.followed(new_room).await {
            let (accounts, new_room) = (self.clone(), new_room.to_owned());
            tokio::spawn(async move {
                for pause in AGAIN {
                    tokio::time::sleep(pause).await;
                    if accounts.followed(&new_room).await {
                        return;
                    }
                }
            });
        }
    }

    async fn followed(&self, new_room: &RoomId) -> bool {
        let done = async {
            match self.rooms.succeed(new_room).await? {
                Some(old_room) => self.copy_kept(old_room.as_str(), new_room.as_str()).await,
                None => Ok(()),
            }
        };
        let done = done.await;
        if let Err(e) = &done {
            warn!(self.cx.log, "did not follow an upgraded room"; "room" => %new_room, "error" => %e);
        }
        done.is_ok()
    }

    /// Copies what the members of a room keep about it to its successor. Who cannot be helped is skipped, as in
    /// Synapse: the upgrade itself is done. 503 if that is because PostgreSQL or another process is away.
    async fn copy_kept(&self, old_room: &str, new_room: &str) -> Result<()> {
        let kept = self.cx.store.kept_about_room(old_room).await?;
        let mut copied = Ok(());
        let mut skipped = |what: &str, user: &str, done: Result<()>| {
            if let Err(e) = done {
                warn!(self.cx.log, "did not follow an upgraded room"; "what" => what, "user" => user, "error" => %e);
                if is_away(&e) {
                    copied = Err(e);
                }
            }
        };
        for (user, tag, content) in &kept.tags {
            skipped("tag", user, self.add_tag(user, new_room, tag, content).await);
        }
        for (user, direct) in kept.direct {
            if let Some(direct) = direct_with(direct, old_room, new_room) {
                skipped("m.direct", &user, self.set_account_data(&user, None, "m.direct", &direct).await);
            }
        }
        for user in &kept.with_push_rules {
            skipped("push rules", user, self.copy_push_rules(user, old_room, new_room).await);
        }
        copied
    }

    /// Copies a user's rules for one room to another; rules that are switched off stay behind.
    pub async fn copy_push_rules(&self, user_id: &str, old_room: &str, new_room: &str) -> Result<()> {
        if !self.cx.duties.writes(StreamGroup::PushRules) {
            let writer = self.cx.owner(StreamGroup::PushRules, user_id);
            let args = [user_id, old_room, new_room];
            self.cx.peers.call(writer, "copy_push_rules", &args, false, Map::new()).await?;
            return Ok(());
        }
        let (rules, enabled) = self.cx.store.stored_push_rules(user_id).await?;
        let wanted = rules
            .into_iter()
            .filter(|r| enabled.get(&r.id).copied().unwrap_or(true) && r.conditions.iter().any(|c| names(c, old_room)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_room_is_as_direct_as_the_old_one() {
        let direct = json!({"@a:s": ["!old:s", "!x:s"], "@b:s": ["!y:s"], "@odd:s": 1});
        let with = direct_with(direct.clone(), "!old:s", "!new").unwrap();
        assert_eq!(with, json!({"@a:s": ["!old:s", "!x:s", "!new"], "@b:s": ["!y:s"], "@odd:s": 1}));
        assert_eq!(direct_with(with, "!old:s", "!new"), None);
        assert_eq!(direct_with(direct, "!other:s", "!new"), None);
        assert_eq!(direct_with(json!([]), "!old:s", "!new"), None);
    }
}
