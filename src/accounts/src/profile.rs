//! Profiles: who may change what, and carrying changes into rooms.

use crate::Accounts;
use config::StreamGroup;
use fedclient::Call;
use replication::Command;
use ruma::UserId;
use serde_json::{Map, Value, json};
use slog::info;
use store::db::is_away;
use store::locks::Mode;
use store::profiles::Profile;
use types::{Boxed, Error, Requester, Result};

const MAX_NAME: usize = 256;
const MAX_AVATAR_URL: usize = 1000;
/// Longest name of a custom field, in bytes.
const MAX_FIELD: usize = 255;

/// The task that carries a profile into the user's rooms, and the lock under which it is replaced.
const UPDATE_JOIN_STATES: &str = "update_join_states";
const UPDATE_JOIN_STATES_LOCK: &str = "update_join_states_lock";

/// 400 for names of fields outside the Common Namespaced Identifier Grammar.
pub fn check_field_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid_param("Field name too short"));
    }
    if name.len() > MAX_FIELD {
        return Err(Error::client(400, "M_KEY_TOO_LARGE", "Field name too long"));
    }
    let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if !name.as_bytes()[0].is_ascii_lowercase() || !name.bytes().all(fits) {
        return Err(Error::invalid_param("Field name does not follow Common Namespaced Identifier Grammar"));
    }
    Ok(())
}

fn not_found() -> Error {
    Error::not_found("Profile was not found")
}

impl Accounts {
    /// The profile of a user. 404 if there is nothing to see; 502 if their server does not answer.
    pub async fn profile(&self, user_id: &UserId) -> Result<Map<String, Value>> {
        if !self.is_local(user_id.as_str()) {
            return self.ask_for_profile(user_id, None).await;
        }
        let profile = self.cx.store.profile(user_id.as_str()).await?.map(Profile::into_json).unwrap_or_default();
        if profile.is_empty() { Err(not_found()) } else { Ok(profile) }
    }

    /// One field; for a name or avatar that is not set, nothing. 404 if there is no profile, or no such field.
    pub async fn profile_field(&self, user_id: &UserId, field: &str) -> Result<Map<String, Value>> {
        if !self.is_local(user_id.as_str()) {
            let mut profile = self.ask_for_profile(user_id, Some(field)).await?;
            return Ok(profile.remove_entry(field).into_iter().collect());
        }
        let profile = self.cx.store.profile(user_id.as_str()).await?.ok_or_else(not_found)?;
        let value = profile.into_json().remove(field);
        match (field, value) {
            (_, Some(value)) => Ok(Map::from_iter([(field.to_owned(), value)])),
            ("displayname" | "avatar_url", None) => Ok(Map::new()),
            (_, None) => Err(not_found()),
        }
    }

    /// What another server says of its user.
    async fn ask_for_profile(&self, user_id: &UserId, field: Option<&str>) -> Result<Map<String, Value>> {
        let mut query = vec![("user_id", user_id.as_str())];
        query.extend(field.map(|f| ("field", f)));
        let path = format!("/_matrix/federation/v1/query/profile?{}", serde_urlencoded::to_string(query)?);
        let unfit = || Error::client(502, "M_UNKNOWN", "Failed to fetch profile");
        let call = Call { ignore_backoff: true, ..Call::get(user_id.server_name().as_str(), &path) };
        match self.fed.call(call).await {
            Ok(Value::Object(profile)) => Ok(profile),
            Err(e) if matches!(e.status(), Some(403 | 404)) => Err(e.into()),
            _ => Err(unfit()),
        }
    }

    /// 403 if profiles are shown only to those who share a room, and these two don't.
    pub async fn may_see_profile(&self, who: Option<&UserId>, user_id: &UserId) -> Result<()> {
        let Some(who) = who else { return Ok(()) };
        if !self.cx.config.directory.limit_profile_requests_to_users_who_share_rooms || who == user_id {
            return Ok(());
        }
        let mine = self.cx.store.rooms_joined_by(who.as_str()).await?;
        let theirs = self.cx.store.rooms_joined_by(user_id.as_str()).await?;
        if theirs.iter().any(|room| mine.contains(room)) {
            Ok(())
        } else {
            Err(Error::forbidden("Profile isn't available"))
        }
    }

