//! `/createRoom`: from what a client wants to the first events of a room.

use crate::address::Address;
use crate::membership::{Action, Change};
use crate::{NewRoom, Rooms, Sent, Template, aliases};
use config::registration::Preset;
use ruma::room_version_rules::RoomVersionRules;
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result, json::raw, room_version};

/// Body of `/createRoom`. Keys with another type than the specification's are refused.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    pub room_version: Option<Value>,
    pub room_alias_name: Option<String>,
    pub invite: Vec<String>,
    pub invite_3pid: Vec<Map<String, Value>>,
    pub visibility: Option<String>,
    pub preset: Option<String>,
    pub creation_content: Map<String, Value>,
    pub initial_state: Vec<InitialState>,
    pub power_level_content_override: Option<Map<String, Value>>,
    pub is_direct: Option<bool>,
    /// For rooms made by the server itself.
    #[serde(skip)]
    pub room_id: Option<OwnedRoomId>,
    #[serde(deserialize_with = "present")]
    pub name: Option<Value>,
    #[serde(deserialize_with = "present")]
    pub topic: Option<Value>,
}

/// Keeps `null` apart from an absent key.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

/// A state event to begin with.
#[derive(Clone, Debug, Deserialize)]
pub struct InitialState {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub state_key: String,
    pub content: Map<String, Value>,
}

/// What a preset stands for.
struct Rules {
    preset: Preset,
    join_rule: &'static str,
    guests: bool,
    invitees_have_power: bool,
}

impl Rules {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "private_chat" => {
                Self { preset: Preset::PrivateChat, join_rule: "invite", guests: true, invitees_have_power: false }
            }
            "trusted_private_chat" => Self {
                preset: Preset::TrustedPrivateChat,
                join_rule: "invite",
                guests: true,
                invitees_have_power: true,
            },
            "public_chat" => {
                Self { preset: Preset::PublicChat, join_rule: "public", guests: false, invitees_have_power: false }
            }
            _ => return None,
        })
    }
}

/// A checked request.
struct Plan {
    version: RoomVersionId,
    rules: Rules,
    version_rules: RoomVersionRules,
    alias: Option<OwnedRoomAliasId>,
    invite: Vec<OwnedUserId>,
    is_public: bool,
    creator: OwnedUserId,
}

impl Plan {
    /// v12 and later: creators stand above all power levels.
    fn creators_have_power(&self) -> bool {
        self.version_rules.authorization.explicitly_privilege_room_creators
    }
}

/// Default encryption of rooms that must be encrypted.
const ALGORITHM: &str = "m.megolm.v1.aes-sha2";

impl Rooms {
    /// Makes a room; its id once it is committed with all its first events.
    pub async fn create_room(&self, who: &Requester, wanted: Wanted) -> Result<OwnedRoomId> {
        let plan = self.plan(who, &wanted).await?;
        let addresses: Vec<Address> = wanted.invite_3pid.iter().map(Address::of).collect::<Result<_>>()?;
        if !addresses.is_empty() {
            self.check_lookup_allowed()?;
        }
        let events = self.first_events(&plan, &wanted).await?;
        let new = NewRoom {
            version: plan.version.clone(),
            creator: plan.creator.clone(),
            is_public: plan.is_public,
            room_id: wanted.room_id.clone(),
            events,
        };
        let sent = self.create(who, new).await?;
        let first = sent.first().ok_or_else(|| Error::internal("a room was made without events"))?;
        let room_id = first.room_id.clone();
        if let Some(alias) = &plan.alias {
            let own = self.cx.config.server.name.to_string();
            self.add_alias(who, alias, &room_id, Some(vec![own]), false).await?;
        }
        for user in plan.invite.iter().filter(|u| !self.is_local_user(u)) {
            let mut content = Map::new();
            if wanted.is_direct == Some(true) {
                content.insert("is_direct".into(), true.into());
            }
            self.change_membership(who, &room_id, Change::new(user.clone(), Action::Invite).content(content)).await?;
        }
        for address in addresses.iter().filter(|_| !who.shadow_banned) {
            self.invite_by_address(who, &room_id, address).await?;
        }
        Ok(room_id)
    }

