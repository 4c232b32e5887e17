//! Rooms that new accounts are in from the start (`auto_join_rooms`).

use crate::Accounts;
use config::registration::Preset;
use rooms::membership::{Action, Change};
use rooms::new_room::Wanted;
use ruma::{OwnedUserId, RoomAliasId, RoomId, UserId};
use serde_json::{Map, json};
use slog::warn;
use types::{Error, Requester, Result};

impl Accounts {
    /// Joins a new account to the configured rooms; the first real user makes those that are missing.
    /// Failures are logged: the account exists all the same.
    pub(crate) async fn auto_join(&self, user_id: &UserId, guest: bool) {
        let later = self.cx.config.consent.as_ref().is_some_and(|c| c.require_at_registration);
        if later || (guest && !self.cx.config.registration.auto_join_rooms_for_guests) {
            return;
        }
        self.auto_join_after_consent(user_id).await;
    }

    /// As [`Accounts::auto_join`], once the user has accepted the policy.
    pub(crate) async fn auto_join_after_consent(&self, user_id: &UserId) {
        let c = &self.cx.config.registration;
        if c.auto_join_rooms.is_empty() {
            return;
        }
        let create = c.autocreate_auto_join_rooms && matches!(self.cx.store.count_real_users().await, Ok(1));
        for alias in &c.auto_join_rooms {
            let joined = match <&RoomAliasId>::try_from(alias.as_str()) {
                Ok(id) if create && id.server_name() == self.server_name() => self.make_and_join(user_id, id).await,
                Ok(id) => self.join_by_alias(user_id, id).await,
                Err(_) => Err(Error::internal("not a room alias")),
            };
            if let Err(e) = joined {
                warn!(self.cx.log, "new account not joined"; "user" => %user_id, "room" => alias, "error" => %e);
            }
        }
    }

    /// Who makes the rooms and invites to them, if somebody is configured to.
    fn host(&self) -> Option<OwnedUserId> {
        let localpart = self.cx.config.registration.auto_join_mxid_localpart.as_ref()?;
        OwnedUserId::try_from(self.qualify(localpart)).ok()
    }

    async fn make_and_join(&self, user_id: &UserId, alias: &RoomAliasId) -> Result<()> {
        let c = &self.cx.config.registration;
        let (host, private) = (self.host(), c.autocreate_auto_join_room_preset != Preset::PublicChat);
        let mut creation_content = Map::new();
        if !c.autocreate_auto_join_rooms_federated {
            creation_content.insert("m.federate".into(), json!(false));
        }
        let preset = match c.autocreate_auto_join_room_preset {
            Preset::PublicChat => "public_chat",
            Preset::PrivateChat => "private_chat",
            Preset::TrustedPrivateChat => "trusted_private_chat",
        };
        let wanted = Wanted {
            preset: Some(preset.to_owned()),
            room_alias_name: Some(alias.alias().to_owned()),
            creation_content,
            invite: if host.is_some() && private { vec![user_id.to_string()] } else { Vec::new() },
            ..Wanted::default()
        };
        let creator = host.clone().unwrap_or_else(|| user_id.to_owned());
        let room_id = self.rooms.create_room(&Requester::for_user(&creator), wanted).await?;
        if creator != user_id {
            self.join(user_id, &room_id).await?;
        }
        Ok(())
    }

    async fn join_by_alias(&self, user_id: &UserId, alias: &RoomAliasId) -> Result<()> {
        let (room_id, _) = self.rooms.resolve_alias(alias).await?;
        let rules = self.rooms.state_event(&room_id, "m.room.join_rules", "").await?;
        let rule = rules.and_then(|e| serde_json::from_str::<serde_json::Value>(e.content.get()).ok());
        let public = rule.is_none_or(|r| r.get("join_rule").is_none_or(|r| r == "public"));
        if let (false, Some(host)) = (public, self.host()) {
            let invite = Change::new(user_id.to_owned(), Action::Invite);
            self.rooms.change_membership(&Requester::for_user(&host), &room_id, invite).await?;
        }
        self.join(user_id, &room_id).await
    }

    async fn join(&self, user_id: &UserId, room_id: &RoomId) -> Result<()> {
        let join = Change::new(user_id.to_owned(), Action::Join);
        self.rooms.change_membership(&Requester::for_user(user_id), room_id, join).await.map(|_| ())
    }
}
