//! Who may redact what, as far as this server's own users are concerned.

use crate::Rooms;
use crate::head::Head;
use ruma::EventId;
use types::{Error, Result};

impl Rooms {
    /// Checks the target and, for users without the power to redact, that it is their own event.
    pub(crate) async fn check_redaction(&self, head: &mut Head, sender: &str, target: Option<&EventId>) -> Result<()> {
        let Some(target) = target else {
            return Err(Error::missing_param("redacts: the event to redact must be named"));
        };
        let event = match head.events.get(target) {
            Some(e) => Some(e.pdu().clone()),
            None => self.cx.store.event(target).await?.filter(|e| e.rejected.is_none()),
        };
        if let Some(event) = &event {
            if event.kind == "m.room.create" {
                return Err(Error::forbidden("Redacting create events is not permitted"));
            }
            if event.room_id != head.room_id {
                return Err(Error::bad_request("Cannot redact event from a different room"));
            }
            if event.kind == "m.room.server_acl" {
                return Err(Error::forbidden("Redacting server ACL events is not permitted"));
            }
        }
        let levels = head.levels();
        if levels.of(sender) >= levels.redact {
            return Ok(());
        }
        match event {
            None => Err(Error::not_found(format!("Could not find event {target}"))),
            Some(event) if event.sender.as_str() != sender => {
                Err(Error::forbidden("You don't have permission to redact events"))
            }
            Some(_) => Ok(()),
        }
    }
}