    async fn plan(&self, who: &Requester, wanted: &Wanted) -> Result<Plan> {
        let version = self.version(wanted)?;
        let version_rules = room_version::rules(&version).ok_or_else(unsupported)?;
        let alias = self.free_alias(wanted).await?;
        let invite = self.invitees(who, wanted)?;
        let visibility = wanted.visibility.as_deref().unwrap_or("private");
        let preset = match &wanted.preset {
            Some(p) => p,
            None if visibility == "private" => "private_chat",
            None => "public_chat",
        };
        let rules = Rules::of(preset).ok_or_else(|| Error::bad_json(format!("'{preset}' is not a valid preset")))?;
        let creator = who.user_id.clone();
        let plan = Plan { version, rules, version_rules, alias, invite, is_public: visibility == "public", creator };
        check_override(&plan, wanted)?;
        check_creators(&plan, wanted)?;
        self.check_encryption_allowed(&plan, wanted)?;
        Ok(self.unlisted_if_not_allowed(plan))
    }

    fn version(&self, wanted: &Wanted) -> Result<RoomVersionId> {
        let name = match &wanted.room_version {
            None => self.cx.config.rooms.default_version.as_str(),
            Some(Value::String(s)) => s,
            Some(_) => return Err(Error::bad_json("room_version must be a string")),
        };
        let version = RoomVersionId::try_from(name).map_err(|_| unsupported())?;
        if room_version::SUPPORTED.contains(&version) { Ok(version) } else { Err(unsupported()) }
    }

    async fn free_alias(&self, wanted: &Wanted) -> Result<Option<OwnedRoomAliasId>> {
        let Some(name) = &wanted.room_alias_name else { return Ok(None) };
        aliases::check_localpart(name)?;
        let alias = OwnedRoomAliasId::try_from(format!("#{name}:{}", self.cx.config.server.name));
        let alias = alias.map_err(|_| Error::invalid_param("room_alias_name: not the localpart of an alias"))?;
        if self.cx.store.alias(alias.as_str()).await?.is_some() {
            return Err(Error::client(400, "M_ROOM_IN_USE", "Room alias already taken"));
        }
        Ok(Some(alias))
    }

    fn invitees(&self, who: &Requester, wanted: &Wanted) -> Result<Vec<OwnedUserId>> {
        let parse = |id: &String| {
            OwnedUserId::try_from(id.as_str()).map_err(|_| Error::bad_request(format!("Invalid user_id: {id}")))
        };
        let users: Vec<OwnedUserId> = wanted.invite.iter().map(parse).collect::<Result<_>>()?;
        // Shadow-banned users are not told that nobody got their invites.
        if who.shadow_banned {
            return Ok(Vec::new());
        }
        Ok(users)
    }

    /// Configured power levels may rule encrypted rooms out.
    fn check_encryption_allowed(&self, plan: &Plan, wanted: &Wanted) -> Result<()> {
        let config = &self.cx.config.rooms;
        let wants = wanted.initial_state.iter().any(|s| s.kind == "m.room.encryption");
        if !wants && !config.encrypted_presets.contains(&plan.rules.preset) {
            return Ok(());
        }
        let Some((_, levels)) = config.power_level_override.iter().find(|(p, _)| *p == plan.rules.preset) else {
            return Ok(());
        };
        let level = |kind: &str| levels.get("events").and_then(|e| e.get(kind)).and_then(Value::as_i64).unwrap_or(100);
        let (user, send) = (level("m.room.power_levels"), level("m.room.encryption"));
        if send > user {
            let text = format!("You cannot create an encrypted room. user_level ({user}) < send_level ({send})");
            return Err(Error::client(403, "M_UNKNOWN", text));
        }
        Ok(())
    }

