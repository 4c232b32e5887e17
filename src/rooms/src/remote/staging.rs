//! Events are acknowledged when they are in `federation_inbound_events_staging`, and worked on room by room after
//! that: by one process at a time, in the order they came.

use crate::Rooms;
use ruma::{OwnedRoomId, RoomId, ServerName};
use serde_json::{Map, Value, json};
use slog::{info, warn};
use std::time::Duration;
use store::locks::Mode;
use types::{Error, OwnedEventId, Result};

/// Synapse's name of the lock.
const LOCK: &str = "federation_inbound_pdu";
/// How often what was left by others is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl Rooms {
    /// Acknowledges events of a transaction. Answers with `{event id: {} or {"error": …}}`.
    pub async fn take_pdus(&self, origin: &ServerName, pdus: Vec<Value>) -> Result<Map<String, Value>> {
        let mut answers = Map::new();
        let mut taken: Vec<(OwnedRoomId, OwnedEventId, String)> = Vec::new();
        for pdu in pdus {
            match self.read_pdu(origin, &pdu).await {
                Ok(None) => {}
                Ok(Some((id, Ok(room_id)))) => {
                    answers.insert(id.to_string(), json!({}));
                    taken.push((room_id, id, pdu.to_string()));
                }
                Ok(Some((id, Err(e)))) => {
                    let text = e.to_string();
                    info!(self.cx.log, "an event is refused"; "event" => %id, "origin" => %origin, "error" => &text);
                    answers.insert(id.to_string(), json!({"error": text}));
                }
                Err(e) => {
                    info!(self.cx.log, "what another server sent is no event"; "origin" => %origin, "error" => %e)
                }
            }
        }
        if taken.is_empty() {
            return Ok(answers);
        }
        self.cx.store.stage_events(origin.as_str(), &taken, self.cx.now_ms()).await?;
        let mut rooms: Vec<OwnedRoomId> = taken.into_iter().map(|t| t.0).collect();
        rooms.sort_unstable();
        rooms.dedup();
        for room_id in rooms {
            self.wake_staged(room_id);
        }
        Ok(answers)
    }

    /// Id of an event, and whether it may be taken. None: its room is not known here. Errors: it has no id.
    #[allow(clippy::type_complexity)]
    async fn read_pdu(&self, origin: &ServerName, pdu: &Value) -> Result<Option<(OwnedEventId, Result<OwnedRoomId>)>> {
        let create = pdu["type"] == "m.room.create" && pdu.get("room_id").is_none();
        let room_id: OwnedRoomId = match pdu.get("room_id").and_then(Value::as_str) {
            Some(id) => id.try_into().map_err(|_| Error::bad_json("event: room_id"))?,
            None if create => return Ok(None),
            None => return Err(Error::bad_json("event: room_id is missing")),
        };
        let Some(version) = self.room_version(&room_id).await? else { return Ok(None) };
        let id = match rules::incoming::read(&pdu.to_string(), &version, self.cx.now_ms()) {
            Ok(event) => event.pdu.event_id,
            Err(e) => match pdu.get("event_id").and_then(Value::as_str).map(OwnedEventId::try_from) {
                Some(Ok(id)) => return Ok(Some((id, Err(e)))),
                _ => match rules::incoming::id_of(&pdu.to_string(), &version) {
                    Some(id) => return Ok(Some((id, Err(e)))),
                    None => return Err(e),
                },
            },
        };
        if let Err(e) = self.check_server_allowed(&room_id, origin).await {
            return Ok(Some((id, Err(e))));
        }
        let checked = self.verified(origin, &version, pdu).await.map(|_| room_id);
        Ok(Some((id, checked)))
    }

    /// Works on what waits in a room, unless somebody does already.
    fn wake_staged(&self, room_id: OwnedRoomId) {
        let rooms = self.clone();
        tokio::spawn(async move {
            if let Err(e) = rooms.work_on_staged(&room_id).await {
                warn!(rooms.cx.log, "events of other servers wait"; "room" => %room_id, "error" => %e);
            }
        });
    }

    async fn work_on_staged(&self, room_id: &RoomId) -> Result<()> {
        let store = &self.cx.store;
        // Another one may come in between the last look and the release.
        while store.next_staged(room_id).await?.is_some() {
            let Some(lock) = store.try_lock(LOCK, room_id.as_str(), Mode::Exclusive).await? else { return Ok(()) };
            let worked = self.empty_staging(room_id).await;
            lock.release().await?;
            worked?;
        }
        Ok(())
    }

    async fn empty_staging(&self, room_id: &RoomId) -> Result<()> {
        let store = &self.cx.store;
        while let Some(staged) = store.next_staged(room_id).await? {
            let Some(version) = self.room_version(room_id).await? else {
                return store.unstage_event(staged.origin.as_str(), &staged.event_id).await;
            };
            if let Err(e) = self.receive(&staged, room_id, &version).await {
                if store::db::is_away(&e) {
                    return Err(e);
                }
                info!(self.cx.log, "an event could not be taken"; "event" => %staged.event_id, "room" => %room_id, "error" => %e);
            }
            store.unstage_event(staged.origin.as_str(), &staged.event_id).await?;
        }
        Ok(())
    }

    /// Looks for ever for what was acknowledged by processes that ended since.
    pub(crate) async fn tend_staged(self) {
        loop {
            match self.cx.store.rooms_with_staged().await {
                Ok(rooms) => rooms.into_iter().for_each(|r| self.wake_staged(r)),
                Err(e) => warn!(self.cx.log, "cannot look for events of other servers that wait"; "error" => %e),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
