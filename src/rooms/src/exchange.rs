//! Invites by address become invites of users once an identity server says whose the address is (spec: Client-Server
//! API and Server-Server API, "Third-party invites").

use crate::{Rooms, Template};
use outgoing::{Call, escape};
use ruma::{OwnedRoomId, OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use slog::warn;
use types::{Error, Requester, Result, json::raw};

/// Keys of an invite that are looked at.
const MOST_KEYS: usize = 10;

/// What an identity server signs when an address turns out to be somebody's.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Signed {
    pub mxid: OwnedUserId,
    pub token: String,
    /// Server → key id → signature.
    pub signatures: Map<String, Value>,
    /// Anything else that was signed along.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// An invite by address that is to become one of a user.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub room_id: OwnedRoomId,
    /// Who invited the address.
    pub sender: OwnedUserId,
    /// Whose the address is.
    pub target: OwnedUserId,
    pub signed: Signed,
}

/// A key whose signature an invite accepts.
#[derive(Deserialize)]
struct AcceptedKey {
    public_key: String,
    /// Who says whether the key was withdrawn.
    key_validity_url: Option<String>,
}

impl Rooms {
    /// Exchanges the invite of a user of this server: here, or where the room is. 403 for a user of another server, an
    /// invite the room does not have or allow, and what its keys did not sign; 502 if no other server takes it.
    pub async fn exchange_invite(&self, exchange: &Exchange) -> Result<()> {
        if !self.is_local_user(&exchange.target) {
            return Err(Error::forbidden("mxid: not a user of this server"));
        }
        let own = &self.cx.config.server.name;
        match self.cx.store.is_server_in_room(&exchange.room_id, own.as_str()).await? {
            true => self.invite_by_signed(exchange).await,
            false => self.exchange_abroad(exchange).await,
        }
    }

    /// Exchanges an invite for another server. 404 unless this server is in the room; else as
    /// [`Rooms::exchange_invite`].
    pub async fn exchange_for(&self, origin: &ServerName, exchange: &Exchange) -> Result<()> {
        self.active_room(&exchange.room_id).await?;
        self.check_server_allowed(&exchange.room_id, origin).await?;
        self.invite_by_signed(exchange).await
    }

    /// Makes the invite, also in the name of a user of another server: who signed for the address stands for them.
    /// The authorisation rules want the one who invited the address as its sender.
    async fn invite_by_signed(&self, exchange: &Exchange) -> Result<()> {
        let Exchange { room_id, sender, target, signed } = exchange;
        let event = self.current_event(room_id, "m.room.third_party_invite", &signed.token).await?;
        let invite = event.ok_or_else(|| Error::forbidden("signed.token: no such invite in the room"))?;
        let invite: Map<String, Value> = invite.content_as()?;
        self.check_vouched(&invite, signed).await?;
        let content = json!({
            "membership": "invite",
            "third_party_invite": {"display_name": invite.get("display_name"), "signed": signed},
        });
        let template = Template::new(sender.clone(), "m.room.member", raw(&content)?).state(target.as_str());
        self.send(&Requester::for_user(sender), room_id, template).await.map(|_| ())
    }

    /// Has the server of who invited exchange it, else the one that made the room.
    async fn exchange_abroad(&self, exchange: &Exchange) -> Result<()> {
        let Exchange { room_id, sender, target, signed } = exchange;
        let body = json!({
            "type": "m.room.member",
            "room_id": room_id,
            "sender": sender,
            "state_key": target,
            "content": {"membership": "invite", "third_party_invite": {"signed": signed}},
        });
        let path = crate::abroad::path("v1/exchange_third_party_invite", &[room_id.as_str()]);
        let mut servers = vec![sender.server_name()];
        servers.extend(room_id.server_name().filter(|s| *s != sender.server_name()));
        servers.retain(|s| *s != self.cx.config.server.name);
        for server in servers {
            match self.fed.put(server.as_str(), &path, &body).await {
                Ok(_) => return Ok(()),
                Err(e) => {
                    warn!(self.cx.log, "an invite was not exchanged"; "room" => %room_id, "server" => %server, "error" => %e)
                }
            }
        }
        Err(Error::client(502, "M_UNKNOWN", "Failed to forward third party invite"))
    }

    /// 403 unless one of the invite's keys signed, and whoever gave it out stands by it; 502 if they do not say.
    async fn check_vouched(&self, invite: &Map<String, Value>, signed: &Signed) -> Result<()> {
        let signed = serde_json::to_value(signed)?;
        let listed = invite.get("public_keys").and_then(Value::as_array).cloned().unwrap_or_default();
        let keys = std::iter::once(Value::Object(invite.clone())).chain(listed).take(MOST_KEYS);
        let mut outcome = Err(Error::forbidden("signed.signatures: by none of the keys of the invite"));
        for key in keys.filter_map(|k| serde_json::from_value::<AcceptedKey>(k).ok()) {
            if !fedclient::is_signed_with(&signed, &key.public_key)? {
                continue;
            }
            outcome = self.check_not_withdrawn(&key).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn check_not_withdrawn(&self, key: &AcceptedKey) -> Result<()> {
        let Some(url) = &key.key_validity_url else { return Ok(()) };
        if !url.starts_with("https://") {
            return Err(Error::forbidden("The invite's key_validity_url is not https"));
        }
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}public_key={}", escape(&key.public_key));
        let answer = self.ask_identity_server(Call::get(url)).await.map_err(|e| {
            warn!(self.cx.log, "the key of an invite could not be checked"; "error" => %e);
            Error::client(502, "M_UNKNOWN", "Third party certificate could not be checked")
        })?;
        match answer["valid"] == true {
            true => Ok(()),
            false => Err(Error::forbidden("Third party certificate was invalid")),
        }
    }
}
