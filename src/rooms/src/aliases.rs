//! Room aliases (spec: "Room aliases").

use crate::Rooms;
use crate::abroad::{path, with_param};
use crate::power;
use fedclient::Call;
use ruma::{OwnedRoomId, RoomAliasId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};
use types::{Error, OwnedRoomAliasId, Requester, Result};

/// Longest alias, bytes.
const MAX_ALIAS: usize = 255;

/// The localpart an alias may have.
pub fn check_localpart(localpart: &str) -> Result<()> {
    if localpart.chars().any(|c| c.is_ascii_whitespace() || c == '\x0b') {
        return Err(Error::bad_request("Invalid characters in room alias"));
    }
    if localpart.contains(':') {
        let text = "':' is not permitted in the room alias name. Please note this expects a local part — 'wombat', \
                    not '#wombat:example.com'.";
        return Err(Error::bad_request(text));
    }
    Ok(())
}

impl Rooms {
    pub(crate) fn is_local_alias(&self, alias: &RoomAliasId) -> bool {
        alias.server_name() == self.cx.config.server.name.as_str()
    }

    /// The room behind an alias and servers in it, our own first. 404 if there is none.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<String>)> {
        let none = || Error::not_found(format!("Room alias {alias} not found"));
        let (room_id, named) = if self.is_local_alias(alias) {
            let found = self.cx.store.alias(alias.as_str()).await?.ok_or_else(none)?;
            (found.room_id, found.servers)
        } else {
            self.ask_for_alias(alias).await?.ok_or_else(none)?
        };
        let mut servers = self.cx.store.servers_in_room(room_id.as_str()).await?;
        servers.extend(named);
        let own = self.cx.config.server.name.as_str();
        servers.sort_by_key(|s| s != own);
        let mut seen = std::collections::HashSet::new();
        servers.retain(|s| seen.insert(s.clone()));
        Ok((room_id, servers))
    }

    /// What another server says of an alias of its own; None if it knows none. 502 if it says nothing.
    async fn ask_for_alias(&self, alias: &RoomAliasId) -> Result<Option<(OwnedRoomId, Vec<String>)>> {
        #[derive(Deserialize)]
        struct Answer {
            room_id: OwnedRoomId,
            servers: Vec<String>,
        }
        let path = with_param(path("v1/query", &["directory"]), "room_alias", alias.as_str());
        let call = Call { ignore_backoff: true, ..Call::get(alias.server_name().as_str(), &path) };
        match self.fed.call(call).await {
            Ok(answer) => Ok(serde_json::from_value::<Answer>(answer).ok().map(|a| (a.room_id, a.servers))),
            Err(e) if e.status() == Some(404) => Ok(None),
            Err(_) => Err(Error::client(502, "M_UNKNOWN", "Failed to fetch alias")),
        }
    }

    /// A room id, or the room behind an alias and servers in it.
    pub async fn resolve_room(&self, id_or_alias: &str) -> Result<(OwnedRoomId, Vec<String>)> {
        if let Ok(room_id) = OwnedRoomId::try_from(id_or_alias) {
            return Ok((room_id, Vec::new()));
        }
        match OwnedRoomAliasId::try_from(id_or_alias) {
            Ok(alias) => self.resolve_alias(&alias).await,
            Err(_) => Err(Error::bad_request(format!("{id_or_alias} was not legal room ID or room alias"))),
        }
    }

    /// Makes an alias on behalf of a user. `in_room`: whether the rule that one must be in the room counts.
    pub async fn add_alias(
        &self,
        who: &Requester,
        alias: &RoomAliasId,
        room_id: &RoomId,
        servers: Option<Vec<String>>,
        in_room: bool,
    ) -> Result<()> {
        self.check_new_alias(who, alias, room_id, in_room).await?;
        let servers = match servers.filter(|s| !s.is_empty()) {
            Some(s) => s,
            None => self.cx.store.servers_in_room(room_id.as_str()).await?,
        };
        if servers.is_empty() {
            return Err(Error::bad_request("Failed to get server list"));
        }
        self.cx.store.add_alias(alias.as_str(), room_id.as_str(), &servers, who.user_id.as_str()).await
    }

    async fn check_new_alias(
        &self,
        who: &Requester,
        alias: &RoomAliasId,
        room_id: &RoomId,
        in_room: bool,
    ) -> Result<()> {
        if alias.as_str().len() > MAX_ALIAS {
            let text = format!("Can't create aliases longer than {MAX_ALIAS} characters");
            return Err(Error::invalid_param(text));
        }
        self.check_reserved_alias(who, alias)?;
        if who.app_service.is_none() {
            let config = &self.cx.config;
            let must_be_in = config.rooms.require_membership_for_aliases && in_room;
            if must_be_in && !self.is_joined(&who.user_id, room_id).await? && !self.is_server_admin(who).await? {
                return Err(Error::forbidden("You must be in the room to create an alias for it"));
            }
            if !config.directory.may_create_alias(who.user_id.as_str(), room_id.as_str(), alias.as_str()) {
                return Err(Error::client(403, "M_UNKNOWN", "Not allowed to create alias"));
            }
        }
        check_localpart(alias.alias())?;
        if !self.is_local_alias(alias) {
            return Err(Error::bad_request("Room alias must be local"));
        }
        Ok(())
    }

    /// Application services reserve aliases; they may make only those.
    fn check_reserved_alias(&self, who: &Requester, alias: &RoomAliasId) -> Result<()> {
        let services = &self.cx.config.app_services;
        let is_interested = |s: &config::AppService| s.aliases.iter().any(|n| n.matches(alias.as_str()));
        if let Some(id) = &who.app_service {
            let is_reserved = services.iter().any(|s| s.id == *id && is_interested(s));
            return match is_reserved {
                true => Ok(()),
                false => Err(Error::client(
                    400,
                    "M_EXCLUSIVE",
                    "This application service has not reserved this kind of alias.",
                )),
            };
        }
        let interested: Vec<_> = services.iter().filter(|s| is_interested(s)).collect();
        let is_service = interested.iter().any(|s| s.sender == who.user_id);
        if !is_service && interested.iter().any(|s| s.is_exclusive_alias(alias.as_str())) {
            return Err(Error::client(400, "M_EXCLUSIVE", "This alias is reserved by an application service."));
        }
        Ok(())
    }

    /// Removes an alias: its maker, server administrators and the room's moderators may.
    pub async fn delete_alias(&self, who: &Requester, alias: &RoomAliasId) -> Result<()> {
        let unknown = || Error::not_found("Unknown room alias");
        if who.app_service.is_none() {
            let target = self.cx.store.alias(alias.as_str()).await?.ok_or_else(unknown)?;
            let is_maker = target.creator.as_deref() == Some(who.user_id.as_str());
            if !is_maker && !self.may_change_listing(who, &target.room_id).await? {
                return Err(Error::forbidden("You don't have permission to delete the alias."));
            }
        }
        self.check_reserved_alias(who, alias)?;
        if !self.is_local_alias(alias) {
            return Err(Error::bad_request("Room alias must be local"));
        }
        let room_id = self.cx.store.delete_alias(alias.as_str()).await?.ok_or_else(unknown)?;
        if who.app_service.is_none() {
            self.drop_canonical_alias(who, &room_id, alias).await?;
        }
        Ok(())
    }

    /// Takes a removed alias out of `m.room.canonical_alias`, if the user may change that.
    async fn drop_canonical_alias(&self, who: &Requester, room_id: &RoomId, alias: &RoomAliasId) -> Result<()> {
        let Some(event) = self.current_event(room_id, "m.room.canonical_alias", "").await? else { return Ok(()) };
        let mut content: Map<String, Value> = event.content_as().unwrap_or_default();
        let mut changed = false;
        if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
            content.remove("alias");
            changed = true;
        }
        if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
            let before = others.len();
            others.retain(|a| a.as_str() != Some(alias.as_str()));
            changed |= others.len() != before;
            if others.is_empty() {
                content.remove("alt_aliases");
            }
        }
        if !changed {
            return Ok(());
        }
        let template = crate::Template::new(who.user_id.clone(), "m.room.canonical_alias", types::json::raw(&content)?);
        match self.send(who, room_id, template.state("")).await {
            // The alias is gone all the same.
            Err(e) if e.status() == 403 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// An `m.room.canonical_alias` may name only aliases that point to the room; what it named before may stay.
    pub async fn check_canonical_alias(&self, room_id: &RoomId, content: &Map<String, Value>) -> Result<()> {
        let old = self.current_event(room_id, "m.room.canonical_alias", "").await?;
        let old: Map<String, Value> = old.and_then(|e| e.content_as().ok()).unwrap_or_default();
        match content.get("alias") {
            None | Some(Value::Null) => {}
            Some(Value::String(alias))
                if alias.is_empty() || old.get("alias") == Some(&Value::from(alias.as_str())) => {}
            Some(Value::String(alias)) => self.check_points_to(alias, room_id).await?,
            Some(_) => return Err(Error::invalid_param("The alias must be of type string.")),
        }
        let none = Vec::new();
        let others = match content.get("alt_aliases") {
            None => &none,
            Some(Value::Array(others)) => others,
            Some(_) => return Err(Error::invalid_param("The alt_aliases property must be a list.")),
        };
        let before = old.get("alt_aliases").and_then(Value::as_array).unwrap_or(&none);
        for alias in others.iter().filter(|a| !before.contains(a)) {
            let alias = alias.as_str().ok_or_else(|| Error::invalid_param("Each alt_alias must be of type string."))?;
            self.check_points_to(alias, room_id).await?;
        }
        Ok(())
    }

    async fn check_points_to(&self, alias: &str, room_id: &RoomId) -> Result<()> {
        let alias = OwnedRoomAliasId::try_from(alias)
            .map_err(|_| Error::invalid_param(format!("Not a room alias: {alias:?}")))?;
        match self.resolve_alias(&alias).await {
            Ok((target, _)) if target == *room_id => Ok(()),
            Err(e) if e.errcode() != Some("M_NOT_FOUND") => Err(e),
            _ => Err(Error::client(400, "M_BAD_ALIAS", format!("Room alias {alias} does not point to the room"))),
        }
    }

    /// Aliases of a room, for those who may look into it.
    pub async fn aliases_for(&self, who: &Requester, room_id: &RoomId) -> Result<Vec<String>> {
        if !self.is_server_admin(who).await? {
            self.check_may_look(&who.user_id, room_id, false).await?;
        }
        self.cx.store.aliases_of(room_id.as_str()).await
    }

    /// Whether a user may change the room's place in the directory: those who may change its canonical alias.
    pub async fn may_change_listing(&self, who: &Requester, room_id: &RoomId) -> Result<bool> {
        if self.is_server_admin(who).await? {
            return Ok(true);
        }
        self.check_in_room(&who.user_id, room_id, false).await?;
        let state = self.current_events(room_id, &power::KEYS).await?;
        let levels = power::Levels::of(&state);
        Ok(levels.of_user(&who.user_id) >= levels.to_send_state("m.room.canonical_alias"))
    }

    pub(crate) async fn is_server_admin(&self, who: &Requester) -> Result<bool> {
        self.cx.store.is_admin(who.user_id.as_str()).await
    }

    pub(crate) fn is_local_user(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.cx.config.server.name.as_str()
    }
}
