//! What other servers are told of a room: its state, what authorises events, its history.

use crate::visibility::history_visibility;
use crate::{Rooms, StateMap};
use rules::build::rules_of;
use ruma::{EventId, RoomId, ServerName};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use types::{Error, OwnedEventId, Pdu, Result, canonical};

/// Events `/backfill` gives at most.
const MAX_BACKFILL: i64 = 100;
/// Events `/get_missing_events` gives at most.
const MAX_MISSING: i64 = 20;

/// A state, and everything that authorises its events.
pub struct StateAnswer {
    pub state: Vec<OwnedEventId>,
    pub auth_chain: Vec<OwnedEventId>,
}

/// What `/get_missing_events` asks.
pub struct MissingQuestion {
    /// What the other server has; its events are not wanted.
    pub earliest: Vec<OwnedEventId>,
    /// What it lacks the events before of.
    pub latest: Vec<OwnedEventId>,
    pub limit: i64,
    pub min_depth: i64,
}

impl Rooms {
    /// 403 unless somebody of that server is in the room, and its `m.room.server_acl` lets the server speak.
    pub async fn check_server_in_room(&self, room_id: &RoomId, server: &ServerName) -> Result<()> {
        self.check_server_allowed(room_id, server).await?;
        if self.cx.store.is_server_in_room(room_id, server.as_str()).await? {
            return Ok(());
        }
        Err(Error::forbidden("Host not in room."))
    }

    /// The state before an event, for a server in the room.
    pub async fn state_for_server(&self, room_id: &RoomId, event_id: &EventId) -> Result<StateAnswer> {
        let unknown = || Error::not_found(format!("Could not find event {event_id}"));
        let of_room = |e: &Arc<Pdu>| e.room_id == room_id && !e.outlier && e.rejected.is_none();
        let event = self.cx.store.event(event_id).await?.filter(of_room).ok_or_else(unknown)?;
        let state = self.state_before(&event).await?.ok_or_else(unknown)?;
        self.state_answer(&state).await
    }

    /// A state with its auth chain.
    pub(crate) async fn state_answer(&self, state: &StateMap) -> Result<StateAnswer> {
        let state: Vec<OwnedEventId> = state.values().cloned().collect();
        let auth_chain = self.auth_chain_of(&state).await?;
        Ok(StateAnswer { state, auth_chain })
    }

    /// Everything that authorises events, directly or not.
    pub async fn auth_chain_of<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<Vec<OwnedEventId>> {
        let ids: Vec<&str> = ids.iter().map(|i| i.as_ref().as_str()).collect();
        let edges = self.cx.store.auth_edges(&ids).await?;
        let chain: HashSet<OwnedEventId> = edges.into_values().flatten().collect();
        Ok(chain.into_iter().collect())
    }

    /// Events as servers get them, redacted where a redaction applies; unknown ones are left out.
    pub async fn events_for_server<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<Vec<Value>> {
        let events = self.cx.store.events_in_order(ids).await?;
        self.wire_events(&events, |e| e.redacted_because.is_some()).await
    }

