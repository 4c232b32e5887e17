//! Events of other servers as they come in: what lies before them is fetched, then they are placed.

use super::place::Missing;
use super::{Incoming, Judge, Known};
use crate::{Rooms, StateMap};
use ruma::{RoomId, RoomVersionId, ServerName};
use serde_json::{Value, json};
use slog::info;
use std::collections::{HashMap, HashSet};
use store::inbound::Staged;
use types::{Boxed, Error, OwnedEventId, Pdu, Result};

/// Events fetched one by one rather than with their whole state.
const FEW_MISSING: usize = 10;
/// Rounds of fetching what authorises fetched events.
const ROUNDS: u32 = 20;
/// What `/get_missing_events` is asked for.
const MISSING_LIMIT: u32 = 10;

impl Rooms {
    /// Reads one event and checks its signatures. 403 for wrong ones.
    pub(crate) async fn verified(
        &self,
        origin: &ServerName,
        version: &RoomVersionId,
        event: &Value,
    ) -> Result<Incoming> {
        // What cannot be an event is refused for what it is.
        rules::incoming::read(&event.to_string(), version, self.cx.now_ms())?;
        let mut read = self.verify_events(version, vec![event.clone()], origin).await?;
        read.pop().ok_or_else(|| Error::forbidden("event: its signatures could not be verified"))
    }

    /// Works on an event that was acknowledged.
    pub(crate) async fn receive(&self, staged: &Staged, room_id: &RoomId, version: &RoomVersionId) -> Result<()> {
        let event = rules::incoming::read(&staged.json, version, self.cx.now_ms())?;
        let stored = self.cx.store.standing_of(&[&event.pdu.event_id]).await?;
        if stored.get(&event.pdu.event_id).is_some_and(|s| !s.outlier || s.rejected) {
            return Ok(());
        }
        let own = self.cx.config.server.name.as_str();
        if !self.cx.store.is_server_in_room(room_id, own).await? {
            return self.receive_without_room(event).await;
        }
        self.take_live(&staged.origin, event).await
    }

    /// Nobody from here is in the room: only that an invite was taken back matters.
    async fn receive_without_room(&self, event: Incoming) -> Result<()> {
        let Incoming { pdu, json, .. } = event;
        let Some(user) = pdu.state_key.clone().filter(|_| matches!(pdu.membership().as_deref(), Some("leave" | "ban")))
        else {
            return Ok(());
        };
        let Some(known) = self.cx.store.local_membership(&user, pdu.room_id.as_str()).await? else { return Ok(()) };
        if !matches!(known.membership.as_str(), "invite" | "knock") {
            return Ok(());
        }
        let before = self.cx.store.event(&known.event_id).await?;
        // The one who invited may take it back, whatever else the room allows cannot be known here.
        let related =
            before.is_some_and(|b| b.sender.server_name() == pdu.sender.server_name() || known.membership == "knock");
        if related {
            let version = pdu.room_version.clone();
            self.accept_membership(&version, pdu, json).await?;
        }
        Ok(())
    }

    /// Takes an event into a room this server is in, with what lies before it.
    async fn take_live(&self, origin: &ServerName, event: Incoming) -> Result<()> {
        let room_id = event.pdu.room_id.clone();
        if !self.missing_of(&event.pdu).await?.prev.is_empty() {
            self.fill_gap(origin, &event.pdu).await?;
            if !self.missing_of(&event.pdu).await?.prev.is_empty() {
                let text = "Your server isn't divulging details about prev_events referenced in this event.";
                return Err(Error::forbidden(text));
            }
        }
        self.fetch_surroundings(origin, &event.pdu).await?;
        let closes = event.pdu.is_state_of("m.room.guest_access", "")
            && event.pdu.content_str("guest_access").as_deref() != Some("can_join");
        let placed = self.place_event(event, None, Judge::Live).await?;
        let counts = placed.prepared.is_placed();
        self.hand_remote(&room_id, vec![placed.prepared], false).await?;
        if closes && counts {
            self.dismiss_guests(&room_id).await;
        }
        Ok(())
    }

