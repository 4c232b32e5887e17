//! Rooms joined, and invites, knocks and leaves made, through another server.

use super::{Incoming, Known, remote};
use crate::{Rooms, Sent, StateMap};
use rules::AuthEvent;
use rules::build::rules_of;
use ruma::{RoomId, RoomVersionId};
use std::sync::Arc;
use store::persist::NewGroup;
use types::{Boxed, Error, OwnedEventId, Pdu, Result};

/// What another server answered to `send_join`, with signatures and hashes checked.
pub struct RemoteRoom {
    pub version: RoomVersionId,
    /// The join as it is in the room now, with everybody's signatures.
    pub join: Incoming,
    /// State before the join.
    pub state: Vec<Incoming>,
    pub auth_chain: Vec<Incoming>,
}

impl Rooms {
    /// Stores a room joined through another server: its state and what authorises it, then the join. 502 if the
    /// answer is no room, or does not allow the join.
    pub fn accept_room(&self, room: RemoteRoom) -> Boxed<'_, Result<Sent>> {
        Box::pin(async move {
            let Incoming { mut pdu, json, .. } = room.join;
            // The server that let our user in tells the others.
            pdu.meta.proactively_send = Some(false);
            let room_id = pdu.room_id.clone();
            let rules = rules_of(&room.version)?.authorization;
            let (state, chain) = (room.state, room.auth_chain);
            let ids: Vec<OwnedEventId> = state.iter().map(|e| e.pdu.event_id.clone()).collect();
            let create = chain.iter().chain(&state).find(|e| e.pdu.is_state_of("m.room.create", ""));
            let creator = create.map(|e| e.pdu.sender.to_string()).ok_or_else(|| unusable("no create event"))?;
            self.cx.store.know_room(&room_id, &room.version, &creator).await?;
            let known = self.take_outliers(&room_id, &room.version, chain.into_iter().chain(state).collect()).await?;
            let before = state_of(&ids, &known);
            let event = AuthEvent::new(Arc::new(pdu.clone()));
            let at = |kind: &str, key: &str| known.get(before.get(&(kind.to_owned(), key.to_owned()))?).cloned();
            rules::auth::check(&event, &rules, at).map_err(|e| unusable(&e.to_string()))?;
            let (group, base) = self.store_state(&room_id, &pdu, &before, None).await?;
            let sent = self.hand_remote(&room_id, vec![remote(pdu, json, Some(group), Some(base))], false).await?;
            if let Some(actor) = self.writing.actors.get(&room_id) {
                // What the room knew of its members is from before.
                actor.outdate();
            }
            Ok(sent)
        })
    }

    /// Stores a membership in a room this server is not in: an invite from there, a knock or a leave sent there.
    pub async fn accept_membership(&self, version: &RoomVersionId, mut pdu: Pdu, json: String) -> Result<Sent> {
        let room_id = pdu.room_id.clone();
        self.cx.store.know_room(&room_id, version, "").await?;
        pdu.meta.out_of_band_membership = true;
        let sent = self.hand_remote(&room_id, vec![super::outlier(pdu, json)], false).await?;
        Ok(sent)
    }

    /// Stores a state before an event, and the one after it. Answers with their groups. `base`: the group of the
    /// state before, if it has one.
    pub(crate) async fn store_state(
        &self,
        room_id: &RoomId,
        pdu: &Pdu,
        before: &StateMap,
        base: Option<i64>,
    ) -> Result<(i64, i64)> {
        let (store, pool) = (&self.cx.store, &self.writing.groups);
        let mut groups = Vec::new();
        let base = match base {
            Some(base) => base,
            None => {
                let id = pool.take(store).await?;
                let rows = before.iter().map(|((k, s), e)| (k.clone(), s.clone(), e.clone())).collect();
                groups.push(NewGroup { id, event_id: pdu.event_id.clone(), prev: None, rows });
                id
            }
        };
        let mut after = base;
        if let Some(key) = pdu.state_key.as_ref().filter(|_| pdu.rejected.is_none()) {
            after = pool.take_above(store, base).await?;
            let long = groups.is_empty() && store.state_of_group(base).await?.hops >= store::state_groups::MAX_HOPS;
            let entry = (pdu.kind.clone(), key.clone(), pdu.event_id.clone());
            let (prev, rows) = match long {
                false => (Some(base), vec![entry]),
                true => {
                    let mut state = before.clone();
                    state.insert((entry.0, entry.1), entry.2);
                    (None, state.iter().map(|((k, s), e)| (k.clone(), s.clone(), e.clone())).collect())
                }
            };
            groups.push(NewGroup { id: after, event_id: pdu.event_id.clone(), prev, rows });
        }
        if !groups.is_empty() {
            store.store_ahead(room_id, &groups, &[], self.cx.now_ms()).await?;
        }
        Ok((after, base))
    }
}

/// The state made of these events; rejected ones are no part of it.
pub(crate) fn state_of(ids: &[OwnedEventId], known: &Known) -> StateMap {
    let accepted = ids.iter().filter_map(|id| known.get(id)).filter(|e| e.pdu().rejected.is_none());
    accepted
        .filter_map(|e| Some(((e.pdu().kind.clone(), e.pdu().state_key.clone()?), e.pdu().event_id.clone())))
        .collect()
}

fn unusable(what: &str) -> Error {
    Error::client(502, "M_UNKNOWN", format!("The other server's answer cannot be used: {what}"))
}
