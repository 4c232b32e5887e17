//! Changes of membership where nobody of this server is in the room.

use crate::membership::{Action, Change};
use crate::{Rooms, Sent};
use ruma::{OwnedServerName, RoomId};
use serde_json::{Map, Value};
use types::{Error, Requester, Result};

impl Rooms {
    /// Changes a membership through other servers. None: it can be changed here after all.
    pub(crate) async fn change_abroad(
        &self,
        who: &Requester,
        room_id: &RoomId,
        change: &Change,
        content: &Map<String, Value>,
    ) -> Result<Option<Sent>> {
        let own = &self.cx.config.server.name;
        let target = &change.target;
        let known = self.cx.store.local_membership(target.as_str(), room_id.as_str()).await?;
        let before = match &known {
            Some(known) => self.cx.store.event(&known.event_id).await?,
            None => None,
        };
        let membership = known.as_ref().map(|k| k.membership.as_str());
        match change.action {
            // Whether guests are welcome cannot be known before somebody is in the room.
            Action::Join if who.is_guest => Err(Error::forbidden("Guest access not allowed")),
            Action::Join => {
                let mut servers = change.via.clone();
                if let Some(invite) = before.filter(|_| membership == Some("invite")) {
                    servers.push(invite.sender.server_name().to_owned());
                }
                self.join_through(who, room_id, target, self.others(servers)?, content.clone()).await.map(Some)
            }
            Action::Knock => {
                let servers = self.others(change.via.clone())?;
                self.knock_through(who, room_id, target, servers, content.clone()).await.map(Some)
            }
            Action::Leave | Action::Kick | Action::Unban => match (membership, before) {
                (Some("invite"), Some(invite)) if invite.sender.server_name() != own => {
                    self.decline_through(who, &invite, content.clone()).await.map(Some)
                }
                (Some("knock"), Some(knock)) => self.take_back_through(who, &knock, content.clone()).await.map(Some),
                (Some("invite" | "leave" | "ban"), _) => Ok(None),
                _ => Err(Error::client(404, "M_UNKNOWN", "Not a known room")),
            },
            Action::Invite | Action::Ban => {
                Err(Error::forbidden(format!("User {} not in room {room_id}", who.user_id)))
            }
        }
    }

    /// Other servers among these, each once. 404 without any.
    fn others(&self, servers: Vec<OwnedServerName>) -> Result<Vec<OwnedServerName>> {
        let mut seen = std::collections::HashSet::new();
        let own = &self.cx.config.server.name;
        let others: Vec<_> = servers.into_iter().filter(|s| s != own && seen.insert(s.clone())).collect();
        if others.is_empty() {
            let text = "Can't join remote room because no servers that are in the room have been provided.";
            return Err(Error::client(404, "M_UNKNOWN", text));
        }
        Ok(others)
    }
}
