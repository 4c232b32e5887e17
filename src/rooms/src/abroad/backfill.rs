//! History of a room from before this server knew it, fetched when somebody reads that far back.

use super::{path, unanswered, with_param};
use crate::remote::{Incoming, Judge};
use crate::{Rooms, StateMap};
use ruma::{OwnedServerName, RoomId, ServerName};
use serde_json::Value;
use slog::info;
use store::history_gaps::Gap;
use types::{OwnedEventId, Result};

/// Events asked for at a time.
const BATCH: usize = 100;
/// Ends of what is known that are asked about at a time.
const MAX_ENDS: usize = 5;
/// Ends looked at.
const MAX_LOOKED_AT: i64 = 50;
/// Servers asked before giving up.
const MAX_SERVERS: usize = 5;

impl Rooms {
    /// Fetches history if a page that begins at `depth` and holds `limit` events comes near an end of what is known.
    /// `lowest`: depth of the last event of the page as it is now; None if it is not full. True if there is more now.
    pub(crate) async fn fetch_history(
        &self,
        room_id: &RoomId,
        depth: i64,
        limit: usize,
        lowest: Option<i64>,
    ) -> Result<bool> {
        let now = self.cx.now_ms();
        let near = depth.saturating_add(BATCH as i64);
        let mut gaps = self.cx.store.history_gaps(room_id, near, now, MAX_LOOKED_AT).await?;
        gaps.sort_by_key(|gap| (gap.depth - depth).abs());
        let far = gaps.first().is_none_or(|nearest| depth - 2 * limit as i64 > nearest.depth);
        // A full page above the gap needs nothing from below it.
        if far || lowest.is_some_and(|lowest| gaps.iter().all(|gap| gap.depth <= lowest)) {
            return Ok(false);
        }
        let turn = self.writing.turns.of(room_id);
        let _turn = turn.lock().await;
        let ends: Vec<OwnedEventId> = gaps.into_iter().take(MAX_ENDS).map(|Gap { event_id, .. }| event_id).collect();
        let own = self.cx.config.server.name.as_str();
        let servers = self.cx.store.servers_in_room(room_id.as_str()).await?;
        let servers = servers.iter().filter(|s| *s != own).filter_map(|s| OwnedServerName::try_from(s.as_str()).ok());
        for server in servers.take(MAX_SERVERS) {
            match self.fetch_history_from(&server, room_id, &ends).await {
                Ok(()) => {
                    // Whoever has nothing for us is not asked at every page.
                    self.cx.store.note_open_gaps(room_id, &ends, now).await?;
                    return Ok(true);
                }
                Err(e) => {
                    info!(self.cx.log, "no history from a server"; "room" => %room_id, "server" => %server, "error" => %e)
                }
            }
        }
        Ok(false)
    }

    async fn fetch_history_from(&self, server: &ServerName, room_id: &RoomId, ends: &[OwnedEventId]) -> Result<()> {
        let mut path = with_param(path("v1/backfill", &[room_id.as_str()]), "limit", &BATCH.to_string());
        for end in ends {
            path = with_param(path, "v", end.as_str());
        }
        let mut answer = self.fed.get(server.as_str(), &path).await.map_err(unanswered)?;
        let Some(Value::Array(events)) = answer.get_mut("pdus").map(Value::take) else {
            return Err(super::bad_answer(server, "pdus"));
        };
        let version = self.cx.store.room_version(room_id).await?;
        let version = version.ok_or_else(|| types::Error::not_found("Unknown room"))?;
        let events = self.verify_events(&version, events, server).await?;
        self.take_history(server, room_id, events).await
    }

    /// Takes events of the past, oldest first.
    async fn take_history(&self, server: &ServerName, room_id: &RoomId, mut events: Vec<Incoming>) -> Result<()> {
        let ids: Vec<&OwnedEventId> = events.iter().map(|e| &e.pdu.event_id).collect();
        let known = self.cx.store.standing_of(&ids).await?;
        events.retain(|e| {
            e.pdu.room_id == room_id && known.get(&e.pdu.event_id).is_none_or(|k| k.outlier && !k.rejected)
        });
        events.sort_by_key(|e| e.pdu.depth);
        for event in events {
            // Nothing was before the create event.
            let state = match event.pdu.prev_events.is_empty() {
                true => Some(StateMap::new()),
                false => self.fetch_surroundings(server, &event.pdu).await?,
            };
            let placed = self.place_event(event, state, Judge::History).await?;
            self.hand_remote(room_id, vec![placed.prepared], true).await?;
        }
        Ok(())
    }
}