    /// A room that may not be listed is made all the same.
    fn unlisted_if_not_allowed(&self, mut plan: Plan) -> Plan {
        if plan.is_public {
            let aliases: Vec<&str> = plan.alias.iter().map(|a| a.as_str()).collect();
            plan.is_public = self.cx.config.directory.may_publish_room(plan.creator.as_str(), "", &aliases);
        }
        plan
    }

    /// The first events in Synapse's order: create, own join, power levels, alias, join rules, history
    /// visibility, guest access, initial state, encryption, name, topic, invites.
    async fn first_events(&self, plan: &Plan, wanted: &Wanted) -> Result<Vec<Template>> {
        let names = self.names(plan).await?;
        let mut state = initial_state(wanted);
        let event = |kind: &str, content: Value| -> Result<Template> {
            Ok(Template::new(plan.creator.clone(), kind, raw(&content)?).state(""))
        };
        let mut events = vec![event("m.room.create", create_content(plan, wanted))?];
        let member = |user: &OwnedUserId, content: Map<String, Value>| -> Result<Template> {
            Ok(Template::new(plan.creator.clone(), "m.room.member", raw(&content)?).state(user.as_str()))
        };
        events.push(member(&plan.creator, member_content("join", names.get(plan.creator.as_str())))?);
        let given = take(&mut state, "m.room.power_levels");
        let levels = given.map(Value::Object).unwrap_or_else(|| self.power_levels(plan, wanted));
        events.push(event("m.room.power_levels", levels)?);
        let has = |kind: &str| state.iter().any(|s| s.kind == kind && s.state_key.is_empty());
        if let Some(alias) = plan.alias.as_ref().filter(|_| !has("m.room.canonical_alias")) {
            events.push(event("m.room.canonical_alias", json!({"alias": alias}))?);
        }
        if !has("m.room.join_rules") {
            events.push(event("m.room.join_rules", json!({"join_rule": plan.rules.join_rule}))?);
        }
        if !has("m.room.history_visibility") {
            events.push(event("m.room.history_visibility", json!({"history_visibility": "shared"}))?);
        }
        if plan.rules.guests && !has("m.room.guest_access") {
            events.push(event("m.room.guest_access", json!({"guest_access": "can_join"}))?);
        }
        for s in &state {
            events.push(Template::new(plan.creator.clone(), &*s.kind, raw(&s.content)?).state(&*s.state_key));
        }
        if self.must_encrypt(plan, &state) {
            events.push(event("m.room.encryption", json!({"algorithm": ALGORITHM}))?);
        }
        if let Some(name) = &wanted.name {
            events.push(event("m.room.name", json!({"name": name}))?);
        }
        if let Some(topic) = &wanted.topic {
            events.push(event("m.room.topic", json!({"topic": topic, "m.topic": {"m.text": [{"body": topic}]}}))?);
        }
        let with_names = self.cx.config.directory.include_profile_data_on_invite;
        // Users of other servers can be invited once the room is there.
        for invitee in plan.invite.iter().filter(|u| self.is_local_user(u)) {
            let mut content = member_content("invite", names.get(invitee.as_str()).filter(|_| with_names));
            if wanted.is_direct == Some(true) {
                content.insert("is_direct".into(), true.into());
            }
            events.push(member(invitee, content)?);
        }
        Ok(events)
    }

    async fn names(&self, plan: &Plan) -> Result<std::collections::HashMap<String, (Option<String>, Option<String>)>> {
        let users: Vec<&str> = plan.invite.iter().chain([&plan.creator]).map(|u| u.as_str()).collect();
        self.cx.store.names_of(&users).await
    }

    /// Encryption is forced unless the client brought a valid event itself.
    fn must_encrypt(&self, plan: &Plan, state: &[InitialState]) -> bool {
        let given = state.iter().find(|s| s.kind == "m.room.encryption" && s.state_key.is_empty());
        let is_valid = given.is_some_and(|s| s.content.get("algorithm").is_some_and(Value::is_string));
        self.cx.config.rooms.encrypted_presets.contains(&plan.rules.preset) && !is_valid
    }

