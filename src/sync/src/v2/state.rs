//! Which state to tell: what changed between the last answer and the first event of the timeline
//! (or, with MSC4222, its end).

use super::answer::Ready;
use super::rooms::Entry;
use super::{Pass, live};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::sync_state::StateIds;
use types::{MultiToken, OwnedEventId, Pdu, Result};

type Key = (String, String);
/// States after events.
type States = HashMap<OwnedEventId, Arc<StateIds>>;

const MEMBER: &str = "m.room.member";

/// What has to be known of one room.
struct Plan {
    /// State events of the timeline, the last of each key.
    contained: HashMap<Key, OwnedEventId>,
    /// Members the timeline needs, if they are loaded lazily.
    members: Option<HashSet<String>>,
    first: Option<OwnedEventId>,
    /// The last event the client knows of.
    previous: Option<OwnedEventId>,
    /// The timeline goes on exactly where the last answer ended, without side branches.
    linear: bool,
}

impl Plan {
    fn wants(&self, key: &Key) -> bool {
        key.0 != MEMBER || self.members.as_ref().is_none_or(|m| m.contains(&key.1))
    }

    fn members_of(&self, state: &StateIds, out: &mut HashMap<Key, OwnedEventId>) {
        for user in self.members.iter().flatten() {
            let key = (MEMBER.to_owned(), user.clone());
            if let Some(id) = state.get(&key) {
                out.insert(key, id.clone());
            }
        }
    }
}

/// State to tell, and which of it changed (the rest may be known to the client already).
#[derive(Default)]
struct Delta {
    ids: HashMap<Key, OwnedEventId>,
    changed: HashSet<Key>,
}

/// What differs between the end of the last answer and the start of the timeline. `start` and `end` are
/// reduced to the wanted members; with lazy members those at `start` are told even if they did not change.
/// Where both differ and neither is in the timeline (the filter left events out) the end counts: the client would
/// never learn of it otherwise. Synapse picks either.
fn difference(
    contained: &HashMap<Key, OwnedEventId>,
    start: &HashMap<&Key, &OwnedEventId>,
    end: &HashMap<&Key, &OwnedEventId>,
    previous: &HashMap<&Key, &OwnedEventId>,
    lazy: bool,
) -> HashMap<Key, OwnedEventId> {
    let in_timeline: HashSet<&OwnedEventId> = contained.values().collect();
    let mut known: HashSet<&OwnedEventId> = previous.values().copied().collect();
    if lazy {
        start.iter().filter(|(k, _)| k.0 == MEMBER).for_each(|(_, id)| {
            known.remove(*id);
        });
    }
    let mut out = HashMap::new();
    for (key, id) in start.iter().chain(end) {
        if !known.contains(id) && !in_timeline.contains(id) {
            out.insert((*key).clone(), (*id).clone());
        }
    }
    out
}

/// Entries of the state at the start of a timeline that the state at its end has no more, or which the timeline has.
fn only_before(in_timeline: &[OwnedEventId], start: Option<&Arc<StateIds>>, end: &StateIds) -> Vec<OwnedEventId> {
    let is_told = |id: &OwnedEventId| !in_timeline.contains(id);
    let start = start.into_iter().flat_map(|s| s.iter());
    let only = start.filter(|(key, id)| is_told(id) && !end.get(key).is_some_and(is_told));
    only.map(|(_, id)| id.clone()).collect()
}

fn reduced<'a>(plan: &Plan, state: Option<&'a Arc<StateIds>>) -> HashMap<&'a Key, &'a OwnedEventId> {
    state.into_iter().flat_map(|s| s.iter()).filter(|(k, _)| plan.wants(k)).collect()
}

fn whole(state: Option<&Arc<StateIds>>) -> HashMap<&Key, &OwnedEventId> {
    state.into_iter().flat_map(|s| s.iter()).collect()
}

