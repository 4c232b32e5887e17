//! Which servers a room shuts out (spec: `m.room.server_acl`).

use crate::Rooms;
use rules::validate::acl_allows;
use ruma::{RoomId, ServerName};
use types::{Error, Result};

impl Rooms {
    /// 403 if the room's `m.room.server_acl` shuts the server out.
    pub async fn check_server_allowed(&self, room_id: &RoomId, server: &ServerName) -> Result<()> {
        let acl = self.state_event(room_id, "m.room.server_acl", "").await?;
        match acl.map(|acl| acl.content_as().is_ok_and(|content| acl_allows(&content, server.host()))) {
            Some(false) => Err(Error::forbidden("Server is banned from room")),
            _ => Ok(()),
        }
    }
}
