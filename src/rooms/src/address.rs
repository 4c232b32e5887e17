//! Inviting people by address (spec: "Third-party invites"; Identity Service API, "Association lookup" and
//! "Invitation storage").

use crate::membership::{Action, Change};
use crate::{Rooms, Template};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outgoing::Call;
use ruma::{OwnedServerName, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use slog::warn;
use types::{Error, Requester, Result, json::raw};

/// Whom to invite, and the identity server that knows them or keeps the invite.
#[derive(Clone, Debug)]
pub struct Address {
    /// `email` or `msisdn`.
    pub medium: String,
    pub address: String,
    id_server: OwnedServerName,
    id_access_token: String,
}

/// Answer of `hash_details`.
#[derive(Deserialize)]
struct HashDetails {
    algorithms: Vec<String>,
    lookup_pepper: String,
}

/// Answer of `store-invite`.
#[derive(Deserialize)]
struct StoredInvite {
    token: String,
    display_name: String,
    public_keys: Vec<PublicKey>,
}

#[derive(Serialize, Deserialize)]
struct PublicKey {
    public_key: String,
    key_validity_url: String,
}

impl Address {
    /// Reads `medium`, `address`, `id_server` and `id_access_token` of a body.
    pub fn of(body: &Map<String, Value>) -> Result<Self> {
        let text = |key: &str| -> Result<String> {
            let value = body.get(key).ok_or_else(|| {
                Error::missing_param("`id_server` and `id_access_token` are required when doing 3pid invite")
            })?;
            value.as_str().map(str::to_owned).ok_or_else(|| Error::bad_json(format!("{key}: must be a string")))
        };
        let id_server = OwnedServerName::try_from(text("id_server")?)
            .map_err(|_| Error::invalid_param("id_server: must be a server name"))?;
        let id_access_token = text("id_access_token")?;
        Ok(Self { medium: text("medium")?, address: text("address")?, id_server, id_access_token })
    }

    fn url(&self, what: &str) -> String {
        format!("https://{}/_matrix/identity/v2/{what}", self.id_server)
    }

    /// What the address is looked up by, and the name of that way.
    fn lookup_value(&self, details: &HashDetails) -> Option<(String, &'static str)> {
        let (medium, address) = (&self.medium, &self.address);
        if details.algorithms.iter().any(|a| a == "sha256") {
            let hash = Sha256::digest(format!("{address} {medium} {}", details.lookup_pepper));
            return Some((URL_SAFE_NO_PAD.encode(hash), "sha256"));
        }
        details.algorithms.iter().any(|a| a == "none").then(|| (format!("{address} {medium}"), "none"))
    }
}

impl Rooms {
    /// The user an address belongs to. An identity server that fails knows nobody, as in Synapse.
    pub async fn user_of_address(&self, address: &Address) -> Result<Option<OwnedUserId>> {
        self.check_lookup_allowed()?;
        let found = self.look_up(address).await;
        let found = found.inspect_err(|e| warn!(self.cx.log, "an address could not be looked up"; "error" => %e));
        Ok(found.unwrap_or_default())
    }

    /// 403 unless `enable_3pid_lookup`.
    pub(crate) fn check_lookup_allowed(&self) -> Result<()> {
        if self.cx.config.registration.enable_3pid_lookup {
            return Ok(());
        }
        Err(Error::client(403, "M_UNKNOWN", "Looking up third-party identifiers is denied from this server"))
    }

    async fn look_up(&self, address: &Address) -> Result<Option<OwnedUserId>> {
        let call = Call::get(address.url("hash_details")).bearer(&address.id_access_token)?;
        let details: HashDetails = serde_json::from_value(self.ask_identity_server(call).await?)?;
        let Some((value, algorithm)) = address.lookup_value(&details) else {
            return Err(Error::internal("the identity server knows none of our ways to look up"));
        };
        let body = json!({"addresses": [value], "algorithm": algorithm, "pepper": details.lookup_pepper});
        let call = Call::post_json(address.url("lookup"), &body).bearer(&address.id_access_token)?;
        let answer = self.ask_identity_server(call).await?;
        Ok(answer["mappings"][&value].as_str().map(OwnedUserId::try_from).transpose()?)
    }

    pub(crate) async fn ask_identity_server(&self, call: Call) -> Result<Value> {
        let answer = self.cx.outgoing.request(call).await?;
        if !answer.status.is_success() {
            return Err(Error::internal(format!("the identity server answered {}", answer.status)));
        }
        answer.json()
    }

    /// Invites by address: the user it belongs to, or whoever proves to own it later.
    pub async fn invite_by_address(&self, who: &Requester, room_id: &RoomId, address: &Address) -> Result<()> {
        match self.user_of_address(address).await? {
            Some(user) => self.change_membership(who, room_id, Change::new(user, Action::Invite)).await.map(|_| ()),
            None => self.leave_invite(who, room_id, address).await,
        }
    }

    /// Leaves an invite with the identity server and says so in the room (`m.room.third_party_invite`).
    pub async fn leave_invite(&self, who: &Requester, room_id: &RoomId, address: &Address) -> Result<()> {
        if self.cx.config.rooms.block_non_admin_invites && !self.is_server_admin(who).await? {
            return Err(Error::forbidden("Invites have been disabled on this server"));
        }
        self.check_in_room(&who.user_id, room_id, false).await?;
        let invite = self.described(who, room_id, address).await?;
        let call = Call::post_json(address.url("store-invite"), &invite).bearer(&address.id_access_token)?;
        let failed = || Error::client(502, "M_UNKNOWN", "The identity server did not take the invite");
        let answer = self.ask_identity_server(call).await.and_then(|a| Ok(serde_json::from_value::<StoredInvite>(a)?));
        let stored = answer.map_err(|e| {
            warn!(self.cx.log, "an invite by address was not stored"; "error" => %e);
            failed()
        })?;
        let first = stored.public_keys.first().ok_or_else(failed)?;
        let content = json!({
            "display_name": stored.display_name,
            // As before there could be several keys.
            "public_key": first.public_key,
            "key_validity_url": first.key_validity_url,
            "public_keys": stored.public_keys,
        });
        let template = Template::new(who.user_id.clone(), "m.room.third_party_invite", raw(&content)?);
        self.send(who, room_id, template.state(&*stored.token)).await.map(|_| ())
    }

    /// Body of `store-invite`: what the message to the invited person may say.
    async fn described(&self, who: &Requester, room_id: &RoomId, address: &Address) -> Result<Value> {
        let sender = who.user_id.as_str();
        let fields = [
            ("room_alias", "m.room.canonical_alias", "", "alias"),
            ("room_avatar_url", "m.room.avatar", "", "url"),
            ("room_join_rules", "m.room.join_rules", "", "join_rule"),
            ("room_name", "m.room.name", "", "name"),
            ("sender_display_name", "m.room.member", sender, "displayname"),
            ("sender_avatar_url", "m.room.member", sender, "avatar_url"),
        ];
        let keys: Vec<(&str, &str)> = fields.iter().map(|f| (f.1, f.2)).chain([("m.room.create", "")]).collect();
        let state = self.current_events(room_id, &keys).await?;
        let text = |kind: &str, key: &str, field: &str| {
            state.get(&(kind.to_owned(), key.to_owned())).and_then(|e| e.content_str(field))
        };
        let mut body = json!({
            "medium": address.medium,
            "address": address.address,
            "room_id": room_id,
            "sender": sender,
        });
        for (name, kind, key, field) in fields {
            body[name] = text(kind, key, field).unwrap_or_default().into();
        }
        if body["sender_display_name"] == "" {
            body["sender_display_name"] = sender.into();
        }
        if let Some(kind) = text("m.room.create", "", "type") {
            body["room_type"] = kind.into();
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(body: Value) -> Result<Address> {
        Address::of(body.as_object().unwrap())
    }

    #[test]
    fn addresses_are_hashed_as_the_specification_says() {
        let alice = address(json!({"medium": "email", "address": "alice@example.com", "id_server": "id.test",
                                   "id_access_token": "t"}))
        .unwrap();
        let details = |algorithms: &[&str]| HashDetails {
            algorithms: algorithms.iter().map(|a| (*a).to_owned()).collect(),
            lookup_pepper: "matrixrocks".into(),
        };
        // The example of the Identity Service API.
        let hashed = ("4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc".to_owned(), "sha256");
        assert_eq!(alice.lookup_value(&details(&["none", "sha256"])), Some(hashed));
        assert_eq!(alice.lookup_value(&details(&["none"])), Some(("alice@example.com email".into(), "none")));
        assert_eq!(alice.lookup_value(&details(&["md5"])), None);
        assert_eq!(alice.url("lookup"), "https://id.test/_matrix/identity/v2/lookup");
    }

    #[test]
    fn what_is_missing_or_odd_is_named() {
        let code = |body: Value| address(body).unwrap_err().errcode().map(str::to_owned);
        assert_eq!(code(json!({"medium": "email", "address": "a@b"})).as_deref(), Some("M_MISSING_PARAM"));
        let odd = json!({"medium": "email", "address": "a@b", "id_server": "x/../y", "id_access_token": "t"});
        assert_eq!(code(odd).as_deref(), Some("M_INVALID_PARAM"));
    }
}