    fn power_levels(&self, plan: &Plan, wanted: &Wanted) -> Value {
        let privileged = plan.creators_have_power();
        let mut users = Map::new();
        if !privileged {
            users.insert(plan.creator.to_string(), 100.into());
            if plan.rules.invitees_have_power {
                users.extend(plan.invite.iter().map(|u| (u.to_string(), Value::from(100))));
            }
        }
        let mut content = json!({
            "users": users,
            "users_default": 0,
            "events": {
                "m.room.name": 50,
                "m.room.power_levels": 100,
                "m.room.history_visibility": 100,
                "m.room.canonical_alias": 50,
                "m.room.avatar": 50,
                "m.room.tombstone": if privileged { 150 } else { 100 },
                "m.room.server_acl": 100,
                "m.room.encryption": 100,
            },
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": 50,
            "historical": 100,
        });
        match plan.rules.preset {
            Preset::PublicChat => content["events"]["m.call.invite"] = 50.into(),
            Preset::PrivateChat | Preset::TrustedPrivateChat => content["invite"] = 0.into(),
        }
        let configured = self.cx.config.rooms.power_level_override.iter().find(|(p, _)| *p == plan.rules.preset);
        for over in configured.map(|(_, c)| c).into_iter().chain(&wanted.power_level_content_override) {
            for (key, value) in over {
                content[key] = value.clone();
            }
        }
        content
    }

    /// Invites somebody the way `/createRoom` does, into a room that exists.
    pub async fn invite(&self, who: &Requester, room_id: &OwnedRoomId, user: OwnedUserId) -> Result<Sent> {
        self.change_membership(who, room_id, Change::new(user, Action::Invite)).await
    }
}

fn unsupported() -> Error {
    Error::client(400, "M_UNSUPPORTED_ROOM_VERSION", "Your homeserver does not support this room version")
}

/// Who makes a room must keep power over it, where that depends on power levels.
fn check_override(plan: &Plan, wanted: &Wanted) -> Result<()> {
    let users = wanted.power_level_content_override.as_ref().and_then(|o| o.get("users"));
    let Some(users) = users.filter(|_| !plan.creators_have_power()) else { return Ok(()) };
    if users.get(plan.creator.as_str()).is_none() {
        let text = format!("Not a valid power_level_content_override: 'users' did not contain {}", plan.creator);
        return Err(Error::bad_request(text));
    }
    Ok(())
}

/// In rooms whose creators stand above power levels: these must be users, and must not be given levels.
fn check_creators(plan: &Plan, wanted: &Wanted) -> Result<()> {
    if !plan.creators_have_power() {
        return Ok(());
    }
    let bad = |text: &'static str| Err(Error::client(400, "M_FORBIDDEN", text));
    let more = match wanted.creation_content.get("additional_creators") {
        None => &Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return bad("additional_creators must be an array"),
    };
    if more.iter().any(|c| c.as_str().is_none_or(|id| OwnedUserId::try_from(id).is_err())) {
        return bad("entry in additional_creators is not a valid user ID");
    }
    let given = wanted.initial_state.iter().find(|s| s.kind == "m.room.power_levels" && s.state_key.is_empty());
    let levels = given.map(|s| &s.content).or(wanted.power_level_content_override.as_ref());
    let users = levels.and_then(|l| l.get("users")).and_then(Value::as_object);
    let creators = more.iter().filter_map(Value::as_str).chain([plan.creator.as_str()]);
    match creators.into_iter().find(|c| users.is_some_and(|u| u.contains_key(*c))) {
        None => Ok(()),
        Some(creator) => Err(Error::bad_request(format!("Creator user {creator} must not appear in content.users"))),
    }
}

