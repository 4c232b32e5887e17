//! State of many rooms at once, for `/sync`: current, and at events.

use crate::Store;
use crate::membership_for_user::split_cached;
use ruma::{EventId, OwnedEventId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use types::{MultiToken, Pdu, Result};

/// (type, state key) → event.
pub type StateIds = HashMap<(String, String), OwnedEventId>;

/// Larger states are not kept in memory: the caches count entries, not bytes.
const MAX_CURRENT: usize = 20_000;
const MAX_GROUP: usize = 1_000;

/// Later groups of a chain override earlier ones.
const STATE_OF_GROUPS: &str = "
    WITH RECURSIVE chain(root, state_group, level) AS (
        SELECT g, g, 0 FROM unnest($1::bigint[]) AS t(g)
        UNION ALL
        SELECT c.root, e.prev_state_group, c.level + 1
        FROM chain c JOIN state_group_edges e ON e.state_group = c.state_group
    )
    SELECT DISTINCT ON (c.root, s.type, s.state_key) c.root, s.type, s.state_key, s.event_id
    FROM chain c JOIN state_groups_state s ON s.state_group = c.state_group
    ORDER BY c.root, s.type, s.state_key, c.level";

/// The last accepted event of each room at or before the positions (`$2`: lower bound, `$3`: upper).
const LAST_EVENTS: &str = "
    SELECT r.room_id, e.event_id, e.instance_name, e.stream_ordering
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS r(room_id, low, high), LATERAL (
        (SELECT event_id, instance_name, stream_ordering FROM events
         WHERE room_id = r.room_id AND stream_ordering > r.low AND stream_ordering <= r.high
               AND NOT outlier AND rejection_reason IS NULL)
        UNION ALL
        (SELECT event_id, instance_name, stream_ordering FROM events
         WHERE room_id = r.room_id AND stream_ordering <= r.low AND NOT outlier AND rejection_reason IS NULL
         ORDER BY stream_ordering DESC LIMIT 1)) e
    ORDER BY e.stream_ordering DESC";

/// One change of a room's current state.
#[derive(Clone, Debug)]
pub struct StateDelta {
    pub room_id: String,
    pub kind: String,
    pub state_key: String,
    /// None: removed.
    pub event_id: Option<OwnedEventId>,
    pub prev_event_id: Option<OwnedEventId>,
    /// Id in the events stream.
    pub stream: i64,
}

impl Store {
    /// Current state of several rooms.
    pub async fn current_states(&self, room_ids: &[&str]) -> Result<HashMap<String, Arc<StateIds>>> {
        let (mut found, missing) = split_cached(&self.sync.current_state_ids, room_ids);
        if missing.is_empty() {
            return Ok(found);
        }
        let stamps: Vec<_> = missing.iter().map(|r| self.sync.current_state_ids.stamp(*r)).collect();
        let sql = "SELECT room_id, type, state_key, event_id FROM current_state_events WHERE room_id = ANY($1)";
        let rows = self.db.query(sql, &[&missing]).await?;
        let mut made: HashMap<&str, StateIds> = missing.iter().map(|r| (*r, StateIds::new())).collect();
        for row in &rows {
            if let Some(state) = made.get_mut(row.get::<_, &str>(0)) {
                state.insert((row.get(1), row.get(2)), row.get::<_, &str>(3).try_into()?);
            }
        }
        for (room, stamp) in missing.iter().zip(stamps) {
            let state = Arc::new(made.remove(room).unwrap_or_default());
            if state.len() <= MAX_CURRENT {
                self.sync.current_state_ids.put_since(stamp, (*room).to_owned(), state.clone());
            }
            found.insert((*room).to_owned(), state);
        }
        Ok(found)
    }

    /// Changes of rooms' current state after `from`, up to `to`, oldest first.
    pub async fn state_deltas(&self, room_ids: &[&str], from: &MultiToken, to: &MultiToken) -> Result<Vec<StateDelta>> {
        let sql = "SELECT room_id, type, state_key, event_id, prev_event_id, instance_name, stream_id
                   FROM current_state_delta_stream
                   WHERE room_id = ANY($1) AND stream_id > $2 AND stream_id <= $3 ORDER BY stream_id";
        let rows = self.db.query(sql, &[&room_ids, &from.stream, &to.max()]).await?;
        let id = |r: &tokio_postgres::Row, i| -> Result<Option<OwnedEventId>> {
            Ok(r.get::<_, Option<&str>>(i).map(OwnedEventId::try_from).transpose()?)
        };
        rows.iter()
            .filter(|r| self.is_within(from, to, r.get(5), r.get(6)))
            .map(|r| {
                Ok(StateDelta {
                    room_id: r.get(0),
                    kind: r.get(1),
                    state_key: r.get(2),
                    event_id: id(r, 3)?,
                    prev_event_id: id(r, 4)?,
                    stream: r.get(6),
                })
            })
            .collect()
    }

    /// State after each of these events (state events included themselves). Unknown events and outliers
    /// are left out.
    pub async fn states_after<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<HashMap<OwnedEventId, Arc<StateIds>>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let groups = self.groups_of_events(ids).await?;
        let mut wanted: Vec<i64> = groups.values().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let states = self.states_of_groups(&wanted).await?;
        Ok(groups.into_iter().filter_map(|(id, g)| Some((id, states.get(&g)?.clone()))).collect())
    }

    /// Full state of several state groups.
    pub async fn states_of_groups(&self, groups: &[i64]) -> Result<HashMap<i64, Arc<StateIds>>> {
        let mut found = HashMap::with_capacity(groups.len());
        let mut missing = Vec::new();
        for g in groups {
            match self.sync.group_states.get(g) {
                Some(state) => {
                    found.insert(*g, state);
                }
                None => missing.push(*g),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let mut made: HashMap<i64, StateIds> = missing.iter().map(|g| (*g, StateIds::new())).collect();
        for row in &self.db.query(STATE_OF_GROUPS, &[&missing]).await? {
            if let Some(state) = made.get_mut(&row.get::<_, i64>(0)) {
                state.insert((row.get(1), row.get(2)), row.get::<_, &str>(3).try_into()?);
            }
        }
        for (group, state) in made {
            let state = Arc::new(state);
            // A group never changes: there is nothing to invalidate.
            if state.len() <= MAX_GROUP {
                self.sync.group_states.put(group, state.clone());
            }
            found.insert(group, state);
        }
        Ok(found)
    }

    /// The last event of each room at or before its position.
    pub async fn last_events_before(&self, rooms: &[(&str, &MultiToken)]) -> Result<HashMap<String, OwnedEventId>> {
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<&str> = rooms.iter().map(|(r, _)| *r).collect();
        let low: Vec<i64> = rooms.iter().map(|(_, t)| t.stream).collect();
        let high: Vec<i64> = rooms.iter().map(|(_, t)| t.max()).collect();
        let tokens: HashMap<&str, &MultiToken> = rooms.iter().copied().collect();
        let mut last = HashMap::new();
        for row in &self.db.query(LAST_EVENTS, &[&ids, &low, &high]).await? {
            let room: &str = row.get(0);
            let Some(token) = tokens.get(room) else { continue };
            let covered = row.get::<_, i64>(3) <= token.for_instance(self.streams.instance_id(row.get(2)));
            if covered && !last.contains_key(room) {
                last.insert(room.to_owned(), row.get::<_, &str>(1).try_into()?);
            }
        }
        Ok(last)
    }

    /// Those of these events that are part of their room's current state.
    pub async fn in_current_state(&self, events: &[&Pdu]) -> Result<HashSet<OwnedEventId>> {
        let mut current = HashSet::new();
        let mut unknown: Vec<&str> = Vec::new();
        let mut states: HashMap<&str, Option<Arc<StateIds>>> = HashMap::new();
        for event in events {
            let Some(key) = &event.state_key else { continue };
            let room = event.room_id.as_str();
            // A state that is not at hand may be large: asked for as a whole it would cost more than this.
            match states.entry(room).or_insert_with(|| self.sync.current_state_ids.get(room)) {
                Some(state) if state.get(&(event.kind.clone(), key.clone())) == Some(&event.event_id) => {
                    current.insert(event.event_id.clone());
                }
                Some(_) => {}
                None => unknown.push(event.event_id.as_str()),
            }
        }
        if !unknown.is_empty() {
            let sql = "SELECT event_id FROM current_state_events WHERE event_id = ANY($1)";
            for row in &self.db.query(sql, &[&unknown]).await? {
                current.insert(row.get::<_, &str>(0).try_into()?);
            }
        }
        Ok(current)
    }
}
