//! State resolution: ruma's algorithms for room versions from 2 on, and the first one for room version 1.

use crate::AuthEvent;
use crate::build::rules_of;
use ruma::events::StateEventType;
use ruma::room_version_rules::{AuthorizationRules, StateResolutionVersion};
use ruma::state_res::utils::event_id_set::EventIdSet;
use ruma::state_res::{self, Event};
use ruma::{EventId, OwnedEventId, RoomVersionId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use types::{Error, Result};

/// A state to be resolved with others: (type, state key) → event.
pub type State = BTreeMap<(String, String), OwnedEventId>;

/// Auth events of events; complete for everything reachable from the states.
pub type AuthEdges = HashMap<OwnedEventId, Vec<OwnedEventId>>;

/// What came of an attempt.
pub enum Resolved {
    Done(State),
    /// These events must be known first; then try again.
    Needs(Vec<OwnedEventId>),
}

/// Resolves states of a room. `known`: events by id; those that turn out to be needed are asked for. Events the
/// database does not have at all are to be given up by the caller after one round: they are skipped here if
/// `known` stays without them and `final_round` is set.
pub fn resolve(
    version: &RoomVersionId,
    states: &[State],
    edges: &AuthEdges,
    known: &HashMap<OwnedEventId, AuthEvent>,
    final_round: bool,
) -> Result<Resolved> {
    let rules = rules_of(version)?;
    let missing = RefCell::new(HashSet::new());
    let fetch = |id: &EventId| -> Option<AuthEvent> {
        let found = known.get(id).cloned();
        if found.is_none() {
            missing.borrow_mut().insert(id.to_owned());
        }
        found
    };
    let outcome = match &rules.state_res {
        StateResolutionVersion::V2(v2) => {
            let chains: Vec<EventIdSet<OwnedEventId>> = states.iter().map(|s| chain_of(s, edges)).collect();
            let maps: Vec<_> = states.iter().map(to_ruma).collect();
            let subgraph = |conflicted: &state_res::StateMap<Vec<OwnedEventId>>| {
                Some(subgraph(conflicted.values().flatten(), edges).into_iter().collect())
            };
            state_res::resolve(&rules.authorization, v2, maps.iter(), chains, fetch, subgraph)
                .map(from_ruma)
                .map_err(|e| Error::internal(format!("state resolution: {e}")))
        }
        _ => Ok(resolve_v1(states, &rules.authorization, fetch)),
    };
    let missing = missing.into_inner();
    if !missing.is_empty() && !final_round {
        return Ok(Resolved::Needs(missing.into_iter().collect()));
    }
    outcome.map(Resolved::Done)
}

fn to_ruma(state: &State) -> state_res::StateMap<OwnedEventId> {
    state.iter().map(|((k, s), id)| ((StateEventType::from(k.as_str()), s.clone()), id.clone())).collect()
}

fn from_ruma(state: state_res::StateMap<OwnedEventId>) -> State {
    state.into_iter().map(|((k, s), id)| ((k.to_string(), s), id)).collect()
}

/// Everything in the auth chains of a state's events.
fn chain_of(state: &State, edges: &AuthEdges) -> EventIdSet<OwnedEventId> {
    let mut seen: HashSet<&OwnedEventId> = HashSet::new();
    let mut stack: Vec<&OwnedEventId> = state.values().collect();
    while let Some(id) = stack.pop() {
        for auth in edges.get(id).into_iter().flatten() {
            if seen.insert(auth) {
                stack.push(auth);
            }
        }
    }
    seen.into_iter().cloned().collect()
}

/// Events on paths between conflicted events in the auth graph (spec, room version 12).
fn subgraph<'a>(conflicted: impl Iterator<Item = &'a OwnedEventId>, edges: &'a AuthEdges) -> HashSet<OwnedEventId> {
    let conflicted: HashSet<&OwnedEventId> = conflicted.collect();
    let mut above: HashSet<&OwnedEventId> = HashSet::new();
    let mut back: HashMap<&OwnedEventId, Vec<&OwnedEventId>> = HashMap::new();
    let mut stack: Vec<&OwnedEventId> = conflicted.iter().copied().collect();
    let mut visited: HashSet<&OwnedEventId> = stack.iter().copied().collect();
    while let Some(id) = stack.pop() {
        for auth in edges.get(id).into_iter().flatten() {
            back.entry(auth).or_default().push(id);
            above.insert(auth);
            if visited.insert(auth) {
                stack.push(auth);
            }
        }
    }
    // Down again from conflicted events that lie above others: what is met is on a path.
    let mut on_path: HashSet<&OwnedEventId> = HashSet::new();
    let mut stack: Vec<&OwnedEventId> = conflicted.iter().copied().filter(|id| above.contains(id)).collect();
    while let Some(id) = stack.pop() {
        if on_path.insert(id) {
            stack.extend(back.get(id).into_iter().flatten());
        }
    }
    conflicted.into_iter().chain(on_path).cloned().collect()
}