/// The last content of each (type, state key), in the order they first appear in.
fn initial_state(wanted: &Wanted) -> Vec<InitialState> {
    let mut state: Vec<InitialState> = Vec::with_capacity(wanted.initial_state.len());
    for s in &wanted.initial_state {
        match state.iter_mut().find(|o| o.kind == s.kind && o.state_key == s.state_key) {
            Some(earlier) => earlier.content = s.content.clone(),
            None => state.push(s.clone()),
        }
    }
    state
}

fn take(state: &mut Vec<InitialState>, kind: &str) -> Option<Map<String, Value>> {
    let at = state.iter().position(|s| s.kind == kind && s.state_key.is_empty())?;
    Some(state.remove(at).content)
}

/// Content of the create event; version and creator are filled in where the room is made.
fn create_content(plan: &Plan, wanted: &Wanted) -> Value {
    let mut content = wanted.creation_content.clone();
    let shares_power = plan.creators_have_power() && plan.rules.invitees_have_power && !plan.invite.is_empty();
    if shares_power {
        let given = content.get("additional_creators").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut creators: Vec<Value> = Vec::new();
        for creator in given.into_iter().chain(plan.invite.iter().map(|u| Value::from(u.as_str()))) {
            if !creators.contains(&creator) {
                creators.push(creator);
            }
        }
        content.insert("additional_creators".into(), creators.into());
    }
    content.insert("room_version".into(), plan.version.as_str().into());
    Value::Object(content)
}

fn member_content(membership: &str, names: Option<&(Option<String>, Option<String>)>) -> Map<String, Value> {
    let mut content = Map::new();
    content.insert("membership".into(), membership.into());
    if let Some((displayname, avatar_url)) = names {
        for (key, value) in [("displayname", displayname), ("avatar_url", avatar_url)] {
            if let Some(value) = value {
                content.insert(key.into(), value.as_str().into());
            }
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(version: &str, preset: &str, invite: &[&str]) -> Plan {
        let version = RoomVersionId::try_from(version).unwrap();
        Plan {
            version_rules: room_version::rules(&version).unwrap(),
            version,
            rules: Rules::of(preset).unwrap(),
            alias: None,
            invite: invite.iter().map(|u| OwnedUserId::try_from(*u).unwrap()).collect(),
            is_public: false,
            creator: OwnedUserId::try_from("@c:a").unwrap(),
        }
    }

    fn wanted(json: &str) -> Wanted {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn trusted_invitees_become_creators_once_in_v12() {
        let w = wanted(r#"{"creation_content":{"additional_creators":["@x:a","@y:a"],"m.federate":false}}"#);
        let content = create_content(&plan("12", "trusted_private_chat", &["@y:a", "@z:a"]), &w);
        assert_eq!(content["additional_creators"], json!(["@x:a", "@y:a", "@z:a"]));
        assert_eq!(content["m.federate"], json!(false));
        let content = create_content(&plan("11", "trusted_private_chat", &["@y:a"]), &wanted("{}"));
        assert!(content.get("additional_creators").is_none());
    }

    #[test]
    fn later_initial_state_replaces_earlier_in_place() {
        let w = wanted(
            r#"{"initial_state":[{"type":"a","content":{"n":1}},{"type":"b","content":{}},
                {"type":"a","state_key":"","content":{"n":2}}]}"#,
        );
        let state = initial_state(&w);
        assert_eq!(state.len(), 2);
        assert_eq!((state[0].kind.as_str(), state[0].content["n"].as_i64()), ("a", Some(2)));
    }

    #[test]
    fn an_override_must_keep_the_creator_in_power_before_v12() {
        let w = wanted(r#"{"power_level_content_override":{"users":{"@other:a":100}}}"#);
        assert!(check_override(&plan("11", "private_chat", &[]), &w).is_err());
        assert!(check_override(&plan("12", "private_chat", &[]), &w).is_ok());
    }

    #[test]
    fn null_is_told_from_absent() {
        assert_eq!(wanted(r#"{"name":null}"#).name, Some(Value::Null));
        assert_eq!(wanted("{}").name, None);
    }
}