    /// Asks for the events between what is stored and a new event (`get_missing_events`), and takes them.
    async fn fill_gap(&self, origin: &ServerName, pdu: &Pdu) -> Result<()> {
        let store = &self.cx.store;
        let ends: Vec<OwnedEventId> = store.extremities(&pdu.room_id).await?.into_iter().map(|e| e.event_id).collect();
        let path = format!("/_matrix/federation/v1/get_missing_events/{}", fedclient::escape(pdu.room_id.as_str()));
        let body =
            json!({"earliest_events": ends, "latest_events": [pdu.event_id], "limit": MISSING_LIMIT, "min_depth": 0});
        let answer = match self.fed.post(origin.as_str(), &path, &body).await {
            Ok(answer) => answer,
            Err(e) => {
                info!(self.cx.log, "a gap could not be filled"; "room" => %pdu.room_id, "origin" => %origin, "error" => %e);
                return Ok(());
            }
        };
        let Some(Value::Array(events)) = answer.get("events").cloned() else { return Ok(()) };
        let mut events = self.verify_events(&pdu.room_version, events, origin).await?;
        events.retain(|e| e.pdu.room_id == pdu.room_id && e.pdu.event_id != pdu.event_id);
        events.sort_by_key(|e| e.pdu.depth);
        for event in events {
            let stored = store.standing_of(&[&event.pdu.event_id]).await?;
            if stored.get(&event.pdu.event_id).is_some_and(|s| !s.outlier || s.rejected) {
                continue;
            }
            let room_id = event.pdu.room_id.clone();
            let state = self.fetch_surroundings(origin, &event.pdu).await?;
            let placed = self.place_event(event, state, Judge::Live).await?;
            self.hand_remote(&room_id, vec![placed.prepared], false).await?;
        }
        Ok(())
    }

    /// Fetches what authorises an event, and, if events before it are missing, the state there. None: they are not.
    pub(crate) async fn fetch_surroundings(&self, origin: &ServerName, pdu: &Pdu) -> Result<Option<StateMap>> {
        let missing = self.missing_of(pdu).await?;
        if !missing.auth.is_empty() {
            self.fetch_auth(origin, pdu, &missing).await?;
        }
        if missing.prev.is_empty() {
            return Ok(None);
        }
        self.state_at_gap(origin, pdu, &missing).await.map(Some)
    }

    /// Fetches the events that authorise one (`event_auth`, or each by itself).
    async fn fetch_auth(&self, origin: &ServerName, pdu: &Pdu, missing: &Missing) -> Result<()> {
        let path = format!(
            "/_matrix/federation/v1/event_auth/{}/{}",
            fedclient::escape(pdu.room_id.as_str()),
            fedclient::escape(pdu.event_id.as_str())
        );
        let found = match self.fed.get(origin.as_str(), &path).await {
            Ok(mut answer) => match answer.get_mut("auth_chain").map(Value::take) {
                Some(Value::Array(chain)) => self.verify_events(&pdu.room_version, chain, origin).await?,
                _ => Vec::new(),
            },
            Err(e) => {
                info!(self.cx.log, "no auth chain to be had"; "event" => %pdu.event_id, "origin" => %origin, "error" => %e);
                Vec::new()
            }
        };
        let found = match missing.auth.iter().all(|id| found.iter().any(|e| e.pdu.event_id == *id)) {
            true => found,
            false => self.fetch_with_authority(origin, pdu, missing.auth.clone()).await?,
        };
        self.take_outliers(&pdu.room_id, &pdu.room_version, found).await?;
        Ok(())
    }

