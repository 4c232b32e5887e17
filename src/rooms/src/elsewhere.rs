//! Rooms that another process writes: the request goes there.

use crate::{NewRoom, Rooms, Sent, Template};
use config::StreamGroup;
use ruma::RoomId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use types::{Error, Requester, Result};

/// Names of the replication endpoints between Plexus processes.
pub const SEND: &str = "plexus_send_events";
pub const CREATE: &str = "plexus_create_room";

#[derive(Serialize, Deserialize)]
struct SendBody {
    requester: Requester,
    templates: Vec<Template>,
}

#[derive(Serialize, Deserialize)]
struct CreateBody {
    requester: Requester,
    room: NewRoom,
}

#[derive(Serialize, Deserialize)]
struct SentBody {
    sent: Vec<Sent>,
}

fn payload<T: Serialize>(body: &T) -> Result<Map<String, Value>> {
    match serde_json::to_value(body)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::internal("a request between processes must be an object")),
    }
}

impl Rooms {
    /// Lets the owner of the room make the events.
    pub(crate) async fn send_elsewhere(
        &self,
        who: &Requester,
        room_id: &RoomId,
        templates: Vec<Template>,
    ) -> Result<Vec<Sent>> {
        let owner = self.cx.owner(StreamGroup::Events, room_id.as_str());
        if !self.cx.peers.is_plexus(owner).await {
            return self.send_prepared(owner, who, room_id, &templates).await;
        }
        let body = payload(&SendBody { requester: who.clone(), templates })?;
        let answer = self.cx.peers.call(owner, SEND, &[room_id.as_str()], true, body).await?;
        Ok(serde_json::from_value::<SentBody>(answer)?.sent)
    }

    /// Lets an events writer make the room.
    pub(crate) async fn create_elsewhere(&self, who: &Requester, room: NewRoom) -> Result<Vec<Sent>> {
        let writers = self.cx.config.owners().writers(StreamGroup::Events);
        let start = rand::random_range(0..writers.len().max(1));
        for owner in writers.iter().cycle().skip(start).take(writers.len()) {
            if self.cx.peers.is_plexus(owner).await {
                let body = payload(&CreateBody { requester: who.clone(), room })?;
                let answer = self.cx.peers.call(owner, CREATE, &[], true, body).await?;
                return Ok(serde_json::from_value::<SentBody>(answer)?.sent);
            }
        }
        self.create_through_synapse(who, room).await
    }

    /// Serves [`SEND`] in the owner.
    pub async fn serve_send(&self, room_id: &RoomId, body: Map<String, Value>) -> Result<Map<String, Value>> {
        if !self.is_mine(room_id) {
            return Err(Error::bad_request(format!("{room_id} is written by another process")));
        }
        let body: SendBody = serde_json::from_value(body.into())?;
        payload(&SentBody { sent: self.send_many(&body.requester, room_id, body.templates).await? })
    }

    /// Serves [`CREATE`] in an events writer.
    pub async fn serve_create(&self, body: Map<String, Value>) -> Result<Map<String, Value>> {
        let body: CreateBody = serde_json::from_value(body.into())?;
        payload(&SentBody { sent: self.create(&body.requester, body.room).await? })
    }
}
