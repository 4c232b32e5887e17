//! State groups: `state_groups`, `state_group_edges`, `state_groups_state`, `event_to_state_groups`.

use crate::Store;
use ruma::{EventId, OwnedEventId, RoomId};
use std::collections::HashMap;
use std::sync::Arc;
use types::{Boxed, Error, Result};

/// State: (type, state key) → event. Cheap to clone and to change.
pub type StateMap = imbl::OrdMap<(String, String), OwnedEventId>;

/// The state of a group, and how many groups its rows are spread over.
#[derive(Clone, Debug, Default)]
pub struct GroupState {
    pub state: StateMap,
    /// Length of the chain of deltas that ends here; 0: the group holds its state in full.
    pub hops: u32,
}

/// Chains of deltas are cut beyond this, as in Synapse.
pub const MAX_HOPS: u32 = 100;

const CHAIN: &str = "
    WITH RECURSIVE chain(id, depth) AS (
        SELECT $1::bigint, 0
        UNION ALL
        SELECT e.prev_state_group, c.depth + 1 FROM state_group_edges e JOIN chain c ON e.state_group = c.id
        WHERE c.depth < 1000
    ) SELECT id FROM chain ORDER BY depth";

const ROWS: &str = "SELECT state_group, type, state_key, event_id FROM state_groups_state WHERE state_group = ANY($1)";

impl Store {
    /// The state a group stands for. Groups never change, so the cache never needs to forget one.
    pub fn state_of_group(&self, group: i64) -> Boxed<'_, Result<Arc<GroupState>>> {
        Box::pin(async move { self.writer_caches.groups.get_or_load(&group, self.load_group(group)).await })
    }

    async fn load_group(&self, group: i64) -> Result<Arc<GroupState>> {
        let chain: Vec<i64> = self.db.query(CHAIN, &[&group]).await?.iter().map(|r| r.get(0)).collect();
        // The nearest ancestor we know saves reading the rest.
        let known = chain.iter().enumerate().skip(1).find_map(|(i, id)| Some((i, self.writer_caches.groups.get(id)?)));
        let (upto, mut state) = match known {
            Some((i, known)) => (i, known.state.clone()),
            None => (chain.len(), StateMap::new()),
        };
        let missing = &chain[..upto];
        let mut rows: HashMap<i64, Vec<_>> = HashMap::new();
        for row in self.db.query(ROWS, &[&missing]).await? {
            let event_id: OwnedEventId = row.get::<_, &str>(3).try_into()?;
            rows.entry(row.get(0)).or_default().push(((row.get(1), row.get(2)), event_id));
        }
        for id in missing.iter().rev() {
            for (key, event_id) in rows.remove(id).unwrap_or_default() {
                state.insert(key, event_id);
            }
        }
        Ok(Arc::new(GroupState { state, hops: chain.len().saturating_sub(1) as u32 }))
    }

    /// Puts a group that was just stored into the cache.
    pub fn remember_group(&self, group: i64, state: Arc<GroupState>) {
        self.writer_caches.groups.put(group, state);
    }

    /// The group before a state event, if its own group is nothing but that group plus the event.
    pub async fn group_before(&self, event_id: &EventId, group: i64) -> Result<Option<i64>> {
        let sql = "SELECT e.prev_state_group, count(*), bool_and(s.event_id = $2)
             FROM state_group_edges e JOIN state_groups_state s ON s.state_group = e.state_group
             WHERE e.state_group = $1 GROUP BY e.prev_state_group";
        let row = self.db.query_opt(sql, &[&group, &event_id.as_str()]).await?;
        Ok(row.filter(|r| r.get::<_, i64>(1) == 1 && r.get(2)).map(|r| r.get(0)))
    }

    /// Current state of a room (`current_state_events`).
    pub async fn current_state(&self, room_id: &RoomId) -> Result<StateMap> {
        let sql = "SELECT type, state_key, event_id FROM current_state_events WHERE room_id = $1";
        let mut state = StateMap::new();
        for row in self.db.query(sql, &[&room_id.as_str()]).await? {
            state.insert((row.get(0), row.get(1)), row.get::<_, &str>(2).try_into()?);
        }
        Ok(state)
    }

    /// Event id of one entry of a room's current state.
    pub async fn current_state_id(&self, room_id: &RoomId, kind: &str, key: &str) -> Result<Option<OwnedEventId>> {
        let sql = "SELECT event_id FROM current_state_events WHERE room_id = $1 AND type = $2 AND state_key = $3";
        let row = self.db.query_opt(sql, &[&room_id.as_str(), &kind, &key]).await?;
        row.map(|r| r.get::<_, &str>(0).try_into().map_err(Error::from)).transpose()
    }

    /// Takes `n` fresh ids of a sequence that is no stream (`state_group_id_seq`, `event_auth_chain_id`).
    pub async fn sequence_ids(&self, sequence: &'static str, n: i32) -> Result<Vec<i64>> {
        let sql = format!("SELECT nextval('{sequence}') FROM generate_series(1, $1)");
        Ok(self.db.query(&sql, &[&n]).await?.iter().map(|r| r.get(0)).collect())
    }
}
