//! The chain cover of a room's auth graph, as Synapse keeps it: each state event has a chain and a sequence
//! number, and B is in A's auth chain exactly if it can be reached along chains and links.

use crate::ids::IdPool;
use rules::AuthEvent;
use ruma::OwnedEventId;
use std::collections::HashMap;
use store::Store;
use store::persist::ChainPlace;
use types::{Pdu, Result};

/// Places of events that were looked at, and the ends of their chains.
pub(crate) struct Chains {
    /// `rooms.has_auth_chain_index`: without it nothing is written.
    indexed: bool,
    places: HashMap<OwnedEventId, (i64, i64)>,
    ends: HashMap<i64, i64>,
}

/// What is to be stored for an event.
pub(crate) enum Placed {
    At(ChainPlace),
    /// An auth event has no place yet: noted for the background job.
    Later,
    No,
}

impl Placed {
    /// The place, and whether it is to be found later.
    pub fn parts(self) -> (Option<ChainPlace>, bool) {
        match self {
            Placed::At(place) => (Some(place), false),
            Placed::Later => (None, true),
            Placed::No => (None, false),
        }
    }
}

/// Beyond this many entries the maps start afresh once everything is committed.
const MANY: usize = 4_000;

impl Chains {
    pub fn new(indexed: bool) -> Self {
        Self { indexed, places: HashMap::new(), ends: HashMap::new() }
    }

    pub fn is_large(&self) -> bool {
        self.places.len() > MANY
    }

    /// Only right while nothing is in flight.
    pub fn clear(&mut self) {
        self.places = HashMap::new();
        self.ends = HashMap::new();
    }

    /// Finds the place of a new state event. `auth` must hold its auth events.
    pub async fn place(
        &mut self,
        store: &Store,
        pool: &IdPool,
        event: &Pdu,
        auth_ids: &[OwnedEventId],
        auth: &HashMap<OwnedEventId, AuthEvent>,
    ) -> Result<Placed> {
        if !self.indexed {
            return Ok(Placed::No);
        }
        let missing: Vec<&str> =
            auth_ids.iter().filter(|id| !self.places.contains_key(*id)).map(|id| id.as_str()).collect();
        if !missing.is_empty() {
            for (id, place) in store.chains_of(&missing).await? {
                self.places.insert(id.try_into()?, place);
            }
        }
        if auth_ids.iter().any(|id| !self.places.contains_key(id)) {
            return Ok(Placed::Later);
        }
        let same = auth_ids.iter().find(|id| {
            auth.get(*id).is_some_and(|a| a.pdu().kind == event.kind && a.pdu().state_key == event.state_key)
        });
        let (chain, sequence) = match same.and_then(|id| self.places.get(id)).copied() {
            Some((chain, sequence)) if self.end_of(store, chain).await? == sequence => (chain, sequence + 1),
            _ => (pool.take(store).await?, 1),
        };
        self.ends.insert(chain, sequence);
        self.places.insert(event.event_id.clone(), (chain, sequence));
        Ok(Placed::At(ChainPlace { chain, sequence, links: self.links(chain, auth_ids, auth) }))
    }

    async fn end_of(&mut self, store: &Store, chain: i64) -> Result<i64> {
        if let Some(end) = self.ends.get(&chain) {
            return Ok(*end);
        }
        let end = store.chain_ends(&[chain]).await?.get(&chain).copied().unwrap_or(0);
        self.ends.insert(chain, end);
        Ok(end)
    }

    /// Links to the chains of auth events, without those that another auth event leads to anyway.
    fn links(&self, chain: i64, auth_ids: &[OwnedEventId], auth: &HashMap<OwnedEventId, AuthEvent>) -> Vec<(i64, i64)> {
        let leads_to = |a: &OwnedEventId, b: &OwnedEventId| {
            a != b && auth.get(a).is_some_and(|e| e.pdu().auth_events.contains(b) || is_create(b, auth))
        };
        let kept = auth_ids.iter().filter(|b| !auth_ids.iter().any(|a| leads_to(a, b)));
        kept.filter_map(|id| self.places.get(id)).filter(|(c, _)| *c != chain).copied().collect()
    }
}

/// Everything but the create event has the create event in its auth chain.
fn is_create(id: &OwnedEventId, auth: &HashMap<OwnedEventId, AuthEvent>) -> bool {
    auth.get(id).is_some_and(|e| e.pdu().kind == "m.room.create")
}