    /// Fetches events one by one, and what authorises them as far as it is not stored.
    fn fetch_with_authority<'a>(
        &'a self,
        origin: &'a ServerName,
        pdu: &'a Pdu,
        ids: Vec<OwnedEventId>,
    ) -> Boxed<'a, Result<Vec<Incoming>>> {
        Box::pin(async move {
            let rules = rules::build::rules_of(&pdu.room_version)?.authorization;
            let mut asked: HashSet<OwnedEventId> = HashSet::new();
            let (mut wanted, mut found) = (ids, Vec::new());
            for _ in 0..ROUNDS {
                wanted.retain(|id| !asked.contains(id));
                let stored = self.cx.store.standing_of(&wanted).await?;
                wanted.retain(|id| !stored.contains_key(id));
                if wanted.is_empty() {
                    break;
                }
                asked.extend(wanted.iter().cloned());
                let fetched = self.fetch_events(origin, &pdu.room_version, &wanted).await?;
                wanted = Vec::new();
                for event in fetched.into_iter().filter(|e| e.pdu.room_id == pdu.room_id) {
                    wanted.extend(super::check::auth_of(&event.pdu, &rules)?);
                    found.push(event);
                }
            }
            Ok(found)
        })
    }

    /// Fetches events (`event`); those that cannot be had are left out.
    async fn fetch_events(
        &self,
        origin: &ServerName,
        version: &RoomVersionId,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Incoming>> {
        let ask = |id: &OwnedEventId| {
            let path = format!("/_matrix/federation/v1/event/{}", fedclient::escape(id.as_str()));
            async move {
                self.fed.get(origin.as_str(), &path).await.ok().and_then(|mut a| a["pdus"].get_mut(0).map(Value::take))
            }
        };
        let mut events = Vec::with_capacity(ids.len());
        for part in ids.chunks(FEW_MISSING) {
            events.extend(futures::future::join_all(part.iter().map(ask)).await.into_iter().flatten());
        }
        let mut read = self.verify_events(version, events, origin).await?;
        read.retain(|e| ids.contains(&e.pdu.event_id));
        Ok(read)
    }

    /// The state before an event, where events before it are missing: resolved from what is stored and from what the
    /// other server says the state was at the missing ones.
    fn state_at_gap<'a>(
        &'a self,
        origin: &'a ServerName,
        pdu: &'a Pdu,
        missing: &'a Missing,
    ) -> Boxed<'a, Result<StateMap>> {
        Box::pin(async move {
            let store = &self.cx.store;
            let known: Vec<OwnedEventId> =
                pdu.prev_events.iter().filter(|id| !missing.prev.contains(id)).cloned().collect();
            let groups: HashSet<i64> = store.groups_of_events(&known).await?.into_values().collect();
            let mut states = Vec::new();
            for group in groups {
                states.push(store.state_of_group(group).await?.state.clone());
            }
            for prev in &missing.prev {
                states.push(self.state_after_missing(origin, pdu, prev).await?);
            }
            states.dedup();
            match states.len() {
                1 => Ok(states.swap_remove(0)),
                _ => self.resolve_states(&pdu.room_version, states, &HashMap::new()).await,
            }
        })
    }

    /// The state after an event that is not stored (`state_ids`, then what of it is missing).
    async fn state_after_missing(&self, origin: &ServerName, pdu: &Pdu, prev: &OwnedEventId) -> Result<StateMap> {
        let room = fedclient::escape(pdu.room_id.as_str());
        let query = format!("{room}?event_id={}", fedclient::escape(prev.as_str()));
        let answer = self.fed.get(origin.as_str(), &format!("/_matrix/federation/v1/state_ids/{query}")).await?;
        let list = |key: &str| -> Result<Vec<OwnedEventId>> {
            serde_json::from_value(answer.get(key).cloned().unwrap_or_default())
                .map_err(|e| Error::client(502, "M_UNKNOWN", format!("{origin} answered with an unusable {key}: {e}")))
        };
        let (mut ids, chain) = (list("pdu_ids")?, list("auth_chain_ids")?);
        let mut wanted: Vec<OwnedEventId> = ids.iter().chain(&chain).cloned().collect();
        let stored = self.cx.store.standing_of(&wanted).await?;
        wanted.retain(|id| !stored.contains_key(id));
        let mut found = match wanted.len() {
            0..=FEW_MISSING => self.fetch_with_authority(origin, pdu, wanted).await?,
            _ => {
                let mut whole = self.fed.get(origin.as_str(), &format!("/_matrix/federation/v1/state/{query}")).await?;
                let mut events = Vec::new();
                for key in ["auth_chain", "pdus"] {
                    if let Some(Value::Array(list)) = whole.get_mut(key).map(Value::take) {
                        events.extend(list);
                    }
                }
                self.verify_events(&pdu.room_version, events, origin).await?
            }
        };
        // The missing event itself may change the state.
        let mut at = self.fetch_with_authority(origin, pdu, vec![prev.clone()]).await?;
        at.retain(|e| e.pdu.event_id == *prev && e.pdu.is_state());
        if !at.is_empty() {
            ids.push(prev.clone());
        }
        found.extend(at);
        let mut known: Known = self.take_outliers(&pdu.room_id, &pdu.room_version, found).await?;
        let lacking: Vec<OwnedEventId> = ids.iter().filter(|id| !known.contains_key(*id)).cloned().collect();
        for (id, event) in self.cx.store.events(&lacking).await? {
            known.insert(id, rules::AuthEvent::new(event));
        }
        Ok(super::accept::state_of(&ids, &known))
    }
}
