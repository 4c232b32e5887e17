//! Rooms written by a Synapse process: the events are made here, on what is committed, and handed over with
//! their state groups already stored (HTTP replication `send_events`).

use crate::chain::Chains;
use crate::create::complete_create;
use crate::head::Head;
use crate::make::{Made, Step};
use crate::{NewRoom, Rooms, Sent, Template};
use config::StreamGroup;
use replication::shared::{JOINED_HOSTS, PREV_STATE_GROUP, TTL};
use rules::build::rules_of;
use ruma::{EventId, OwnedEventId, RoomId};
use serde_json::{Map, Value, json};
use store::persist::{NewEvent, NewGroup};
use types::{Boxed, Error, EventFormat, Requester, Result};

/// Tries when the room changes under us (409).
const TRIES: u32 = 3;

impl Rooms {
    /// Makes events and lets the owner store them.
    pub(crate) fn send_prepared<'a>(
        &'a self,
        owner: &'a str,
        who: &'a Requester,
        room_id: &'a RoomId,
        templates: &'a [Template],
    ) -> Boxed<'a, Result<Vec<Sent>>> {
        Box::pin(async move {
            let _not_purged = self.keep_from_purge(room_id).await?;
            let mut attempt = 0;
            loop {
                attempt += 1;
                let mut head = self.load(room_id).await?;
                head.chains = Chains::new(false);
                if let [t] = templates
                    && let Some(sent) = self.sent_before(who, room_id, t).await?
                {
                    return Ok(vec![sent]);
                }
                let mut made = self.prepare(&mut head, who, templates).await?;
                for step in &mut made {
                    if let Handed::Made { made, .. } = step {
                        self.have_invite_signed(&mut head, made).await?;
                    }
                }
                match self.hand_over(owner, who, &head, made).await {
                    Err(e) if e.status() == 409 && attempt < TRIES => {}
                    other => return other,
                }
            }
        })
    }

    async fn sent_before(&self, who: &Requester, room_id: &RoomId, t: &Template) -> Result<Option<Sent>> {
        let (Some(device), Some(txn)) = (&who.device_id, &t.txn_id) else { return Ok(None) };
        let found = self.cx.store.event_of_txn(room_id, t.sender.as_str(), device, txn).await?;
        Ok(found.map(|(event_id, stream_ordering, instance)| Sent {
            event_id,
            room_id: room_id.to_owned(),
            stream_ordering,
            instance: instance.unwrap_or_else(|| types::MASTER.to_owned()),
        }))
    }

    async fn prepare(&self, head: &mut Head, who: &Requester, templates: &[Template]) -> Result<Vec<Handed>> {
        let mut steps = Vec::with_capacity(templates.len());
        for template in templates {
            let before = head.group;
            match self.make(head, who, template).await? {
                Step::Existing(id) => steps.push(Handed::Existing(id)),
                Step::Made(made) => {
                    let mut made = *made;
                    made.groups.splice(0..0, std::mem::take(&mut head.pending_groups));
                    let before = if made.event.pdu.prev_events.is_empty() { first_group(&made) } else { before };
                    steps.push(Handed::Made { made: Box::new(made), before });
                }
            }
        }
        Ok(steps)
    }

    /// Stores groups and notifications, then calls the owner once for all events.
    fn hand_over<'a>(
        &'a self,
        owner: &'a str,
        who: &'a Requester,
        head: &'a Head,
        steps: Vec<Handed>,
    ) -> Boxed<'a, Result<Vec<Sent>>> {
        Box::pin(async move {
            let store = &self.cx.store;
            let made: Vec<(&Made, i64)> = steps.iter().filter_map(Handed::made).collect();
            let mut replaced = None;
            if !made.is_empty() {
                let events: Vec<&NewEvent> = made.iter().map(|(m, _)| &m.event).collect();
                let groups: Vec<NewGroup> = made.iter().flat_map(|(m, _)| m.groups.clone()).collect();
                store.store_ahead(&head.room_id, &groups, &events, self.cx.now_ms()).await?;
                if !head.pending_participants.is_empty() {
                    store.note_participants(&head.room_id, &head.pending_participants).await?;
                }
                for (m, before) in &made {
                    self.share_hosts(&m.event.pdu.event_id, *before).await?;
                }
                let wire: Vec<Value> = made.iter().map(|(m, before)| wire(who, m, *before)).collect::<Result<_>>()?;
                let mut body = Map::new();
                body.insert("events".into(), wire.into());
                let stored = if owner == &*self.cx.instance {
                    self.persist_prepared(body).await.map(Value::Object)
                } else {
                    self.cx.peers.call(owner, "send_events", &[], true, body).await
                };
                let answer = match stored {
                    Ok(answer) => answer,
                    Err(e) => {
                        let ids: Vec<&str> = events.iter().map(|e| e.pdu.event_id.as_str()).collect();
                        store.unstage(&ids).await?;
                        return Err(e);
                    }
                };
                // The owner may answer with an event it had already.
                replaced = answer.get("event_id").and_then(Value::as_str).map(str::to_owned);
            }
            let last_made = made.last().map(|(m, _)| m.event.pdu.event_id.clone());
            let mut ids: Vec<OwnedEventId> = steps.iter().map(|s| s.id().clone()).collect();
            if let (Some(other), Some(last)) = (replaced, last_made)
                && let Some(slot) = ids.iter_mut().find(|id| **id == last)
            {
                *slot = other.try_into()?;
            }
            let names: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
            let orders = store.stream_orderings(&names).await?;
            Ok(ids
                .iter()
                .map(|id| Sent {
                    event_id: id.clone(),
                    room_id: head.room_id.clone(),
                    stream_ordering: orders.get(id.as_str()).copied().unwrap_or_default(),
                    instance: owner.to_owned(),
                })
                .collect())
        })
    }

    /// Spares a federation sender of Synapse to work out who gets an event: it looks up the group before the
    /// event in the shared cache, and there the servers in the room at that group.
    async fn share_hosts(&self, event_id: &EventId, before: i64) -> Result<()> {
        let (shared, group) = (&self.cx.shared, before.to_string());
        if !shared.is_there() {
            return Ok(());
        }
        shared.set(PREV_STATE_GROUP, event_id.as_str(), &before, TTL).await;
        if shared.get::<Vec<String>>(JOINED_HOSTS, &group).await.is_none() {
            let hosts = self.cx.store.servers_at_group(before).await?;
            shared.set(JOINED_HOSTS, &group, &hosts, TTL).await;
        }
        Ok(())
    }

    /// Makes a room whose writer is a Synapse process.
    pub(crate) async fn create_through_synapse(&self, who: &Requester, new: NewRoom) -> Result<Vec<Sent>> {
        let rules = rules_of(&new.version)?;
        let mut templates = new.events;
        complete_create(&mut templates, &new.version, &new.creator)?;
        let server = self.writing.signer.server_name.as_str();
        let mut head = Head::empty(self.new_room_id()?, new.version.clone(), rules, server, false);
        let steps = self.prepare(&mut head, who, &templates).await?;
        let owner = self.cx.owner(StreamGroup::Events, head.room_id.as_str()).to_owned();
        self.cx.store.store_room(&head.room_id, &new.version, new.creator.as_str(), new.is_public).await?;
        let mut sent = Vec::with_capacity(steps.len());
        // Synapse wants the create event to be there before the others, and the first member before the rest.
        let mut rest = steps.into_iter();
        for count in [1, 1, usize::MAX] {
            let part: Vec<Handed> = rest.by_ref().take(count).collect();
            if !part.is_empty() {
                sent.extend(self.hand_over(&owner, who, &head, part).await?);
            }
        }
        Ok(sent)
    }
}

