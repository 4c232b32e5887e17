//! Replacing a room by one of another version (spec: "Room upgrades").

use crate::access::CurrentEvents;
use crate::new_room::{InitialState, Wanted};
use crate::{Rooms, Template, power};
use ruma::{OwnedRoomId, RoomId, RoomVersionId, UserId};
use serde_json::{Map, Value, json};
use types::{Error, Pdu, Requester, Result, json::raw, room_version};

/// State (with an empty state key) that the new room begins with.
const COPIED: [&str; 9] = [
    "m.room.join_rules",
    "m.room.name",
    "m.room.topic",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.power_levels",
];

/// How often an id is drawn for a room that must fall to this process.
const DRAWS: u32 = 2_000;

/// The room that is replaced.
struct Old {
    room_id: OwnedRoomId,
    is_public: bool,
    state: CurrentEvents,
    /// `m.room.power_levels` with numbers for all levels.
    levels: Map<String, Value>,
}

impl Old {
    fn event(&self, kind: &str) -> Option<&Pdu> {
        self.state.get(&(kind.to_owned(), String::new())).map(|e| &**e)
    }

    fn content(&self, kind: &str) -> Option<Map<String, Value>> {
        self.event(kind)?.content_as().ok()
    }
}

impl Rooms {
    /// Makes the successor of a room, says so in the old one and moves its aliases; the new room's id.
    pub async fn upgrade(
        &self,
        who: &Requester,
        room_id: &RoomId,
        version: &RoomVersionId,
        additional_creators: Option<Vec<String>>,
    ) -> Result<OwnedRoomId> {
        let old = self.old_room(who, room_id).await?;
        let rules = room_version::rules(version).ok_or_else(|| Error::bad_request("Unknown room version"))?;
        let privileged = rules.authorization.explicitly_privilege_room_creators;
        let mut creators = additional_creators.filter(|_| privileged).unwrap_or_default();
        let mut wanted = Wanted {
            room_version: Some(version.as_str().into()),
            preset: Some("private_chat".into()),
            creation_content: create_content(&old, &creators)?,
            visibility: Some(if old.is_public { "public" } else { "private" }.into()),
            ..Wanted::default()
        };
        creators.push(who.user_id.to_string());
        let hidden: &[String] = if privileged { &creators } else { &[] };
        let levels = without_users(old.levels.clone(), hidden);
        wanted.initial_state = self.initial_state(&old, &who.user_id, &levels, privileged);
        let new_room = if rules.authorization.room_create_event_id_as_room_id {
            // Its id follows from its create event, which therefore cannot name the tombstone.
            let new_room = self.create_room(who, wanted).await?;
            self.tombstone(who, &old, &new_room).await?;
            new_room
        } else {
            let new_room = self.own_room_id()?;
            let tombstone = self.tombstone(who, &old, &new_room).await?;
            wanted.creation_content["predecessor"]["event_id"] = tombstone.as_str().into();
            wanted.room_id = Some(new_room);
            self.create_room(who, wanted).await?
        };
        self.move_in(who, &old, &new_room, levels).await?;
        Ok(new_room)
    }

    /// Gives a room that this server has just entered the aliases here, and the place in the public directory, of the
    /// room it replaces; that room's id. Both stay where they are if whoever made the new room could not have closed
    /// the old one: anybody may claim a predecessor.
    pub async fn succeed(&self, new_room: &RoomId) -> Result<Option<OwnedRoomId>> {
        let Some(create) = self.current_event(new_room, "m.room.create", "").await? else { return Ok(None) };
        let content: Map<String, Value> = create.content_as().unwrap_or_default();
        let old_room = content.get("predecessor").and_then(|p| p.get("room_id")).and_then(Value::as_str);
        let Some(old_room) = old_room.and_then(|id| OwnedRoomId::try_from(id).ok()) else { return Ok(None) };
        let state = self.current_events(&old_room, &power::KEYS).await?;
        let levels = power::Levels::of(&state);
        if state.is_empty() || levels.of_user(&create.sender) < levels.to_send_state("m.room.tombstone") {
            return Ok(Some(old_room));
        }
        let store = &self.cx.store;
        if store.room(old_room.as_str()).await?.is_some_and(|r| r.is_public) {
            // The old one last: while it is listed, another attempt knows that the new one is to be.
            store.set_public(new_room.as_str(), true).await?;
            store.set_public(old_room.as_str(), false).await?;
        }
        store.move_aliases(old_room.as_str(), new_room.as_str(), None).await?;
        Ok(Some(old_room))
    }