    /// Sets a field, or removes it (`value` None), and carries names and avatars into the user's rooms.
    pub async fn set_profile_field(
        &self,
        who: &Requester,
        user_id: &UserId,
        field: &str,
        value: Option<Value>,
    ) -> Result<()> {
        let by_admin = self.cx.store.is_admin(who.user_id.as_str()).await?;
        self.set_profile_field_as(who, user_id, field, value, by_admin).await
    }

    /// As [`Accounts::set_profile_field`]. `by_admin`: what users may not change of themselves may be changed.
    pub(crate) fn set_profile_field_as<'a>(
        &'a self,
        who: &'a Requester,
        user_id: &'a UserId,
        field: &'a str,
        value: Option<Value>,
        by_admin: bool,
    ) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            self.check_change(who, user_id, field, by_admin)?;
            let stream = self.cx.config.server.include_profile_updates_in_sync;
            if stream && !self.cx.duties.writes(StreamGroup::Events) {
                return self.ask_profile_writer(who, user_id, field, value, by_admin).await;
            }
            let value = match field {
                "displayname" => self.check_name(user_id, value, by_admin).await?,
                "avatar_url" => self.check_avatar(user_id, value, by_admin).await?,
                _ => value,
            };
            if self.cx.store.user(user_id.as_str()).await?.is_none() {
                return Err(Error::not_found("User not found"));
            }
            self.cx.store.set_profile_field(user_id, field, value.as_ref(), stream).await?;
            if matches!(field, "displayname" | "avatar_url") {
                self.show_in_directory(user_id).await?;
                if !who.shadow_banned {
                    self.tell_rooms(who, user_id).await?;
                }
            }
            Ok(())
        })
    }

    fn check_change(&self, who: &Requester, user_id: &UserId, field: &str, by_admin: bool) -> Result<()> {
        if !self.is_local(user_id.as_str()) {
            return Err(Error::bad_request("User is not hosted on this homeserver"));
        }
        if by_admin || who.user_id == user_id {
            return Ok(());
        }
        match field {
            "displayname" | "avatar_url" => {
                Err(Error::client(400, "M_FORBIDDEN", format!("Cannot set another user's {field}")))
            }
            _ => Err(Error::forbidden("Cannot set another user's profile")),
        }
    }

    async fn ask_profile_writer(
        &self,
        who: &Requester,
        user_id: &UserId,
        field: &str,
        value: Option<Value>,
        by_admin: bool,
    ) -> Result<()> {
        let delete = value.is_none() && !matches!(field, "displayname" | "avatar_url");
        let mut payload = Map::from_iter([
            ("requester".to_owned(), json!(who.user_id)),
            ("field_name".to_owned(), json!(field)),
            ("by_admin".to_owned(), json!(by_admin)),
        ]);
        if !delete {
            payload.insert("new_value".to_owned(), value.unwrap_or_else(|| json!("")));
            payload.insert("propagate".to_owned(), json!(true));
        }
        let name = if delete { "profile_delete_field" } else { "profile_set_field" };
        let writer = self.cx.config.owners().writers(StreamGroup::Events).first().cloned();
        let writer = writer.unwrap_or_else(|| types::MASTER.to_owned());
        self.cx.peers.call(&writer, name, &[user_id.as_str()], false, payload).await.map(|_| ())
    }

    async fn check_name(&self, user_id: &UserId, value: Option<Value>, by_admin: bool) -> Result<Option<Value>> {
        if !by_admin && !self.cx.config.registration.enable_set_displayname {
            let profile = self.cx.store.profile(user_id.as_str()).await?;
            if profile.is_some_and(|p| p.displayname.is_some_and(|n| !n.is_empty())) {
                return Err(Error::forbidden("Changing display name is disabled on this server"));
            }
        }
        match value {
            None => Ok(None),
            Some(Value::String(name)) if name.chars().count() > MAX_NAME => {
                Err(Error::bad_request(format!("Displayname is too long (max {MAX_NAME})")))
            }
            Some(Value::String(name)) if name.is_empty() => Ok(None),
            Some(Value::String(name)) => Ok(Some(json!(name.trim()))),
            Some(_) => Err(Error::invalid_param("'displayname' must be a string")),
        }
    }

    async fn check_avatar(&self, user_id: &UserId, value: Option<Value>, by_admin: bool) -> Result<Option<Value>> {
        if !by_admin && !self.cx.config.registration.enable_set_avatar_url {
            let profile = self.cx.store.profile(user_id.as_str()).await?;
            if profile.is_some_and(|p| p.avatar_url.is_some_and(|u| !u.is_empty())) {
                return Err(Error::forbidden("Changing avatar is disabled on this server"));
            }
        }
        match value {
            None => Ok(None),
            Some(Value::String(url)) if url.chars().count() > MAX_AVATAR_URL => {
                Err(Error::bad_request(format!("Avatar URL is too long (max {MAX_AVATAR_URL})")))
            }
            Some(Value::String(url)) if url.is_empty() => Ok(None),
            Some(Value::String(url)) => Ok(Some(json!(url))),
            Some(_) => Err(Error::invalid_param("'avatar_url' must be a string")),
        }
    }

    /// Brings the user directory's entry of a user up to date, unless they are not to be in it.
    pub async fn show_in_directory(&self, user_id: &UserId) -> Result<()> {
        let id = user_id.as_str();
        let bridged = self.cx.config.app_services.iter().any(|s| s.is_interested_in_user(id));
        let user = self.cx.store.user(id).await?;
        if bridged || user.is_none_or(|u| u.deactivated || u.user_type.as_deref() == Some("support")) {
            return Ok(());
        }
        let profile = self.cx.store.profile(id).await?.unwrap_or_default();
        self.cx.store.show_in_directory(user_id, profile.displayname.as_deref(), profile.avatar_url.as_deref()).await
    }

    /// Leaves word that the profile is to be carried into the user's rooms. The task is in the database, so that it
    /// outlives this process; the process of the background tasks does it. An older one need not be finished.
    async fn tell_rooms(&self, who: &Requester, user_id: &UserId) -> Result<()> {
        let user = user_id.as_str();
        let _one_at_a_time = self.cx.lock(UPDATE_JOIN_STATES_LOCK, user, Mode::Exclusive).await?;
        let params = json!({"requester_authenticated_entity": who.authenticated_entity});
        let replaced = self.cx.store.replace_task(UPDATE_JOIN_STATES, user, &params, self.cx.now_ms()).await?;
        for id in replaced.cancelled {
            self.cx.bus.send(Command::CancelTask { id });
        }
        self.cx.bus.send(Command::NewActiveTask { id: replaced.id });
        // Without Redis nobody but this process is there to hear it.
        self.inner.task_left.notify_one();
        Ok(())
    }

    /// Waits until this process has left a task in `scheduled_tasks`.
    pub async fn task_left(&self) {
        self.inner.task_left.notified().await;
    }

    /// Carries name and avatar into all rooms of the user, as a task asks for. Rooms that have them stay as they are,
    /// and so do those that refuse. 503 if some could not be reached.
    pub async fn carry_profile(&self, user_id: &UserId) -> Result<()> {
        let mut done = Ok(());
        for room in self.cx.store.rooms_joined_by(user_id.as_str()).await?.iter() {
            if let Err(e) = self.tell_room(user_id, room).await {
                info!(self.cx.log, "profile not carried into room"; "user" => %user_id, "room" => room, "error" => %e);
                done = if is_away(&e) { Err(e) } else { done };
            }
        }
        done
    }

    async fn tell_room(&self, user_id: &UserId, room_id: &str) -> Result<()> {
        let room_id = <&ruma::RoomId>::try_from(room_id)?;
        let Some(old) = self.rooms.state_event(room_id, "m.room.member", user_id.as_str()).await? else {
            return Ok(());
        };
        let mut content: Map<String, Value> = serde_json::from_str(old.content.get())?;
        if content.get("membership").and_then(Value::as_str) != Some("join") {
            return Ok(());
        }
        let before = content.clone();
        let profile = self.cx.store.profile(user_id.as_str()).await?.unwrap_or_default();
        for (key, value) in [("displayname", profile.displayname), ("avatar_url", profile.avatar_url)] {
            match value {
                Some(value) => content.insert(key.to_owned(), json!(value)),
                None => content.remove(key),
            };
        }
        if content == before {
            return Ok(());
        }
        // Only the join itself was authorised by somebody else.
        content.remove("join_authorised_via_users_server");
        content.remove("reason");
        let template = rooms::Template::new(user_id.to_owned(), "m.room.member", types::json::raw(&content)?);
        self.rooms.send(&Requester::for_user(user_id), room_id, template.state(user_id.as_str())).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_follow_the_grammar() {
        assert!(check_field_name("m.tz").is_ok());
        assert!(check_field_name("io.example.my-field_1").is_ok());
        for bad in ["", "1a", "Abc", "m tz", ".a", &"a".repeat(256)] {
            assert!(check_field_name(bad).is_err(), "{bad}");
        }
    }
}