    async fn wire_events(&self, events: &[Arc<Pdu>], pruned: impl Fn(&Pdu) -> bool) -> Result<Vec<Value>> {
        let ids: Vec<&EventId> = events.iter().map(|e| &*e.event_id).collect();
        let jsons = self.cx.store.raw_events(&ids).await?;
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            let Some(json) = jsons.get(&event.event_id) else { continue };
            out.push(wire_event(event, json.get(), pruned(event), self.cx.now_ms())?);
        }
        Ok(out)
    }

    /// One event for a server that is, or may look, into its room. 404 if it is unknown.
    pub async fn event_for_server(&self, server: &ServerName, event_id: &EventId) -> Result<Value> {
        let unknown = || Error::not_found(format!("Could not find event {event_id}"));
        let event = self.cx.store.event(event_id).await?.filter(|e| e.rejected.is_none()).ok_or_else(unknown)?;
        self.check_server_in_room(&event.room_id, server).await?;
        self.visible_for_server(server, vec![event]).await?.pop().ok_or_else(unknown)
    }

    /// History before (and with) these events (spec: "Backfilling"), newest first.
    pub async fn backfill_for_server(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        from: &[OwnedEventId],
        limit: i64,
    ) -> Result<Vec<Value>> {
        self.check_server_in_room(room_id, server).await?;
        let ids = self.cx.store.events_back_from(room_id, from, &[], 0, limit.clamp(1, MAX_BACKFILL)).await?;
        let events = self.cx.store.events_in_order(&ids).await?;
        self.visible_for_server(server, events).await
    }

    /// Events between what the other server has and what it got (`/get_missing_events`), oldest first.
    pub async fn missing_for_server(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        q: MissingQuestion,
    ) -> Result<Vec<Value>> {
        self.check_server_in_room(room_id, server).await?;
        let store = &self.cx.store;
        let limit = q.limit.clamp(1, MAX_MISSING);
        let latest = i64::try_from(q.latest.len()).unwrap_or(MAX_MISSING);
        let mut ids = store.events_back_from(room_id, &q.latest, &q.earliest, q.min_depth, limit + latest).await?;
        ids.retain(|id| !q.latest.contains(id));
        ids.truncate(usize::try_from(limit).unwrap_or_default());
        ids.reverse();
        let events = store.events_in_order(&ids).await?;
        self.visible_for_server(server, events).await
    }

    /// Events as the members of a server may see them: those they may not are redacted (spec: "Room history
    /// visibility").
    async fn visible_for_server(&self, server: &ServerName, events: Vec<Arc<Pdu>>) -> Result<Vec<Value>> {
        let ids: Vec<&EventId> = events.iter().map(|e| &*e.event_id).collect();
        let groups = self.cx.store.groups_of_events(&ids).await?;
        let mut open: HashMap<i64, bool> = HashMap::new();
        for group in groups.values().collect::<HashSet<_>>() {
            let state = self.cx.store.state_of_group(*group).await?;
            open.insert(*group, self.is_open_to(server, &state.state).await?);
        }
        let senders: HashSet<&str> = events.iter().map(|e| e.sender.as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let erased = self.cx.store.erased_among(&senders).await?;
        self.wire_events(&events, |e| {
            let shut = groups.get(&e.event_id).and_then(|g| open.get(g)).is_some_and(|open| !open);
            shut || e.redacted_because.is_some() || erased.iter().any(|u| e.sender == *u)
        })
        .await
    }

    /// Whether a server's members see what was sent in this state.
    async fn is_open_to(&self, server: &ServerName, state: &StateMap) -> Result<bool> {
        let key = ("m.room.history_visibility".to_owned(), String::new());
        let event = match state.get(&key) {
            Some(id) => self.cx.store.event(id).await?,
            None => None,
        };
        let visibility = history_visibility(event.as_deref());
        if matches!(visibility.as_str(), "shared" | "world_readable") {
            return Ok(true);
        }
        let suffix = format!(":{server}");
        let from = ("m.room.member".to_owned(), String::new());
        let members = state.range(from..).take_while(|((kind, _), _)| kind == "m.room.member");
        let ids: Vec<&OwnedEventId> =
            members.filter(|((_, user), _)| user.ends_with(&suffix)).map(|(_, id)| id).collect();
        let members = self.cx.store.events(&ids).await?;
        Ok(members
            .values()
            .filter_map(|m| m.membership())
            .any(|m| m == "join" || (visibility == "invited" && m == "invite")))
    }
}

/// An event as it goes to other servers: with nothing of `unsigned` but its age.
pub(crate) fn wire_event(event: &Pdu, json: &str, pruned: bool, now_ms: i64) -> Result<Value> {
    let mut object: Map<String, Value> = serde_json::from_str(json)?;
    object.remove("unsigned");
    let mut value = Value::Object(object);
    if pruned {
        let rules = rules_of(&event.room_version)?;
        let left = canonical::redacted(&canonical::parse(json)?, &rules.redaction)?;
        value = serde_json::from_str(&canonical::text(&left))?;
    }
    if let Some(at) = event.age_ts {
        value["unsigned"] = json!({"age": now_ms - at});
    }
    Ok(value)
}