/// What became of a template.
enum Handed {
    Existing(OwnedEventId),
    /// `before`: the state group before the event.
    Made {
        made: Box<Made>,
        before: i64,
    },
}

impl Handed {
    fn made(&self) -> Option<(&Made, i64)> {
        match self {
            Handed::Made { made, before } => Some((made, *before)),
            Handed::Existing(_) => None,
        }
    }

    fn id(&self) -> &OwnedEventId {
        match self {
            Handed::Made { made, .. } => &made.event.pdu.event_id,
            Handed::Existing(id) => id,
        }
    }
}

/// The empty group before a room's first event.
fn first_group(made: &Made) -> i64 {
    made.groups.first().map_or(0, |g| g.id)
}

/// An event as `send_events` wants it.
fn wire(who: &Requester, made: &Made, before: i64) -> Result<Value> {
    let pdu = &made.event.pdu;
    let group = made.event.state_group.ok_or_else(|| Error::internal("an event without state"))?;
    let change = pdu.state_key.as_ref().map(|key| json!([[pdu.kind, key, pdu.event_id]]));
    let deltas = match &change {
        Some(change) => json!([[before, group, change]]),
        None => json!([]),
    };
    Ok(json!({
        "event": serde_json::from_str::<Value>(&made.event.json)?,
        "room_version": pdu.room_version,
        "event_format_version": EventFormat::of(&pdu.room_version) as i32,
        "internal_metadata": pdu.meta,
        "outlier": false,
        "rejected_reason": null,
        "context": {
            "state_group": group,
            "state_group_before_event": before,
            "rejected": null,
            "state_group_deltas": deltas,
            "state_delta_due_to_event": change,
            "app_service_id": who.app_service,
            "partial_state": false,
        },
        "requester": who,
        "ratelimit": false,
        "extra_users": if pdu.kind == "m.room.member" { pdu.state_key.iter().collect::<Vec<_>>() } else { Vec::new() },
    }))
}
