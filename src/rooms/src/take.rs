//! Storing events made elsewhere, as the process that writes their room.

use crate::ask::What;
use crate::head::{Head, Tip};
use crate::make::{Made, Step};
use crate::prepared::{Prepared, Source, Wire, with_unsigned};
use crate::resolve::difference;
use crate::{Rooms, Sent, StateMap};
use rules::build::{create_of_room, reference_to};
use rules::{AuthEvent, relation};
use ruma::{EventId, OwnedEventId, OwnedRoomId};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::inbound::Standing;
use store::persist::{NewEvent, StateChange};
use types::{Boxed, Error, Pdu, Result};

impl Rooms {
    /// Serves `send_events`: stores the events and answers with the last.
    pub fn persist_prepared(&self, mut body: Map<String, Value>) -> Boxed<'_, Result<Map<String, Value>>> {
        Box::pin(async move {
            let wire: Vec<Wire> = serde_json::from_value(body.remove("events").unwrap_or_default())
                .map_err(|e| Error::bad_json(format!("events: {e}")))?;
            let prepared: Vec<Prepared> =
                wire.into_iter().map(|w| w.into_prepared(Source::Ours)).collect::<Result<_>>()?;
            let room_id: OwnedRoomId = match prepared.first() {
                Some(first) => first.pdu.room_id.clone(),
                None => return Err(Error::bad_json("events: must not be empty")),
            };
            if prepared.iter().any(|p| p.pdu.room_id != room_id) {
                return Err(Error::bad_json("events: must be of one room"));
            }
            if !self.is_mine(&room_id) {
                return Err(Error::bad_request(format!("{room_id} is written by another process")));
            }
            let sent = self.ask(&room_id, || What::Take(prepared.clone())).await?;
            let last: &Sent = sent.last().ok_or_else(|| Error::internal("no event was stored"))?;
            let answer = json!({"stream_id": last.stream_ordering, "event_id": last.event_id});
            Ok(answer.as_object().cloned().unwrap_or_default())
        })
    }

    /// Finds out which events of a request are stored already, and gets what authorises the others.
    pub(crate) async fn look_ahead(
        &self,
        head: &mut Head,
        events: &[Prepared],
    ) -> Result<HashMap<OwnedEventId, Standing>> {
        let ids: Vec<&EventId> = events.iter().map(|p| &*p.pdu.event_id).collect();
        let known = self.cx.store.standing_of(&ids).await?;
        let new: HashSet<&EventId> = ids.into_iter().filter(|id| !known.contains_key(*id)).collect();
        let mut needed: Vec<OwnedEventId> = Vec::new();
        for p in events.iter().filter(|p| new.contains(&*p.pdu.event_id) && p.pdu.is_state()) {
            needed.extend(auth_ids(head, &p.pdu)?.into_iter().filter(|id| !new.contains(&**id)));
        }
        needed.sort_unstable();
        needed.dedup();
        self.know(head, &needed).await?;
        Ok(known)
    }

    /// Takes a prepared event into the head. `known`: how it stands in the database.
    pub(crate) async fn take_prepared(&self, head: &mut Head, p: &Prepared, known: Option<Standing>) -> Result<Step> {
        let revived = p.source != Source::Ours && known.is_some_and(|k| k.outlier && !k.rejected) && p.is_placed();
        if !revived && let Some(id) = self.known(head, p, known).await? {
            return Ok(Step::Existing(id));
        }
        let (mut pdu, mut json) = (p.pdu.clone(), p.json.clone());
        if p.source == Source::Ours {
            (pdu, json) = self.complete(head, pdu, json).await?;
        }
        if revived && let Some(stored) = self.cx.store.event(&pdu.event_id).await? {
            let pdu = Arc::make_mut(&mut pdu);
            (pdu.stream_ordering, pdu.instance_name) = (stored.stream_ordering, stored.instance_name.clone());
        }
        let related = relation(&pdu);
        let (mut push, mut push_thread) = (Vec::new(), String::new());
        let shown =
            (p.is_placed() && !head.tips.is_empty()) || (pdu.meta.out_of_band_membership && pdu.rejected.is_none());
        if p.source == (Source::Remote { staged: false }) && shown {
            (push, push_thread) = self.notifications(head, &pdu, related.as_ref()).await?;
        }
        let auth_ids = auth_ids(head, &pdu)?;
        self.know(head, &auth_ids).await?;
        // An error from here on leaves the head half changed.
        head.torn = true;
        let place = match pdu.state_key {
            Some(_) if !revived => {
                head.chains.place(&self.cx.store, &self.writing.chains, &pdu, &auth_ids, &head.events).await?.parts()
            }
            _ => (None, false),
        };
        let (mut delta, mut abandoned) = (Vec::new(), false);
        match p.group.filter(|_| p.is_placed()) {
            Some(group) => (delta, abandoned) = self.place(head, p, group, &pdu, &json).await?,
            None => {
                head.events.insert(pdu.event_id.clone(), AuthEvent::new(pdu.clone()));
            }
        }
        head.torn = false;
        let event = NewEvent {
            json,
            state_group: p.group,
            auth_ids,
            chain: place.0,
            chain_later: place.1,
            push,
            staged: p.source != (Source::Remote { staged: false }),
            push_thread,
            relation: related.map(|r| (r.parent, r.rel_type, r.key)),
            remote: p.source != Source::Ours,
            pdu,
        };
        let groups = std::mem::take(&mut head.pending_groups);
        Ok(Step::Made(Box::new(Made { event, groups, delta, abandoned, revived })))
    }

    /// The event becomes an end of the room. Returns what changes, and whether the last local member left.
    async fn place(
        &self,
        head: &mut Head,
        p: &Prepared,
        group: i64,
        pdu: &Arc<Pdu>,
        json: &str,
    ) -> Result<(Vec<StateChange>, bool)> {
        let before = head.members.local.len();
        let was_abandoned = head.abandoned;
        let mut delta = self.follow(head, p, group, pdu, json).await?;
        if was_abandoned && !head.members.local.is_empty() {
            // Nothing was kept of the current state while nobody from here was in the room.
            delta = self.named(head, difference(&StateMap::new(), &head.state)).await?;
        }
        let abandoned = head.members.local.is_empty() && (before > 0 || head.abandoned) && !delta.is_empty();
        head.abandoned = abandoned || (was_abandoned && head.members.local.is_empty());
        head.redact(pdu)?;
        Ok((delta, abandoned))
    }

    /// Checks and completes what a process of this server made: redactions, invites, knocks.
    async fn complete(&self, head: &mut Head, mut pdu: Arc<Pdu>, mut json: String) -> Result<(Arc<Pdu>, String)> {
        if pdu.kind == "m.room.redaction" {
            self.check_redaction(head, pdu.sender.as_str(), pdu.redacts.as_deref()).await?;
            Arc::make_mut(&mut pdu).meta.recheck_redaction = false;
        }
        let field = match pdu.membership().as_deref() {
            Some("invite") => Some("invite_room_state"),
            Some("knock") => Some("knock_room_state"),
            _ => None,
        };
        if let Some(field) = field {
            let stripped = self.stripped_state(head, pdu.sender.as_str()).await?;
            Arc::make_mut(&mut pdu).unsigned.insert(field.into(), stripped.into());
            json = with_unsigned(&json, &pdu.stored_unsigned())?;
        }
        Ok((pdu, json))
    }

    /// The event itself, or one made by an earlier request of the same transaction.
    async fn known(&self, head: &Head, p: &Prepared, known: Option<Standing>) -> Result<Option<OwnedEventId>> {
        let (store, pdu) = (&self.cx.store, &p.pdu);
        if head.tips.iter().any(|t| t.reference.id == pdu.event_id) || known.is_some() {
            return Ok(Some(pdu.event_id.clone()));
        }
        let (Some(device), Some(txn)) = (&pdu.meta.device_id, &pdu.meta.txn_id) else { return Ok(None) };
        let earlier = store.event_of_txn(&pdu.room_id, pdu.sender.as_str(), device, txn).await?;
        Ok(earlier.map(|(id, ..)| id))
    }

    /// Moves the head's ends and state on; returns what changes in the current state.
    async fn follow(
        &self,
        head: &mut Head,
        p: &Prepared,
        group: i64,
        pdu: &Arc<Pdu>,
        json: &str,
    ) -> Result<Vec<StateChange>> {
        let store = &self.cx.store;
        if p.source != Source::Ours && !pdu.prev_events.iter().all(|id| head.tips.iter().any(|t| t.reference.id == *id))
        {
            let before = store.before_refused(&pdu.prev_events).await?;
            head.tips.retain(|t| !before.contains(&t.reference.id));
            if !head.tips.is_empty() && store.is_followed(&pdu.event_id).await? {
                // It came late: others stand on it already.
                return Ok(Vec::new());
            }
        }
        head.tips.retain(|t| !pdu.prev_events.contains(&t.reference.id));
        let alone = head.tips.is_empty();
        let reference = reference_to(&pdu.event_id, json, &head.version)?;
        if let Some(hash) = &reference.hash {
            head.hashes.insert(pdu.event_id.clone(), hash.clone());
        }
        head.tips.push(Tip { reference, depth: pdu.depth, group: Some(group) });
        if pdu.is_state() {
            head.events.insert(pdu.event_id.clone(), AuthEvent::new(pdu.clone()));
        }
        let same = match pdu.state_key {
            None => group == head.group,
            Some(_) => p.before == Some(head.group),
        };
        let mut delta = Vec::new();
        if alone && same {
            if let Some(key) = &pdu.state_key {
                let prev = head.set_state(pdu, key);
                let (kind, state_key) = (pdu.kind.clone(), key.clone());
                delta.push(StateChange { kind, state_key, event_id: Some(pdu.event_id.clone()), prev, known: None });
                (head.group, head.hops) = (group, head.hops + 1);
            }
            return Ok(delta);
        }
        if alone {
            let known = store.state_of_group(group).await?;
            delta = self.adopt_state(head, known.state.clone()).await?;
            (head.group, head.hops) = (group, known.hops);
            return Ok(delta);
        }
        let mut groups: Vec<i64> = head.tips.iter().filter_map(|t| t.group).collect();
        groups.sort_unstable();
        groups.dedup();
        let resolved = self.resolve_groups(head, &groups).await?;
        delta = self.adopt_state(head, resolved).await?;
        self.group_for_state(head, group).await?;
        Ok(delta)
    }
}

/// What authorises an event, the create event of a v12 room included.
pub(crate) fn auth_ids(head: &Head, pdu: &Pdu) -> Result<Vec<OwnedEventId>> {
    let mut ids = pdu.auth_events.clone();
    if head.rules.authorization.room_create_event_id_as_room_id && pdu.kind != "m.room.create" {
        ids.push(create_of_room(&head.room_id)?);
    }
    Ok(ids)
}
