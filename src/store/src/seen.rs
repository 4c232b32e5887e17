//! What the room looked like to one user at given events: history visibility and own membership there.

use crate::Store;
use crate::membership_for_user::split_cached;
use ruma::{EventId, OwnedEventId};
use std::collections::{HashMap, HashSet};
use types::Result;

/// The three state events that decide who sees an event. State groups never change, so neither does this.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// `m.room.history_visibility`.
    pub visibility: Option<OwnedEventId>,
    /// The user's `m.room.member`.
    pub membership: Option<OwnedEventId>,
    /// `m.room.join_rules`.
    pub join_rules: Option<OwnedEventId>,
}

/// Later groups of a chain override earlier ones; their ids only grow along a chain.
const SEEN: &str = "
    WITH RECURSIVE chain(root, state_group) AS (
        SELECT g, g FROM unnest($1::bigint[]) AS t(g)
        UNION ALL
        SELECT c.root, e.prev_state_group FROM chain c JOIN state_group_edges e ON e.state_group = c.state_group
    )
    SELECT DISTINCT ON (c.root, s.type) c.root, s.type, s.event_id
    FROM chain c JOIN state_groups_state s ON s.state_group = c.state_group
    WHERE (s.type, s.state_key) IN
        (('m.room.history_visibility', ''), ('m.room.join_rules', ''), ('m.room.member', $2))
    ORDER BY c.root, s.type, c.state_group DESC";

/// State of several groups restricted to one event type (`$2`) and, if `$3` is given, to these state keys.
const STATE_OF_TYPE: &str = "
    WITH RECURSIVE chain(state_group) AS (
        SELECT $1::bigint
        UNION ALL
        SELECT e.prev_state_group FROM chain c JOIN state_group_edges e ON e.state_group = c.state_group
    )
    SELECT DISTINCT ON (s.state_key) s.event_id
    FROM chain c JOIN state_groups_state s ON s.state_group = c.state_group
    WHERE s.type = $2 AND ($3::text[] IS NULL OR s.state_key = ANY($3))
    ORDER BY s.state_key, c.state_group DESC";

impl Store {
    /// State groups after state events / at message events. Outliers have none.
    pub async fn groups_of_events<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<HashMap<OwnedEventId, i64>> {
        let cache = &self.sync.event_groups;
        let mut found = HashMap::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids.iter().map(AsRef::as_ref) {
            match cache.get(id.as_str()) {
                Some(group) => {
                    found.insert(id.to_owned(), group);
                }
                None => missing.push((id.as_str(), cache.stamp(id.as_str()))),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let stamps: HashMap<&str, _> = missing.into_iter().collect();
        let missing: Vec<&str> = stamps.keys().copied().collect();
        let sql = "SELECT event_id, state_group FROM event_to_state_groups WHERE event_id = ANY($1)";
        for r in &self.db.query(sql, &[&missing]).await? {
            let (id, group): (&str, i64) = (r.get(0), r.get(1));
            if let Some(stamp) = stamps.get(id) {
                cache.put_since(*stamp, id.to_owned(), group);
            }
            found.insert(id.try_into()?, group);
        }
        Ok(found)
    }

    /// What `user_id` saw in each of these state groups.
    pub async fn seen_in_groups(&self, groups: &[i64], user_id: &str) -> Result<HashMap<i64, Seen>> {
        let mut seen: HashMap<i64, Seen> = groups.iter().map(|g| (*g, Seen::default())).collect();
        for row in self.db.query(SEEN, &[&groups, &user_id]).await? {
            let entry = seen.entry(row.get(0)).or_default();
            let event_id = Some(row.get::<_, &str>(2).try_into()?);
            match row.get::<_, &str>(1) {
                "m.room.member" => entry.membership = event_id,
                "m.room.join_rules" => entry.join_rules = event_id,
                _ => entry.visibility = event_id,
            }
        }
        Ok(seen)
    }

    /// Events of one type in a state group; `keys` None: all of them.
    pub async fn group_state_of_type(
        &self,
        group: i64,
        kind: &str,
        keys: Option<&[&str]>,
    ) -> Result<Vec<OwnedEventId>> {
        let rows = self.db.query(STATE_OF_TYPE, &[&group, &kind, &keys]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Those of these users whose data was erased.
    pub async fn erased_among(&self, user_ids: &[&str]) -> Result<Vec<String>> {
        let cache = &self.sync.erased;
        let (mut found, missing) = split_cached(cache, user_ids);
        if !missing.is_empty() {
            let stamps: Vec<_> = missing.iter().map(|u| cache.stamp(*u)).collect();
            let rows = self.db.query("SELECT user_id FROM erased_users WHERE user_id = ANY($1)", &[&missing]).await?;
            let erased: HashSet<&str> = rows.iter().map(|r| r.get(0)).collect();
            for (user, stamp) in missing.into_iter().zip(stamps) {
                cache.put_since(stamp, user.to_owned(), erased.contains(user));
                found.insert(user.to_owned(), erased.contains(user));
            }
        }
        Ok(found.into_iter().filter_map(|(user, is_erased)| is_erased.then_some(user)).collect())
    }
}
