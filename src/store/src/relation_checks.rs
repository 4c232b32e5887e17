//! What the writer of a room asks of `event_relations` before it takes an event.

use crate::Store;
use types::Result;

const THREAD_OF: &str = "
    WITH RECURSIVE up(id, depth) AS (
        SELECT $1::text, 0
        UNION ALL
        SELECT r.relates_to_id, u.depth + 1 FROM event_relations r JOIN up u ON r.event_id = u.id WHERE u.depth < 3
    )
    SELECT r.relates_to_id FROM up JOIN event_relations r ON r.event_id = up.id
    WHERE r.relation_type = 'm.thread' ORDER BY up.depth LIMIT 1";

impl Store {
    /// The thread an event is in, directly or through what it relates to.
    pub async fn thread_of(&self, event_id: &str) -> Result<Option<String>> {
        Ok(self.db.query_opt(THREAD_OF, &[&event_id]).await?.map(|r| r.get(0)))
    }

    /// Whether any known event relates to this one.
    pub async fn is_target_of_relation(&self, event_id: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM event_relations WHERE relates_to_id = $1 LIMIT 1";
        Ok(self.db.query_opt(sql, &[&event_id]).await?.is_some())
    }

    /// Whether the event relates to another.
    pub async fn has_relation(&self, event_id: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM event_relations WHERE event_id = $1";
        Ok(self.db.query_opt(sql, &[&event_id]).await?.is_some())
    }

    /// Stream orderings of events that are stored.
    pub async fn stream_orderings(&self, ids: &[&str]) -> Result<std::collections::HashMap<String, i64>> {
        let sql = "SELECT event_id, stream_ordering FROM events WHERE event_id = ANY($1)";
        Ok(self.db.query(sql, &[&ids]).await?.iter().map(|r| (r.get(0), r.get(1))).collect())
    }
}