impl Pass<'_> {
    /// Fills in the state of all entries.
    pub(super) async fn add_states(&self, entries: &mut [Entry]) -> Result<()> {
        let store = &self.sync.cx.store;
        let last = self.last_known(entries).await?;
        let plans: Vec<Option<Plan>> =
            entries.iter().map(|e| (!e.out_of_band).then(|| self.plan(e, last.get(&e.room_id)))).collect();
        let mut wanted: Vec<OwnedEventId> = Vec::new();
        let mut current: Vec<&str> = Vec::new();
        for (entry, plan) in entries.iter().zip(&plans) {
            if let Some(plan) = plan {
                self.needs(entry, plan, &mut wanted, &mut current);
            }
        }
        let ends = self.ends(entries).await?;
        wanted.extend(ends.values().cloned());
        let (states, current) = futures::try_join!(store.states_after(&wanted), store.current_states(&current))?;
        let mut deltas = self.deltas_since(entries).await?;
        let ready = if self.tells_ready_state() { store.shown_states(&current).await? } else { HashMap::new() };
        let now_ms = self.sync.cx.now_ms();
        let mut told: Vec<(usize, Vec<OwnedEventId>)> = Vec::new();
        for (i, (entry, plan)) in entries.iter_mut().zip(&plans).enumerate() {
            let Some(plan) = plan else { continue };
            let kept = ready.get(&entry.room_id).filter(|_| entry.joined && entry.full_state);
            if let (Some(state), Some(end)) = (kept, current.get(&entry.room_id)) {
                let except: Vec<OwnedEventId> =
                    if self.rq.use_state_after { Vec::new() } else { plan.contained.values().cloned().collect() };
                let first = plan.first.as_ref().and_then(|id| states.get(id));
                let others = state.others.iter().filter(|id| !except.contains(id)).cloned();
                told.push((i, others.chain(only_before(&except, first, end)).collect()));
                entry.ready = Some(Ready { state: state.clone(), except, now_ms });
                continue;
            }
            let end = if entry.joined {
                current.get(&entry.room_id)
            } else {
                ends.get(&entry.room_id).and_then(|e| states.get(e))
            };
            let changes = deltas.remove(&entry.room_id).unwrap_or_default();
            let mut delta = self.delta(entry, plan, end, &states, changes);
            if plan.members.is_some() && !self.rq.filter.state.include_redundant_members {
                self.leave_out_told(&mut delta, plan);
            }
            if !delta.ids.is_empty() {
                told.push((i, delta.ids.into_values().collect()));
            }
        }
        self.load_state(entries, told).await
    }

    /// The last event of each room the client knows of.
    async fn last_known(&self, entries: &[Entry]) -> Result<HashMap<String, OwnedEventId>> {
        let incremental = entries.iter().filter(|e| !e.full_state && !e.out_of_band && !self.rq.use_state_after);
        let tokens: Vec<(&str, MultiToken)> =
            incremental.filter_map(|e| Some((e.room_id.as_str(), live(&e.since.as_ref()?.room)))).collect();
        let rooms: Vec<(&str, &MultiToken)> = tokens.iter().map(|(r, t)| (*r, t)).collect();
        self.sync.cx.store.last_events_before(&rooms).await
    }

    fn plan(&self, entry: &Entry, last: Option<&OwnedEventId>) -> Plan {
        let mut contained = HashMap::new();
        let lazy = self.rq.filter.lazy_load_members();
        let mut members: HashSet<String> = HashSet::new();
        let mut linear = true;
        let mut before = last;
        for event in entry.timeline.iter().map(|v| &v.event) {
            let sender = event.sender.as_str();
            let own = (MEMBER.to_owned(), sender.to_owned());
            if lazy && (self.rq.use_state_after || !contained.contains_key(&own)) {
                members.insert(sender.to_owned());
            }
            if let Some(key) = &event.state_key {
                contained.insert((event.kind.clone(), key.clone()), event.event_id.clone());
            }
            linear &= matches!((event.prev_events.as_slice(), before), ([only], Some(b)) if only == b);
            before = Some(&event.event_id);
        }
        if lazy && entry.full_state {
            members.insert(self.user.to_owned());
        }
        Plan {
            contained,
            members: lazy.then_some(members),
            first: entry.timeline.first().map(|v| v.event.event_id.clone()),
            previous: last.cloned(),
            linear: linear && !entry.limited,
        }
    }

    /// Which states an entry needs: after events, and current.
    fn needs<'e>(&self, entry: &'e Entry, plan: &Plan, wanted: &mut Vec<OwnedEventId>, current: &mut Vec<&'e str>) {
        let lazily = plan.members.as_ref().is_some_and(|m| !m.is_empty());
        if entry.full_state || self.rq.use_state_after {
            if entry.joined && (entry.full_state || lazily) {
                current.push(&entry.room_id);
            }
            if !self.rq.use_state_after && (!plan.contained.is_empty() || self.filters_timeline()) {
                wanted.extend(plan.first.clone());
            }
        } else if plan.linear {
            if lazily {
                wanted.extend(plan.first.clone());
            }
        } else {
            wanted.extend(plan.first.clone());
            wanted.extend(plan.previous.clone());
            if entry.joined {
                current.push(&entry.room_id);
            }
        }
    }

    /// Whether events may be missing between those of a timeline.
    fn filters_timeline(&self) -> bool {
        self.rq.filter.timeline.refuses_some()
    }

    /// Whether the client wants all state of its rooms in the ordinary format, as it is kept ready.
    fn tells_ready_state(&self) -> bool {
        let filter = &self.rq.filter;
        self.since.is_none()
            && !filter.lazy_load_members()
            && !filter.state.refuses_some()
            && !filter.room.refuses_some()
            && !filter.federation_format
            && filter.event_fields.is_empty()
    }

    /// The events at which the rooms the user left end.
    async fn ends(&self, entries: &[Entry]) -> Result<HashMap<String, OwnedEventId>> {
        let left = entries.iter().filter(|e| !e.joined && !e.out_of_band);
        let mut ends: HashMap<String, OwnedEventId> = HashMap::new();
        let mut unknown: Vec<(&str, &MultiToken)> = Vec::new();
        for entry in left {
            match &entry.end_event {
                Some(event) => {
                    ends.insert(entry.room_id.clone(), event.clone());
                }
                None => unknown.push((&entry.room_id, &entry.end)),
            }
        }
        ends.extend(self.sync.cx.store.last_events_before(&unknown).await?);
        Ok(ends)
    }

    /// Changes of current state since the token, for MSC4222; by room, the last of each key.
    async fn deltas_since(&self, entries: &[Entry]) -> Result<HashMap<String, HashMap<Key, OwnedEventId>>> {
        let mut rooms: HashMap<String, HashMap<Key, OwnedEventId>> = HashMap::new();
        let Some(since) = self.since.filter(|_| self.rq.use_state_after) else { return Ok(rooms) };
        let incremental = entries.iter().filter(|e| !e.full_state && !e.out_of_band);
        let ids: Vec<&str> = incremental.map(|e| e.room_id.as_str()).collect();
        let ends: HashMap<&str, &MultiToken> = entries.iter().map(|e| (e.room_id.as_str(), &e.end)).collect();
        if ids.is_empty() {
            return Ok(rooms);
        }
        for delta in self.sync.cx.store.state_deltas(&ids, &live(&since.room), &self.now_room).await? {
            let within = ends.get(delta.room_id.as_str()).is_none_or(|end| delta.stream <= end.max());
            // Removed state cannot be told.
            if let (Some(event), true) = (delta.event_id, within) {
                rooms.entry(delta.room_id).or_default().insert((delta.kind, delta.state_key), event);
            }
        }
        Ok(rooms)
    }

    fn delta(
        &self,
        entry: &Entry,
        plan: &Plan,
        end: Option<&Arc<StateIds>>,
        states: &States,
        changes: HashMap<Key, OwnedEventId>,
    ) -> Delta {
        let lazy = plan.members.is_some();
        let none = HashMap::new();
        let first = plan.first.as_ref().and_then(|id| states.get(id));
        let mut delta = Delta::default();
        if entry.full_state {
            if self.rq.use_state_after {
                delta.ids = reduced(plan, end).into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            } else {
                // Without state events in the timeline its start is its end.
                let start = if first.is_some() { reduced(plan, first) } else { none.clone() };
                delta.ids = difference(&plan.contained, &start, &reduced(plan, end), &none, lazy);
            }
        } else if self.rq.use_state_after {
            if let Some(end) = end {
                plan.members_of(end, &mut delta.ids);
            }
            delta.changed = changes.keys().cloned().collect();
            delta.ids.extend(changes);
        } else if plan.linear {
            if let Some(first) = first {
                plan.members_of(first, &mut delta.ids);
            }
        } else {
            let previous = plan.previous.as_ref().and_then(|id| states.get(id));
            let start = if plan.first.is_some() { reduced(plan, first) } else { reduced(plan, end) };
            // Members that changed in a gap are told even if nobody in the timeline is one of them.
            let (previous, end) = match entry.limited {
                true => (whole(previous), whole(end)),
                false => (reduced(plan, previous), reduced(plan, end)),
            };
            delta.ids = difference(&plan.contained, &start, &end, &previous, lazy);
            let is_new = |(k, id): &(&Key, &OwnedEventId)| previous.get(k) != Some(id);
            delta.changed = delta.ids.iter().filter(is_new).map(|(k, _)| k.clone()).collect();
        }
        delta
    }

    /// Leaves out members the client was told of before, and remembers those it is told now.
    fn leave_out_told(&self, delta: &mut Delta, plan: &Plan) {
        let told = self.sync.live.lazy.of(self.user, self.rq.who.device_id.as_deref());
        let mut told = told.lock().unwrap_or_else(|e| e.into_inner());
        let changed = &delta.changed;
        delta.ids.retain(|key, id| key.0 != MEMBER || changed.contains(key) || !told.was_sent(&key.1, id));
        for (key, id) in delta.ids.iter().chain(&plan.contained).filter(|(k, _)| k.0 == MEMBER) {
            told.mark(&key.1, id.clone(), &self.now_room);
        }
    }

    async fn load_state(&self, entries: &mut [Entry], told: Vec<(usize, Vec<OwnedEventId>)>) -> Result<()> {
        let filter = &self.rq.filter;
        let ids: Vec<&OwnedEventId> = told.iter().flat_map(|(_, ids)| ids).collect();
        let events = self.sync.cx.store.events(&ids).await?;
        for (i, ids) in &told {
            let wanted = |e: &&Arc<Pdu>| {
                e.kind != "m.room.aliases"
                    && e.rejected.is_none()
                    && filter.room.allows_room(e.room_id.as_str())
                    && filter.state.allows(e)
            };
            let mut list: Vec<Arc<Pdu>> = ids.iter().filter_map(|id| events.get(id)).filter(wanted).cloned().collect();
            list.sort_by_key(|e| e.stream());
            entries[*i].state = list;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, k: &str) -> Key {
        (kind.into(), k.into())
    }

    fn id(s: &str) -> OwnedEventId {
        OwnedEventId::try_from(format!("${s}")).unwrap()
    }

    #[test]
    fn what_the_timeline_or_the_client_has_is_not_told() {
        let (name, topic, join) = (key("m.room.name", ""), key("m.room.topic", ""), key(MEMBER, "@a:b"));
        let (n1, n2, t1, j1) = (id("n1"), id("n2"), id("t1"), id("j1"));
        let contained = HashMap::from([(name.clone(), n2.clone())]);
        let start = HashMap::from([(&name, &n1), (&join, &j1)]);
        let end = HashMap::from([(&name, &n2), (&topic, &t1), (&join, &j1)]);
        let all = difference(&contained, &start, &end, &HashMap::new(), false);
        assert_eq!(
            all,
            HashMap::from([(name.clone(), n1.clone()), (topic.clone(), t1.clone()), (join.clone(), j1.clone())])
        );
        let previous = HashMap::from([(&name, &n1), (&join, &j1)]);
        let some = difference(&contained, &start, &end, &previous, false);
        assert_eq!(some, HashMap::from([(topic.clone(), t1.clone())]));
        let lazy = difference(&contained, &start, &end, &previous, true);
        assert_eq!(lazy, HashMap::from([(topic, t1), (join, j1)]));
    }
}