    async fn old_room(&self, who: &Requester, room_id: &RoomId) -> Result<Old> {
        let row = self.cx.store.room(room_id.as_str()).await?;
        let row = row.ok_or_else(|| Error::not_found(format!("Unknown room id {room_id}")))?;
        self.check_in_room(&who.user_id, room_id, false).await?;
        let keys: Vec<(&str, &str)> =
            COPIED.iter().map(|k| (*k, "")).chain([("m.room.create", ""), ("m.room.canonical_alias", "")]).collect();
        let mut state = self.current_events(room_id, &keys).await?;
        let ranks = power::Levels::of(&state);
        if ranks.of_user(&who.user_id) < ranks.to_send_state("m.room.tombstone") {
            return Err(Error::forbidden(
                "You don't have permission to upgrade the room: it takes the power to send m.room.tombstone",
            ));
        }
        let children = self.space_children(room_id, &state).await?;
        state.extend(children);
        let old = Old { room_id: room_id.to_owned(), is_public: row.is_public, state, levels: Map::new() };
        let levels = old.content("m.room.power_levels").unwrap_or_default();
        Ok(Old { levels: levels.into_iter().map(|(k, v)| (k, numbers(v))).collect(), ..old })
    }

    /// `m.space.child` events, if the room is a space.
    async fn space_children(&self, room_id: &RoomId, state: &CurrentEvents) -> Result<CurrentEvents> {
        let create = state.get(&("m.room.create".to_owned(), String::new()));
        if create.and_then(|e| e.content_str("type")).as_deref() != Some("m.space") {
            return Ok(CurrentEvents::new());
        }
        let states = self.cx.store.current_states(&[room_id.as_str()]).await?;
        let children = states.values().flat_map(|s| s.iter()).filter(|((kind, _), _)| kind == "m.space.child");
        let ids: Vec<_> = children.map(|(_, id)| id).collect();
        Ok(crate::access::by_key(self.cx.store.events(&ids).await?.into_values()))
    }

    /// What the new room begins with; whoever upgrades may do all of it.
    fn initial_state(
        &self,
        old: &Old,
        user_id: &UserId,
        levels: &Map<String, Value>,
        privileged: bool,
    ) -> Vec<InitialState> {
        let mut levels = levels.clone();
        if !privileged {
            raise(&mut levels, user_id);
        }
        let mut state =
            vec![InitialState { kind: "m.room.power_levels".into(), state_key: String::new(), content: levels }];
        for kind in COPIED.iter().filter(|k| **k != "m.room.power_levels") {
            if let Some(content) = old.content(kind) {
                state.push(InitialState { kind: (*kind).into(), state_key: String::new(), content });
            }
        }
        for ((kind, key), event) in old.state.iter().filter(|((kind, _), _)| kind == "m.space.child") {
            let content: Map<String, Value> = event.content_as().unwrap_or_default();
            if !content.is_empty() {
                state.push(InitialState { kind: kind.clone(), state_key: key.clone(), content });
            }
        }
        state
    }

    fn own_room_id(&self) -> Result<OwnedRoomId> {
        for _ in 0..DRAWS {
            let id = self.new_room_id()?;
            if self.is_mine(&id) {
                return Ok(id);
            }
        }
        Err(Error::unavailable("This process writes no rooms"))
    }

    async fn tombstone(&self, who: &Requester, old: &Old, new_room: &RoomId) -> Result<ruma::OwnedEventId> {
        let content = json!({"body": "This room has been replaced", "replacement_room": new_room});
        let template = Template::new(who.user_id.clone(), "m.room.tombstone", raw(&content)?).state("");
        Ok(self.send(who, &old.room_id, template).await?.event_id)
    }

    /// Bans, directory, aliases and power levels, once both rooms point to each other.
    async fn move_in(&self, who: &Requester, old: &Old, new_room: &RoomId, levels: Map<String, Value>) -> Result<()> {
        self.copy_bans(who, old, new_room).await?;
        let store = &self.cx.store;
        store.move_aliases(old.room_id.as_str(), new_room.as_str(), Some(who.user_id.as_str())).await?;
        let state = |kind: &str, content: &Map<String, Value>| -> Result<Template> {
            Ok(Template::new(who.user_id.clone(), kind, raw(content)?).state(""))
        };
        if let Some(alias) = old.content("m.room.canonical_alias").filter(|c| !c.is_empty()) {
            self.try_send(who, &old.room_id, state("m.room.canonical_alias", &Map::new())?).await?;
            self.try_send(who, new_room, state("m.room.canonical_alias", &alias)?).await?;
        }
        if old.is_public {
            store.set_public(old.room_id.as_str(), false).await?;
        }
        if !old.levels.is_empty() {
            if let Some(quiet) = quieted(&old.levels) {
                self.try_send(who, &old.room_id, state("m.room.power_levels", &quiet)?).await?;
            }
            self.try_send(who, new_room, state("m.room.power_levels", &levels)?).await?;
        }
        Ok(())
    }