/// The algorithm of room version 1: power levels, join rules and members one after the other, deepest last, then
/// the rest by the first event that passes.
fn resolve_v1(states: &[State], rules: &AuthorizationRules, fetch: impl Fn(&EventId) -> Option<AuthEvent>) -> State {
    let mut all: BTreeMap<&(String, String), Vec<&OwnedEventId>> = BTreeMap::new();
    for (key, id) in states.iter().flatten() {
        let ids = all.entry(key).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let (mut resolved, mut conflicted) = (State::new(), BTreeMap::new());
    for (key, ids) in all {
        match ids[..] {
            [one] => {
                resolved.insert(key.clone(), one.clone());
            }
            _ => {
                let events: Vec<AuthEvent> = ids.iter().filter_map(|id| fetch(id)).collect();
                conflicted.insert(key.clone(), sorted_v1(events));
            }
        }
    }
    for kind in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        let keys: Vec<(String, String)> = conflicted.keys().filter(|(k, _)| k == kind).cloned().collect();
        for key in keys {
            if let Some(winner) =
                conflicted.remove(&key).and_then(|e| winner_by_auth(e, &key, &resolved, rules, &fetch))
            {
                resolved.insert(key, winner);
            }
        }
    }
    for (key, events) in conflicted {
        let ok = |e: &&AuthEvent| passes(e, rules, &resolved, None, &fetch);
        if let Some(winner) = events.iter().find(ok).or(events.last()) {
            resolved.insert(key, winner.event_id().clone());
        }
    }
    resolved
}

/// Deepest first; ties by the SHA-1 of the event id.
fn sorted_v1(mut events: Vec<AuthEvent>) -> Vec<AuthEvent> {
    use sha1::{Digest, Sha1};
    events.sort_by_cached_key(|e| (-e.pdu().depth, Sha1::digest(e.event_id().as_str().as_bytes()).to_vec()));
    events
}

fn passes(
    event: &AuthEvent,
    rules: &AuthorizationRules,
    state: &State,
    instead: Option<&AuthEvent>,
    fetch: &impl Fn(&EventId) -> Option<AuthEvent>,
) -> bool {
    let lookup = |kind: &str, key: &str| {
        let other = instead.filter(|e| e.pdu().is_state_of(kind, key)).cloned();
        other.or_else(|| fetch(state.get(&(kind.to_owned(), key.to_owned()))?))
    };
    crate::auth::check(event, rules, lookup).is_ok()
}

