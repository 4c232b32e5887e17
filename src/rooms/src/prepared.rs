//! Events that another process made and this one, as the room's owner, stores (HTTP replication `send_events`).

use crate::actor::What;
use crate::head::{Head, Tip};
use crate::make::{Made, Step};
use crate::{Rooms, Sent};
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use rules::build::{create_of_room, reference_to};
use rules::{AuthEvent, relation};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::persist::{NewEvent, StateChange};
use types::{Error, EventFormat, InternalMetadata, Pdu, Result};

/// An event as its maker hands it over. Its state groups are stored already.
#[derive(Clone, Debug)]
pub struct Prepared {
    pdu: Arc<Pdu>,
    json: String,
    /// State group after the event.
    group: i64,
    /// State group before it.
    before: Option<i64>,
}

/// One element of the body's `events`.
#[derive(Deserialize)]
struct Wire {
    event: Value,
    room_version: RoomVersionId,
    internal_metadata: InternalMetadata,
    #[serde(default)]
    outlier: bool,
    rejected_reason: Option<String>,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    state_group: Option<i64>,
    state_group_before_event: Option<i64>,
    rejected: Option<String>,
}

impl Wire {
    fn into_prepared(self) -> Result<Prepared> {
        let bad = |what: &str| Error::bad_json(format!("events: {what}"));
        if self.outlier || self.rejected_reason.is_some() || self.context.rejected.is_some() {
            return Err(bad("outliers and rejected events are not taken this way"));
        }
        let group = self.context.state_group.ok_or_else(|| bad("context.state_group is missing"))?;
        let json = self.event.to_string();
        let event_id = id_of(&self.event, &json, &self.room_version)?;
        let mut pdu = Pdu::parse(&json, &event_id, &self.room_version)?;
        pdu.meta = self.internal_metadata;
        Ok(Prepared { pdu: Arc::new(pdu), json, group, before: self.context.state_group_before_event })
    }
}

fn id_of(event: &Value, json: &str, version: &RoomVersionId) -> Result<OwnedEventId> {
    if EventFormat::of(version) == EventFormat::V1 {
        let id = event.get("event_id").and_then(Value::as_str);
        return Ok(id.ok_or_else(|| Error::bad_json("events: event_id is missing"))?.try_into()?);
    }
    let object = serde_json::from_str(json)?;
    let hash = ruma::signatures::reference_hash(&object, &rules::build::rules_of(version)?)?;
    Ok(format!("${hash}").try_into()?)
}

impl Rooms {
    /// Serves `send_events`: stores the events and answers with the last.
    pub async fn persist_prepared(&self, mut body: Map<String, Value>) -> Result<Map<String, Value>> {
        let wire: Vec<Wire> = serde_json::from_value(body.remove("events").unwrap_or_default())
            .map_err(|e| Error::bad_json(format!("events: {e}")))?;
        let prepared: Vec<Prepared> = wire.into_iter().map(Wire::into_prepared).collect::<Result<_>>()?;
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
    }

    /// Takes a prepared event into the head.
    pub(crate) async fn take_prepared(&self, head: &mut Head, p: &Prepared) -> Result<Step> {
        if let Some(id) = self.known(head, &p.pdu).await? {
            return Ok(Step::Existing(id));
        }
        let (mut pdu, mut json) = (p.pdu.clone(), p.json.clone());
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
            json = with_unsigned(&json, &pdu.unsigned)?;
        }
        let mut auth_ids = pdu.auth_events.clone();
        if head.rules.authorization.room_create_event_id_as_room_id && pdu.kind != "m.room.create" {
            auth_ids.push(create_of_room(&head.room_id)?);
        }
        self.need(head, &auth_ids).await?;
        // An error from here on leaves the head half changed.
        head.torn = true;
        let place = match pdu.state_key {
            Some(_) => {
                head.chains.place(&self.cx.store, &self.writing.chains, &pdu, &auth_ids, &head.events).await?.parts()
            }
            None => (None, false),
        };
        let before = head.members.local.len();
        let delta = self.follow(head, p, &pdu, &json).await?;
        let abandoned = head.members.local.is_empty() && (before > 0 || head.abandoned) && !delta.is_empty();
        head.abandoned = abandoned;
        head.redact(&pdu)?;
        head.torn = false;
        let related = relation(&pdu);
        let event = NewEvent {
            json,
            state_group: Some(p.group),
            auth_ids,
            chain: place.0,
            chain_later: place.1,
            push: Vec::new(),
            staged: true,
            push_thread: String::new(),
            relation: related.map(|r| (r.parent, r.rel_type, r.key)),
            pdu,
        };
        let groups = std::mem::take(&mut head.pending_groups);
        Ok(Step::Made(Box::new(Made { event, groups, delta, abandoned })))
    }

    /// The event itself, or one made by an earlier request of the same transaction.
    async fn known(&self, head: &Head, pdu: &Pdu) -> Result<Option<OwnedEventId>> {
        let store = &self.cx.store;
        if head.tips.iter().any(|t| t.reference.id == pdu.event_id) || store.event(&pdu.event_id).await?.is_some() {
            return Ok(Some(pdu.event_id.clone()));
        }
        let (Some(device), Some(txn)) = (&pdu.meta.device_id, &pdu.meta.txn_id) else { return Ok(None) };
        let earlier = store.event_of_txn(&pdu.room_id, pdu.sender.as_str(), device, txn).await?;
        Ok(earlier.map(|(id, ..)| id))
    }

    /// Moves the head's ends and state on; returns what changes in the current state.
    async fn follow(&self, head: &mut Head, p: &Prepared, pdu: &Arc<Pdu>, json: &str) -> Result<Vec<StateChange>> {
        let store = &self.cx.store;
        head.tips.retain(|t| !pdu.prev_events.contains(&t.reference.id));
        let alone = head.tips.is_empty();
        let reference = reference_to(&pdu.event_id, json, &head.version)?;
        if let Some(hash) = &reference.hash {
            head.hashes.insert(pdu.event_id.clone(), hash.clone());
        }
        head.tips.push(Tip { reference, depth: pdu.depth, group: Some(p.group) });
        if pdu.is_state() {
            head.events.insert(pdu.event_id.clone(), AuthEvent::new(pdu.clone()));
        }
        let same = match pdu.state_key {
            None => p.group == head.group,
            Some(_) => p.before == Some(head.group),
        };
        let mut delta = Vec::new();
        if alone && same {
            if let Some(key) = &pdu.state_key {
                let prev = head.set_state(pdu, key);
                let (kind, state_key) = (pdu.kind.clone(), key.clone());
                delta.push(StateChange { kind, state_key, event_id: Some(pdu.event_id.clone()), prev, known: None });
                (head.group, head.hops) = (p.group, head.hops + 1);
            }
            return Ok(delta);
        }
        if alone {
            let known = store.state_of_group(p.group).await?;
            delta = self.adopt_state(head, known.state.clone()).await?;
            (head.group, head.hops) = (p.group, known.hops);
            return Ok(delta);
        }
        let mut groups: Vec<i64> = head.tips.iter().filter_map(|t| t.group).collect();
        groups.sort_unstable();
        groups.dedup();
        let resolved = self.resolve_groups(head, &groups).await?;
        delta = self.adopt_state(head, resolved).await?;
        self.group_for_state(head, p.group).await?;
        Ok(delta)
    }
}

fn with_unsigned(json: &str, unsigned: &Map<String, Value>) -> Result<String> {
    let mut object: Map<String, Value> = serde_json::from_str(json)?;
    object.insert("unsigned".into(), Value::Object(unsigned.clone()));
    Ok(serde_json::to_string(&object)?)
}