    /// The upgrade is done even if the user lacks the power for this part of it.
    async fn try_send(&self, who: &Requester, room_id: &RoomId, template: Template) -> Result<()> {
        match self.send(who, room_id, template).await {
            Err(e) if e.status() == 403 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn copy_bans(&self, who: &Requester, old: &Old, new_room: &RoomId) -> Result<()> {
        let bans = self.cx.store.bans_in(old.room_id.as_str()).await?;
        let events = self.cx.store.events_in_order(&bans).await?;
        let templates: Vec<Template> = events
            .iter()
            .filter_map(|e| {
                let template = Template::new(who.user_id.clone(), "m.room.member", e.content.clone());
                Some(template.state(e.state_key.as_deref()?))
            })
            .collect();
        if templates.is_empty() {
            return Ok(());
        }
        self.send_many(who, new_room, templates).await.map(|_| ())
    }
}

fn create_content(old: &Old, creators: &[String]) -> Result<Map<String, Value>> {
    let create = old.content("m.room.create").ok_or_else(|| Error::not_found("The room has no create event"))?;
    let mut content = Map::new();
    content.insert("predecessor".into(), json!({"room_id": old.room_id}));
    if !creators.is_empty() {
        content.insert("additional_creators".into(), json!(creators));
    }
    if create.get("m.federate") == Some(&Value::Bool(false)) {
        content.insert("m.federate".into(), false.into());
    }
    if let Some(kind) = create.get("type") {
        content.insert("type".into(), kind.clone());
    }
    Ok(content)
}

/// Levels of old rooms may be strings; new rooms want numbers.
fn numbers(value: Value) -> Value {
    match value {
        Value::String(s) => s.trim().parse::<i64>().map_or(Value::String(s), Value::from),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, numbers(v))).collect()),
        other => other,
    }
}

/// Creators that outrank power levels may not be given one.
fn without_users(mut levels: Map<String, Value>, hidden: &[String]) -> Map<String, Value> {
    if let Some(Value::Object(users)) = levels.get_mut("users") {
        users.retain(|user, _| !hidden.contains(user));
    }
    levels
}

fn int(levels: &Map<String, Value>, key: &str, default: i64) -> i64 {
    levels.get(key).and_then(Value::as_i64).unwrap_or(default)
}

/// Gives the user enough power to write all the initial state and to ban.
fn raise(levels: &mut Map<String, Value>, user_id: &UserId) {
    let events = levels.get("events").and_then(Value::as_object);
    let most = events.into_iter().flat_map(|e| e.values()).filter_map(Value::as_i64).max().unwrap_or(0);
    let needed = most.max(int(levels, "state_default", 50)).max(int(levels, "ban", 50));
    let default = int(levels, "users_default", 0);
    let users = levels.entry("users").or_insert_with(|| json!({}));
    let has = users.get(user_id.as_str()).and_then(Value::as_i64).unwrap_or(default);
    if let (true, Value::Object(users)) = (has < needed, users) {
        users.insert(user_id.to_string(), needed.into());
    }
}

/// Power levels that let only moderators speak and invite; None if it is so already.
fn quieted(levels: &Map<String, Value>) -> Option<Map<String, Value>> {
    let least = (int(levels, "users_default", 0) + 1).max(50);
    let mut quiet = levels.clone();
    for key in ["invite", "events_default"] {
        if int(levels, key, 0) < least {
            quiet.insert(key.into(), least.into());
        }
    }
    (quiet != *levels).then_some(quiet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(v: Value) -> Map<String, Value> {
        v.as_object().cloned().unwrap()
    }

    #[test]
    fn the_old_room_falls_quiet_above_its_default_level() {
        assert_eq!(quieted(&map(json!({"users_default": 60}))).unwrap()["events_default"], 61);
        assert_eq!(quieted(&map(json!({}))).unwrap()["invite"], 50);
        assert!(quieted(&map(json!({"invite": 50, "events_default": 75}))).is_none());
    }

    #[test]
    fn who_upgrades_is_raised_as_far_as_the_new_state_needs() {
        let mut levels = map(json!({"events": {"m.room.tombstone": 70, "x": 90}, "users": {"@a:b": 70}}));
        raise(&mut levels, ruma::user_id!("@a:b"));
        assert_eq!(levels["users"]["@a:b"], 90);
        let mut enough = map(json!({"users": {"@a:b": 100}}));
        raise(&mut enough, ruma::user_id!("@a:b"));
        assert_eq!(enough, map(json!({"users": {"@a:b": 100}})));
    }

    #[test]
    fn levels_become_numbers_and_creators_lose_theirs() {
        assert_eq!(numbers(json!({"a": "5", "b": {"c": "7"}, "d": "x"})), json!({"a": 5, "b": {"c": 7}, "d": "x"}));
        let left = without_users(map(json!({"users": {"@a:b": 100, "@c:b": 50}})), &["@a:b".to_owned()]);
        assert_eq!(left["users"], json!({"@c:b": 50}));
    }
}
