//! From what a caller wants to an event on top of a room's head.

use crate::chain::Placed;
use crate::head::{Head, Tip};
use crate::{Rooms, Template};
use rand::seq::IndexedRandom;
use rules::build::{build, create_of_room};
use rules::{AuthEvent, Built, Draft, Reference, relation, validate};
use ruma::OwnedEventId;
use serde_json::{Map, Value};
use std::sync::Arc;
use store::persist::{NewEvent, NewGroup, StateChange};
use store::state_groups::{GroupState, MAX_HOPS};
use types::{Boxed, Error, EventFormat, InternalMetadata, Pdu, Requester, Result};

/// An event with what is stored along with it.
pub(crate) struct Made {
    pub event: NewEvent,
    pub groups: Vec<NewGroup>,
    pub delta: Vec<StateChange>,
    /// The last local member left.
    pub abandoned: bool,
    /// The event was stored before, without its place in the room.
    pub revived: bool,
}

/// What became of a template.
pub(crate) enum Step {
    Made(Box<Made>),
    /// The state is already as wanted.
    Existing(OwnedEventId),
}

/// An event refers to at most this many predecessors.
const MAX_PREV: usize = 10;
/// Permissions remembered at most.
const MANY_ALLOWED: usize = 4_000;

impl Rooms {
    /// Makes an event and takes it into the head. On an error the head is as before.
    pub(crate) fn make<'a>(
        &'a self,
        head: &'a mut Head,
        who: &'a Requester,
        t: &'a Template,
    ) -> Boxed<'a, Result<Step>> {
        Box::pin(async move {
            let content: Map<String, Value> =
                serde_json::from_str(t.content.get()).map_err(|_| Error::bad_json("content: must be an object"))?;
            let is_create = t.kind == "m.room.create" && t.state_key.as_deref() == Some("");
            if is_create && !head.tips.is_empty() {
                return Err(Error::forbidden("Changing the room create event is forbidden"));
            }
            if !is_create && head.tips.is_empty() {
                return Err(Error::forbidden("Unknown room"));
            }
            if t.kind != "m.room.member" && !is_create && !head.members.local.contains_key(t.sender.as_str()) {
                return Err(not_in_room(head, t.sender.as_str()));
            }
            let room_id = (!is_create).then_some(head.room_id.as_str());
            validate::new_event(
                &t.kind,
                t.state_key.as_deref(),
                &content,
                room_id,
                self.writing.signer.server_name.as_str(),
            )?;
            if let Some(existing) = self.same_state(head, t, &content).await? {
                return Ok(Step::Existing(existing));
            }
            let auth_ids = self.auth_ids(head, t, is_create)?;
            let mut needed = auth_ids.clone();
            needed.extend(head.state_id("m.room.create", "").cloned());
            self.need(head, &needed).await?;
            let (meta, unsigned) = self.dress(head, who, t, &content).await?;
            let built = self.build_on(head, t, &auth_ids, meta, unsigned, is_create).await?;
            self.authorise(head, &built)?;
            self.finish(head, built, auth_ids).await
        })
    }

    /// A state event that would change nothing is not made: the present one answers for it.
    async fn same_state(
        &self,
        head: &mut Head,
        t: &Template,
        content: &Map<String, Value>,
    ) -> Result<Option<OwnedEventId>> {
        let Some(key) = &t.state_key else { return Ok(None) };
        let Some(id) = head.state_id(&t.kind, key).cloned() else { return Ok(None) };
        self.need(head, std::slice::from_ref(&id)).await?;
        let same = head.events.get(&id).is_some_and(|e| {
            e.pdu().sender == t.sender && e.pdu().content_as::<Map<String, Value>>().is_ok_and(|c| c == *content)
        });
        Ok(same.then_some(id))
    }

    /// Auth events by the selection rules, with the create event in all versions.
    pub(crate) fn auth_ids(&self, head: &Head, t: &Template, is_create: bool) -> Result<Vec<OwnedEventId>> {
        if is_create {
            return Ok(Vec::new());
        }
        let rules = &head.rules.authorization;
        let types = rules::auth::auth_types(&t.kind, &t.sender, t.state_key.as_deref(), &t.content, rules)?;
        let mut ids: Vec<OwnedEventId> = types.iter().filter_map(|(k, s)| head.state_id(k, s).cloned()).collect();
        if rules.room_create_event_id_as_room_id {
            ids.push(create_of_room(&head.room_id)?);
        }
        Ok(ids)
    }

    /// What is kept beside the event proper.
    async fn dress(
        &self,
        head: &mut Head,
        who: &Requester,
        t: &Template,
        content: &Map<String, Value>,
    ) -> Result<(InternalMetadata, Map<String, Value>)> {
        let meta = InternalMetadata {
            device_id: who.device_id.clone(),
            txn_id: t.txn_id.clone(),
            // An invite by address may be one of another server's user; it is ours to send.
            send_on_behalf_of: (!self.is_local_user(&t.sender)).then(|| self.cx.config.server.name.to_string()),
            ..InternalMetadata::default()
        };
        let mut unsigned = t.unsigned.clone();
        unsigned.insert("age_ts".into(), self.cx.now_ms().into());
        if let Some(replaced) = t.state_key.as_ref().and_then(|key| head.state_id(&t.kind, key)) {
            unsigned.insert("replaces_state".into(), replaced.as_str().into());
        }
        if t.kind == "m.room.member" {
            let field = match content.get("membership").and_then(Value::as_str) {
                Some("invite") => Some("invite_room_state"),
                Some("knock") => Some("knock_room_state"),
                _ => None,
            };
            if let Some(field) = field {
                let stripped = self.stripped_state(head, t.sender.as_str()).await?;
                unsigned.insert(field.into(), stripped.into());
            }
        }
        if t.kind == "m.room.redaction" {
            self.check_redaction(head, t.sender.as_str(), t.redacts.as_deref()).await?;
        }
        if content.contains_key("m.relates_to") {
            self.check_relation(head, t, content).await?;
        }
        Ok((meta, unsigned))
    }

    /// What an invited or knocking user may know of the room.
    pub(crate) async fn stripped_state(&self, head: &mut Head, inviter: &str) -> Result<Vec<Value>> {
        let ids = self.stripped_ids(head, inviter);
        self.need(head, &ids).await?;
        ids.iter().filter_map(|id| head.events.get(id)).map(|e| e.pdu().to_stripped()).collect()
    }

    /// The events of [`Rooms::stripped_state`].
    pub(crate) fn stripped_ids(&self, head: &Head, inviter: &str) -> Vec<OwnedEventId> {
        let mut ids: Vec<OwnedEventId> = Vec::new();
        let sender = ("m.room.member".to_owned(), Some(inviter.to_owned()));
        for (kind, key) in self.cx.config.rooms.prejoin_state.iter().chain(std::iter::once(&sender)) {
            match key {
                Some(key) => ids.extend(head.state_id(kind, key).cloned()),
                None => {
                    let from = (kind.clone(), String::new());
                    let all = head.state.range(from..).take_while(|((k, _), _)| k == kind);
                    ids.extend(all.map(|(_, id)| id.clone()));
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        ids
    }

    pub(crate) async fn build_on(
        &self,
        head: &mut Head,
        t: &Template,
        auth_ids: &[OwnedEventId],
        meta: InternalMetadata,
        unsigned: Map<String, Value>,
        is_create: bool,
    ) -> Result<Built> {
        let hashed = head.rules.authorization.room_create_event_id_as_room_id;
        let create = if hashed && !is_create { Some(create_of_room(&head.room_id)?) } else { None };
        let named: Vec<OwnedEventId> = auth_ids.iter().filter(|id| Some(*id) != create.as_ref()).cloned().collect();
        self.need_hashes(head, &named).await?;
        let auth_events = named.into_iter().map(|id| Reference { hash: head.hashes.get(&id).cloned(), id }).collect();
        let tips: Vec<&Tip> = if head.tips.len() > MAX_PREV {
            head.tips.choose_multiple(&mut rand::rng(), MAX_PREV).collect()
        } else {
            head.tips.iter().collect()
        };
        let depth = tips.iter().map(|tip| tip.depth).max().unwrap_or(0).saturating_add(1);
        let old = EventFormat::of(&head.version) == EventFormat::V1;
        let now = self.cx.now_ms();
        build(
            Draft {
                version: &head.version,
                room_id: (!(hashed && is_create)).then_some(&head.room_id),
                sender: &t.sender,
                kind: &t.kind,
                state_key: t.state_key.as_deref(),
                content: &t.content,
                redacts: t.redacts.as_deref(),
                origin_server_ts: t.origin_server_ts.unwrap_or(now),
                depth,
                prev_events: tips.iter().map(|tip| tip.reference.clone()).collect(),
                auth_events,
                unsigned,
                meta,
                chosen_id: if old { Some(self.new_event_id()?) } else { None },
            },
            &self.writing.signer,
        )
    }

    /// Checks the authorisation rules. What was found of plain messages holds until the state changes.
    pub(crate) fn authorise(&self, head: &mut Head, built: &Built) -> Result<()> {
        let pdu = &built.pdu;
        let plain = pdu.state_key.is_none() && pdu.redacts.is_none();
        let key = (pdu.sender.to_string(), pdu.kind.clone());
        if plain && head.allowed.contains(&key) {
            return Ok(());
        }
        let event = AuthEvent::new(Arc::new(pdu.clone()));
        rules::auth::check(&event, &head.rules.authorization, |kind, key| head.state_event(kind, key).cloned())
            .map_err(|e| self.explain(head, pdu, e))?;
        if plain {
            if head.allowed.len() >= MANY_ALLOWED {
                head.allowed.clear();
            }
            head.allowed.insert(key);
        }
        Ok(())
    }

    /// Says "not in the room" as Synapse does, since clients show it.
    fn explain(&self, head: &Head, pdu: &Pdu, error: Error) -> Error {
        let membership = head.state_event("m.room.member", pdu.sender.as_str()).and_then(|e| e.pdu().membership());
        if pdu.kind != "m.room.member" && membership.as_deref() != Some("join") {
            return not_in_room(head, pdu.sender.as_str());
        }
        error
    }

    /// State group, chain cover, notifications; then the event becomes the head's tip.
    fn finish<'a>(&'a self, head: &'a mut Head, built: Built, auth_ids: Vec<OwnedEventId>) -> Boxed<'a, Result<Step>> {
        Box::pin(async move {
            let store = &self.cx.store;
            let Built { pdu, json, reference } = built;
            let pdu = Arc::new(pdu);
            let related = relation(&pdu);
            let (push, push_thread) = self.notifications(head, &pdu, related.as_ref()).await?;
            let place = match pdu.state_key {
                Some(_) => head.chains.place(store, &self.writing.chains, &pdu, &auth_ids, &head.events).await?,
                None => Placed::No,
            };
            let mut groups = Vec::new();
            if head.tips.is_empty() {
                // The state before the first event: nothing.
                head.group = self.writing.groups.take(store).await?;
                groups.push(NewGroup { id: head.group, event_id: pdu.event_id.clone(), prev: None, rows: Vec::new() });
            }
            let group = match pdu.state_key {
                Some(_) => Some(self.writing.groups.take_above(store, head.group).await?),
                None => None,
            };
            head.redact(&pdu)?;
            // Nothing can fail from here on.
            head.note_message(&pdu);
            if head.tips.is_empty() {
                head.room_id = pdu.room_id.clone();
            }
            let (mut delta, mut abandoned) = (Vec::new(), false);
            if let (Some(key), Some(id)) = (&pdu.state_key, group) {
                let before = head.members.local.len();
                let (group, change) = change_state(head, id, &pdu, key);
                // Nobody can name the group before the commit, and it never changes.
                store.remember_group(id, Arc::new(GroupState { state: head.state.clone(), hops: head.hops }));
                abandoned = head.members.local.is_empty() && (before > 0 || head.abandoned);
                groups.push(group);
                delta.push(change);
            }
            head.abandoned = abandoned;
            head.tips = vec![Tip { depth: pdu.depth, reference: reference.clone(), group: Some(head.group) }];
            if let Some(hash) = reference.hash {
                head.hashes.insert(reference.id, hash);
            }
            let (chain, chain_later) = place.parts();
            let event = NewEvent {
                json,
                state_group: Some(head.group),
                auth_ids,
                chain,
                chain_later,
                push,
                staged: false,
                push_thread,
                relation: related.map(|r| (r.parent, r.rel_type, r.key)),
                remote: false,
                pdu,
            };
            Ok(Step::Made(Box::new(Made { event, groups, delta, abandoned, revived: false })))
        })
    }
}

fn not_in_room(head: &Head, user: &str) -> Error {
    Error::forbidden(format!("User {user} not in room {}", head.room_id))
}

/// Takes a state event into the head's state: the group after it, and what changed.
fn change_state(head: &mut Head, id: i64, pdu: &Arc<Pdu>, key: &str) -> (NewGroup, StateChange) {
    let prev = head.set_state(pdu, key);
    let change = StateChange {
        kind: pdu.kind.clone(),
        state_key: key.to_owned(),
        event_id: Some(pdu.event_id.clone()),
        prev,
        known: None,
    };
    (next_group(head, id, pdu, key), change)
}

/// The group after a state event: a delta, or the whole state when the chain gets long.
fn next_group(head: &mut Head, id: i64, pdu: &Pdu, key: &str) -> NewGroup {
    let (prev, rows) = if head.hops >= MAX_HOPS {
        head.hops = 0;
        (None, head.state.iter().map(|((k, s), e)| (k.clone(), s.clone(), e.clone())).collect())
    } else {
        head.hops += 1;
        (Some(head.group), vec![(pdu.kind.clone(), key.to_owned(), pdu.event_id.clone())])
    };
    head.group = id;
    NewGroup { id, event_id: pdu.event_id.clone(), prev, rows }
}
