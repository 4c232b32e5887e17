//! What every process knows of presence: the stream's latest row of each user.

use super::machine::offline;
use dashmap::DashMap;
use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use store::{PresenceRow, Row, Store, Update};
use types::Result;

/// Users kept in memory; those offline go first.
const MAX_USERS: usize = 50_000;
/// Recent changes kept in order.
const MAX_RECENT: usize = 20_000;

/// See the module.
pub struct View {
    users: DashMap<String, PresenceRow>,
    /// Token → user, and the token before the oldest.
    recent: Mutex<(BTreeMap<i64, String>, i64)>,
    applied: AtomicI64,
}

impl View {
    /// Nothing is known of changes up to `position`.
    pub fn new(position: i64, active: Vec<PresenceRow>) -> Self {
        let users = active.into_iter().map(|p| (p.user_id.clone(), p)).collect();
        Self { users, recent: Mutex::new((BTreeMap::new(), position)), applied: AtomicI64::new(position) }
    }

    /// Adds what the database knows; rows that arrived since win.
    pub fn fill(&self, rows: Vec<PresenceRow>) {
        for row in rows {
            self.users.entry(row.user_id.clone()).or_insert(row);
        }
    }

    /// Takes over rows of the stream.
    pub fn apply(&self, update: &Update) {
        for row in &update.rows {
            if let Row::Presence(p) = row {
                self.put(update.token, p.clone());
            }
        }
        self.applied.fetch_max(update.token, Ordering::AcqRel);
    }

    fn put(&self, token: i64, state: PresenceRow) {
        let mut recent = self.recent.lock().unwrap_or_else(|e| e.into_inner());
        recent.0.insert(token, state.user_id.clone());
        while recent.0.len() > MAX_RECENT {
            if let Some((at, _)) = recent.0.pop_first() {
                recent.1 = at;
            }
        }
        drop(recent);
        if self.users.len() >= MAX_USERS {
            self.users.retain(|_, p| p.state != "offline");
        }
        self.users.insert(state.user_id.clone(), state);
    }

    /// Rows were lost up to `token`.
    pub fn skip_to(&self, token: i64) {
        let mut recent = self.recent.lock().unwrap_or_else(|e| e.into_inner());
        recent.0.clear();
        recent.1 = token;
        self.applied.store(token, Ordering::Release);
    }

    /// Position of this view, for tokens.
    pub fn position(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Users whose presence changed after `since`; None: too long ago to know.
    pub fn changed_since(&self, since: i64) -> Option<HashSet<String>> {
        let recent = self.recent.lock().unwrap_or_else(|e| e.into_inner());
        (since >= recent.1).then(|| recent.0.range(since + 1..).map(|(_, u)| u.clone()).collect())
    }

    /// The presence of a user if it is in memory.
    pub fn get(&self, user_id: &str) -> Option<PresenceRow> {
        self.users.get(user_id).map(|p| p.clone())
    }

    /// The presence of users; those not in memory come from the database, and are offline if not there.
    pub async fn of<'a>(&self, store: &Store, user_ids: impl IntoIterator<Item = &'a str>) -> Result<Vec<PresenceRow>> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for user in user_ids {
            match self.get(user) {
                Some(p) => found.push(p),
                None => missing.push(user),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let stored = store.presence_of(&missing).await?;
        let known: HashSet<String> = stored.iter().map(|p| p.user_id.clone()).collect();
        let unknown = missing.into_iter().filter(|u| !known.contains(*u)).map(offline);
        found.extend(unknown);
        found.extend(stored);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Stream;

    #[test]
    fn changes_are_known_from_the_start_on() {
        let view = View::new(10, vec![]);
        assert_eq!(view.changed_since(9), None);
        let row = Row::Presence(PresenceRow { state: "online".into(), ..offline("@a:b") });
        let update = Update {
            stream: Stream::Presence,
            instance: "w".into(),
            previous: 10,
            token: 12,
            rows: vec![row],
            local: false,
        };
        view.apply(&update);
        assert_eq!(view.changed_since(10).unwrap(), HashSet::from(["@a:b".to_owned()]));
        assert_eq!(view.changed_since(12).unwrap(), HashSet::new());
        assert_eq!(view.position(), 12);
    }
}
