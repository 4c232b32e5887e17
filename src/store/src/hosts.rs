//! Which servers are in rooms, and were when something was said there: `current_state_events`,
//! `current_state_delta_stream`.

use crate::Store;
use std::collections::{BTreeSet, HashMap};
use types::Result;

/// A membership that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    user_id: String,
    /// Stream ordering of the event that changed it. Where the last of our users left, the membership went with the
    /// rest of the room's state, and this may come before the event that did it.
    at: i64,
    dropped: bool,
    was_joined: bool,
    is_joined: bool,
}

/// The servers in a room, from some place in the stream of events on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Have a member who was in the room all the time.
    settled: BTreeSet<String>,
    /// In order.
    changes: Vec<Change>,
}

impl Hosts {
    /// Servers with joined members just before the event of a member at this place.
    pub fn before(&self, stream_ordering: i64, sender: &str) -> BTreeSet<String> {
        let last = self.changes.iter().rev().find(|c| c.user_id == sender && c.at < stream_ordering);
        // Who said something was in the room.
        let place = last.filter(|c| c.dropped).map_or(stream_ordering, |c| c.at);
        let mut joined: HashMap<&str, bool> = HashMap::new();
        for change in self.changes.iter().rev() {
            if change.at >= place {
                joined.insert(&change.user_id, change.was_joined);
            } else {
                joined.entry(&change.user_id).or_insert(change.is_joined);
            }
        }
        let users = joined.into_iter().filter(|(_, joined)| *joined);
        let servers = users.filter_map(|(user, _)| Some(user.split_once(':')?.1.to_owned()));
        self.settled.iter().cloned().chain(servers).collect()
    }
}

/// One statement, so that both parts are of the same moment. Entries without a place are servers, others are users.
const HOSTS: &str = "WITH changed AS (
        SELECT d.room_id, d.state_key, greatest(d.stream_id, n.event_stream_ordering) AS at, d.event_id IS NULL AS dropped,
               COALESCE(p.membership = 'join', false) AS was_joined, COALESCE(n.membership = 'join', false) AS is_joined
        FROM current_state_delta_stream d
        LEFT JOIN room_memberships p ON p.event_id = d.prev_event_id
        LEFT JOIN room_memberships n ON n.event_id = d.event_id
        WHERE d.room_id = ANY($1) AND d.stream_id >= $2 AND d.type = 'm.room.member'
    )
    SELECT c.room_id, substring(c.state_key FROM '@[^:]*:(.*)$') AS who, NULL::bigint AS at, false, false, false
    FROM current_state_events c
    WHERE c.room_id = ANY($1) AND c.type = 'm.room.member' AND c.membership = 'join' AND c.state_key LIKE '@%:%'
        AND NOT EXISTS (SELECT 1 FROM changed x WHERE x.room_id = c.room_id AND x.state_key = c.state_key)
    GROUP BY 1, 2
    UNION ALL SELECT room_id, state_key, at, dropped, was_joined, is_joined FROM changed
    ORDER BY at NULLS FIRST";

impl Store {
    /// By room, the servers in it for all events from this place in the stream on. Rooms nobody was in are left out.
    pub async fn hosts_since(&self, room_ids: &[String], from: i64) -> Result<HashMap<String, Hosts>> {
        let mut found: HashMap<String, Hosts> = HashMap::new();
        for row in self.db.query(HOSTS, &[&room_ids, &from]).await? {
            let hosts = found.entry(row.get(0)).or_default();
            match row.get(2) {
                None => drop(hosts.settled.insert(row.get(1))),
                Some(at) => hosts.changes.push(Change {
                    user_id: row.get(1),
                    at,
                    dropped: row.get(3),
                    was_joined: row.get(4),
                    is_joined: row.get(5),
                }),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(user_id: &str, at: i64, was_joined: bool, is_joined: bool) -> Change {
        Change { user_id: user_id.to_owned(), at, dropped: false, was_joined, is_joined }
    }

    fn before(hosts: &Hosts, at: i64) -> String {
        hosts.before(at, "@u:here").into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn servers_are_those_from_just_before_an_event() {
        let changes = vec![
            change("@a:late", 10, false, true),
            change("@b:gone", 20, true, false),
            change("@a:brief", 30, false, true),
            change("@a:brief", 40, true, false),
            // A new name.
            change("@c:same", 50, true, true),
        ];
        let hosts = Hosts { settled: ["here".to_owned()].into(), changes };
        assert_eq!(before(&hosts, 5), "gone here same");
        // The event itself does not count yet.
        assert_eq!(before(&hosts, 10), "gone here same");
        assert_eq!(before(&hosts, 11), "gone here late same");
        assert_eq!(before(&hosts, 20), "gone here late same");
        assert_eq!(before(&hosts, 21), "here late same");
        assert_eq!(before(&hosts, 35), "brief here late same");
        assert_eq!(before(&hosts, 60), "here late same");
    }

    #[test]
    fn a_room_left_by_the_last_of_us_is_told_so() {
        let gone = |user: &str, at| Change { dropped: true, ..change(user, at, true, false) };
        let hosts = Hosts { settled: BTreeSet::new(), changes: vec![gone("@u:here", 10), gone("@a:far", 10)] };
        assert_eq!(before(&hosts, 10), "far here");
        // The leave may come after something said in the same transaction.
        assert_eq!(before(&hosts, 12), "far here");
        let back = vec![
            gone("@u:here", 10),
            gone("@a:far", 10),
            change("@u:here", 20, false, true),
            change("@b:new", 20, false, true),
        ];
        assert_eq!(before(&Hosts { settled: BTreeSet::new(), changes: back }, 25), "here new");
    }
}