/// From the shallowest on, each event must be allowed by the one before; the last that is wins.
fn winner_by_auth(
    events: Vec<AuthEvent>,
    key: &(String, String),
    resolved: &State,
    rules: &AuthorizationRules,
    fetch: &impl Fn(&EventId) -> Option<AuthEvent>,
) -> Option<OwnedEventId> {
    let mut rest = events.into_iter().rev();
    let mut current = rest.next()?;
    debug_assert!(current.pdu().is_state_of(&key.0, &key.1));
    for event in rest {
        if !passes(&event, rules, resolved, Some(&current), fetch) {
            break;
        }
        current = event;
    }
    Some(current.event_id().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use types::Pdu;

    struct Room {
        version: RoomVersionId,
        known: HashMap<OwnedEventId, AuthEvent>,
        edges: AuthEdges,
    }

    impl Room {
        fn new(version: RoomVersionId) -> Self {
            Self { version, known: HashMap::new(), edges: HashMap::new() }
        }

        fn add(
            &mut self,
            id: &str,
            (kind, key): (&str, &str),
            sender: &str,
            content: Value,
            depth: i64,
            auth: &[&str],
        ) -> OwnedEventId {
            let create = self.version == RoomVersionId::V12;
            let room = if create { "!c" } else { "!r:s" };
            let mut json = json!({
                "type": kind, "state_key": key, "sender": sender, "content": content, "origin_server_ts": depth,
                "depth": depth, "prev_events": [], "auth_events": auth, "room_id": room,
            });
            if create && kind == "m.room.create" {
                json.as_object_mut().unwrap().remove("room_id");
            }
            let event_id: OwnedEventId = id.try_into().unwrap();
            let pdu = Pdu::parse(&json.to_string(), &event_id, &self.version).unwrap();
            let mut auth: Vec<OwnedEventId> = pdu.auth_events.clone();
            if create && kind != "m.room.create" {
                auth.push("$c".try_into().unwrap());
            }
            self.edges.insert(event_id.clone(), auth);
            self.known.insert(event_id.clone(), AuthEvent::new(Arc::new(pdu)));
            event_id
        }

        /// Two users with power; the admin demotes the other while that one changes the topic.
        fn fork(&mut self) -> [State; 2] {
            let v12 = self.version == RoomVersionId::V12;
            let levels = |mod_level: i64| {
                let admin = if v12 { json!({"@m:s": mod_level}) } else { json!({"@a:s": 100, "@m:s": mod_level}) };
                json!({"users": admin, "state_default": 50})
            };
            let create = self.add("$c", ("m.room.create", ""), "@a:s", json!({"creator": "@a:s"}), 1, &[]);
            let c: &[&str] = if v12 { &[] } else { &["$c"] };
            let joined = json!({"membership": "join"});
            let a = self.add("$a", ("m.room.member", "@a:s"), "@a:s", joined.clone(), 2, c);
            let with = |more: &[&'static str]| -> Vec<&str> { c.iter().copied().chain(more.iter().copied()).collect() };
            let p = self.add("$p", ("m.room.power_levels", ""), "@a:s", levels(50), 3, &with(&["$a"]));
            let j = self.add(
                "$j",
                ("m.room.join_rules", ""),
                "@a:s",
                json!({"join_rule": "public"}),
                4,
                &with(&["$a", "$p"]),
            );
            let m = self.add("$m", ("m.room.member", "@m:s"), "@m:s", joined, 5, &with(&["$p", "$j"]));
            let key = |k: &str, s: &str| (k.to_owned(), s.to_owned());
            let base = State::from([
                (key("m.room.create", ""), create),
                (key("m.room.member", "@a:s"), a),
                (key("m.room.power_levels", ""), p),
                (key("m.room.join_rules", ""), j),
                (key("m.room.member", "@m:s"), m),
            ]);
            let (mut left, mut right) = (base.clone(), base);
            let demoted = self.add("$d", ("m.room.power_levels", ""), "@a:s", levels(0), 6, &with(&["$a", "$p"]));
            left.insert(key("m.room.power_levels", ""), demoted);
            let topic = self.add("$t", ("m.room.topic", ""), "@m:s", json!({"topic": "x"}), 6, &with(&["$m", "$p"]));
            right.insert(key("m.room.topic", ""), topic);
            [left, right]
        }
    }

    #[test]
    fn a_demotion_wins_over_what_the_demoted_did_meanwhile() {
        for version in [RoomVersionId::V2, RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12] {
            let mut room = Room::new(version.clone());
            let states = room.fork();
            let Resolved::Done(state) = resolve(&version, &states, &room.edges, &room.known, false).unwrap() else {
                panic!("nothing is missing in {version}");
            };
            let levels = &state[&("m.room.power_levels".to_owned(), String::new())];
            assert_eq!(levels.as_str(), "$d", "{version}");
            assert!(!state.contains_key(&("m.room.topic".to_owned(), String::new())), "{version}");
        }
    }

    #[test]
    fn the_first_algorithm_takes_what_is_not_contradicted() {
        let version = RoomVersionId::V1;
        let mut room = Room::new(version.clone());
        let states = room.fork();
        let Resolved::Done(state) = resolve(&version, &states, &room.edges, &room.known, false).unwrap() else {
            panic!("nothing is missing");
        };
        assert_eq!(state[&("m.room.power_levels".to_owned(), String::new())].as_str(), "$d");
        assert_eq!(state[&("m.room.topic".to_owned(), String::new())].as_str(), "$t");
    }

    #[test]
    fn unknown_events_are_asked_for() {
        let mut room = Room::new(RoomVersionId::V6);
        let states = room.fork();
        room.known.clear();
        let outcome = resolve(&RoomVersionId::V6, &states, &room.edges, &room.known, false).unwrap();
        assert!(matches!(outcome, Resolved::Needs(ids) if !ids.is_empty()));
    }
}
