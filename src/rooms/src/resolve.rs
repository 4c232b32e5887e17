//! Resolving the states at several ends of a room. The algorithm runs on the blocking pool: only the room
//! concerned waits.

use crate::Rooms;
use crate::head::Head;
use rules::AuthEvent;
use rules::resolve::{AuthEdges, Resolved, State, resolve};
use ruma::{OwnedEventId, RoomVersionId};
use std::collections::HashMap;
use std::sync::Arc;
use store::persist::{NewGroup, StateChange};
use store::state_groups::{MAX_HOPS, StateMap};
use types::{Boxed, Error, Result};

/// Rounds of asking for further events at most.
const ROUNDS: usize = 40;

impl Rooms {
    /// Resolves states of a room. `hot`: events that are not committed yet (more does not hurt).
    pub(crate) fn resolve_states<'a>(
        &'a self,
        version: &'a RoomVersionId,
        states: Vec<StateMap>,
        hot: &'a HashMap<OwnedEventId, AuthEvent>,
    ) -> Boxed<'a, Result<StateMap>> {
        Box::pin(async move {
            let store = &self.cx.store;
            let mut ids: Vec<&str> = states.iter().flat_map(|s| s.values()).map(|id| id.as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            let mut edges = store.auth_edges(&ids).await?;
            for (id, event) in hot {
                edges.entry(id.clone()).or_insert_with(|| event.pdu().auth_events.clone());
            }
            let plain = |s: &StateMap| s.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            let states: Arc<Vec<State>> = Arc::new(states.iter().map(plain).collect());
            let edges: Arc<AuthEdges> = Arc::new(edges);
            let mut known = hot.clone();
            let mut complete = false;
            for _ in 0..ROUNDS {
                let (version, states, edges) = (version.clone(), states.clone(), edges.clone());
                let task = tokio::task::spawn_blocking(move || {
                    let outcome = resolve(&version, &states, &edges, &known, complete);
                    (known, outcome)
                });
                let (back, outcome) = task.await?;
                known = back;
                match outcome? {
                    Resolved::Done(state) => return Ok(state.into_iter().collect()),
                    Resolved::Needs(ids) => {
                        let before = known.len();
                        for (id, event) in store.events(&ids).await? {
                            known.insert(id, AuthEvent::new(event));
                        }
                        // What the database does not have is done without.
                        complete = known.len() == before;
                    }
                }
            }
            Err(Error::internal("state resolution needs too many events"))
        })
    }

    /// The state where the groups meet.
    pub(crate) async fn resolve_groups(&self, head: &Head, groups: &[i64]) -> Result<StateMap> {
        let mut states = Vec::with_capacity(groups.len());
        for group in groups {
            states.push(self.cx.store.state_of_group(*group).await?.state.clone());
        }
        self.resolve_states(&head.version, states, &head.events).await
    }

    /// Gives the head a resolved state: members, summary and events at hand follow it. Returns what changed.
    pub(crate) async fn adopt_state(&self, head: &mut Head, new: StateMap) -> Result<Vec<StateChange>> {
        let changes = self.named(head, difference(&head.state, &new)).await?;
        for change in &changes {
            match &change.known {
                Some(event) => {
                    head.set_state(event, &change.state_key);
                }
                None => head.drop_state(&change.kind, &change.state_key),
            }
        }
        Ok(changes)
    }

    /// Finds the events of changes that are to be written.
    pub(crate) async fn named(&self, head: &mut Head, mut changes: Vec<StateChange>) -> Result<Vec<StateChange>> {
        let ids: Vec<OwnedEventId> = changes.iter().filter_map(|c| c.event_id.clone()).collect();
        self.need(head, &ids).await?;
        // Those that were committed since they came to hand have a place in the stream now.
        let is_new = |id: &&OwnedEventId| head.events.get(*id).is_some_and(|e| e.pdu().stream_ordering.is_none());
        let new: Vec<&OwnedEventId> = ids.iter().filter(is_new).collect();
        for (id, event) in self.cx.store.events(&new).await? {
            head.events.insert(id, AuthEvent::new(event));
        }
        for change in &mut changes {
            change.known = change.event_id.as_ref().and_then(|id| head.events.get(id)).map(|e| e.pdu().clone());
        }
        Ok(changes)
    }

    /// A group for the head's state, to be stored with the next event: against `base` if a delta can say it.
    pub(crate) async fn group_for_state(&self, head: &mut Head, base: i64) -> Result<()> {
        let store = &self.cx.store;
        let known = store.state_of_group(base).await?;
        let changes = difference(&known.state, &head.state);
        if changes.is_empty() {
            (head.group, head.hops) = (base, known.hops);
            return Ok(());
        }
        let id = self.writing.groups.take_above(store, base).await?;
        let removed = changes.iter().any(|c| c.event_id.is_none());
        let (prev, rows) = if removed || known.hops >= MAX_HOPS {
            head.hops = 0;
            (None, head.state.iter().map(|((k, s), e)| (k.clone(), s.clone(), e.clone())).collect())
        } else {
            head.hops = known.hops + 1;
            (Some(base), changes.into_iter().filter_map(|c| Some((c.kind, c.state_key, c.event_id?))).collect())
        };
        head.group = id;
        let event_id = head.tips.first().map(|t| t.reference.id.clone());
        let event_id = event_id.ok_or_else(|| Error::internal("a room without ends has no state to resolve"))?;
        head.pending_groups.push(NewGroup { id, event_id, prev, rows });
        Ok(())
    }
}

/// What turns one state into another.
pub(crate) fn difference(old: &StateMap, new: &StateMap) -> Vec<StateChange> {
    let mut changes = Vec::new();
    let mut push = |key: &(String, String), event_id: Option<&OwnedEventId>, prev: Option<&OwnedEventId>| {
        changes.push(StateChange {
            kind: key.0.clone(),
            state_key: key.1.clone(),
            event_id: event_id.cloned(),
            prev: prev.cloned(),
            known: None,
        });
    };
    for (key, id) in new.iter() {
        let before = old.get(key);
        if before != Some(id) {
            push(key, Some(id), before);
        }
    }
    for (key, id) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        push(key, None, Some(id));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_say_what_is_new_changed_and_gone() {
        let id = |s: &str| OwnedEventId::try_from(s).unwrap();
        let key = |s: &str| (s.to_owned(), String::new());
        let old = StateMap::from_iter([(key("a"), id("$1")), (key("b"), id("$2")), (key("c"), id("$3"))]);
        let new = StateMap::from_iter([(key("a"), id("$1")), (key("b"), id("$4")), (key("d"), id("$5"))]);
        let mut found: Vec<_> = difference(&old, &new)
            .into_iter()
            .map(|c| (c.kind, c.event_id.map(|e| e.to_string()), c.prev.map(|e| e.to_string())))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                ("b".into(), Some("$4".into()), Some("$2".into())),
                ("c".into(), None, Some("$3".into())),
                ("d".into(), Some("$5".into()), None),
            ]
        );
    }
}
