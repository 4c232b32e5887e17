//! `event_relations`, `threads`: what relates to an event.

use crate::Store;
use crate::membership_for_user::split_cached;
use crate::pages::{Bound, Dir, Param};
use ruma::OwnedEventId;
use std::collections::HashMap;
use std::sync::Arc;
use types::Result;

/// A related event, with enough of it to leave out ignored senders and to go on from it.
#[derive(Clone, Debug)]
pub struct Related {
    pub event_id: OwnedEventId,
    pub rel_type: String,
    pub sender: String,
    pub depth: i64,
    pub stream: i64,
}

/// What to look for with [`Store::relations_of`].
#[derive(Clone, Debug)]
pub struct RelationQuery<'a> {
    pub room_id: &'a str,
    pub parent: &'a str,
    pub rel_type: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub dir: Dir,
    pub from: Option<Bound>,
    pub to: Option<Bound>,
    pub limit: i64,
    /// Relations of relations too, three levels deep.
    pub recurse: bool,
}

/// The latest reply of a thread and how many there are.
#[derive(Clone, Debug)]
pub struct ThreadSummary {
    pub latest: OwnedEventId,
    pub count: i64,
}

const EDITS: &str = "
    SELECT DISTINCT ON (original.event_id) original.event_id, edit.event_id
    FROM event_relations r
    JOIN events edit ON edit.event_id = r.event_id
    JOIN events original ON original.event_id = r.relates_to_id AND original.type = edit.type
         AND original.sender = edit.sender AND original.room_id = edit.room_id
    WHERE r.relates_to_id = ANY($1) AND r.relation_type = 'm.replace'
    ORDER BY original.event_id, edit.origin_server_ts DESC, edit.event_id DESC";

const REFERENCES: &str = "
    SELECT r.relates_to_id, child.event_id, child.sender
    FROM event_relations r
    JOIN events child ON child.event_id = r.event_id
    JOIN events parent ON parent.event_id = r.relates_to_id AND parent.room_id = child.room_id
    WHERE r.relates_to_id = ANY($1) AND r.relation_type = 'm.reference'
    ORDER BY child.topological_ordering, child.stream_ordering";

/// `$2`: senders that do not count.
const THREADS: &str = "
    SELECT DISTINCT ON (r.relates_to_id) r.relates_to_id, child.event_id,
           count(*) OVER (PARTITION BY r.relates_to_id),
           bool_or(child.sender = $3) OVER (PARTITION BY r.relates_to_id)
    FROM event_relations r
    JOIN events child ON child.event_id = r.event_id
    JOIN events parent ON parent.event_id = r.relates_to_id AND parent.room_id = child.room_id
    WHERE r.relates_to_id = ANY($1) AND r.relation_type = 'm.thread' AND NOT child.sender = ANY($2)
    ORDER BY r.relates_to_id, child.topological_ordering DESC, child.stream_ordering DESC";

impl Store {
    /// Which of these events anything relates to at all, and how; the others have no entry.
    pub async fn related_to_any(&self, ids: &[&str]) -> Result<Vec<(OwnedEventId, String)>> {
        let cache = &self.sync.relation_types;
        let (mut found, missing) = split_cached(cache, ids);
        if !missing.is_empty() {
            let stamps: Vec<_> = missing.iter().map(|id| cache.stamp(*id)).collect();
            let sql = "SELECT DISTINCT relates_to_id, relation_type FROM event_relations WHERE relates_to_id = ANY($1)";
            let mut types: HashMap<String, Vec<String>> = HashMap::new();
            for r in &self.db.query(sql, &[&missing]).await? {
                types.entry(r.get(0)).or_default().push(r.get(1));
            }
            for (id, stamp) in missing.into_iter().zip(stamps) {
                let types: Arc<[String]> = types.remove(id).unwrap_or_default().into();
                cache.put_since(stamp, id.to_owned(), types.clone());
                found.insert(id.to_owned(), types);
            }
        }
        let mut related = Vec::new();
        for (id, types) in found.iter().filter(|(_, types)| !types.is_empty()) {
            let id: OwnedEventId = id.as_str().try_into()?;
            related.extend(types.iter().map(|t| (id.clone(), t.clone())));
        }
        Ok(related)
    }

    /// The edit in force of each event that has one: same type, sender and room, newest.
    pub async fn applicable_edits(&self, ids: &[&str]) -> Result<HashMap<OwnedEventId, OwnedEventId>> {
        let rows = self.db.query(EDITS, &[&ids]).await?;
        rows.iter().map(|r| Ok((r.get::<_, &str>(0).try_into()?, r.get::<_, &str>(1).try_into()?))).collect()
    }

    /// `m.reference` relations of each event, oldest first, with their senders.
    pub async fn references_to(&self, ids: &[&str]) -> Result<HashMap<OwnedEventId, Vec<(OwnedEventId, String)>>> {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for r in self.db.query(REFERENCES, &[&ids]).await? {
            let child = (r.get::<_, &str>(1).try_into()?, r.get(2));
            found.entry(r.get::<_, &str>(0).try_into()?).or_default().push(child);
        }
        Ok(found)
    }

    /// Threads rooted at these events without what `ignored` users wrote, and whether `user_id` wrote in them.
    pub async fn thread_summaries(
        &self,
        ids: &[&str],
        ignored: &[&str],
        user_id: &str,
    ) -> Result<HashMap<OwnedEventId, (ThreadSummary, bool)>> {
        let rows = self.db.query(THREADS, &[&ids, &ignored, &user_id]).await?;
        rows.iter()
            .map(|r| {
                let summary = ThreadSummary { latest: r.get::<_, &str>(1).try_into()?, count: r.get(2) };
                Ok((r.get::<_, &str>(0).try_into()?, (summary, r.get(3))))
            })
            .collect()
    }

    /// Events that relate to one event, at most `limit` + 1 so that the caller sees whether there are more.
    pub async fn relations_of(&self, q: &RelationQuery<'_>) -> Result<Vec<Related>> {
        let order = q.dir.order();
        let source = if q.recurse {
            "(WITH RECURSIVE related AS (
                 SELECT event_id, relation_type, 0 AS level FROM event_relations WHERE relates_to_id = $1
                 UNION ALL
                 SELECT er.event_id, er.relation_type, r.level + 1 FROM related r
                 JOIN event_relations er ON er.relates_to_id = r.event_id WHERE r.level <= 3)
              SELECT event_id, relation_type FROM related)"
        } else {
            "(SELECT event_id, relation_type FROM event_relations WHERE relates_to_id = $1)"
        };
        let limit = q.limit + 1;
        let mut params: Vec<Param<'_>> = vec![&q.parent, &q.room_id, &q.rel_type, &q.kind, &limit];
        let bounds = Bound::clause(q.dir, q.from.as_ref(), q.to.as_ref(), "e.", &mut params);
        let sql = format!(
            "SELECT e.event_id, r.relation_type, e.sender, e.topological_ordering, e.stream_ordering
             FROM {source} AS r JOIN events e USING (event_id)
             WHERE e.room_id = $2 AND ($3::text IS NULL OR r.relation_type = $3)
               AND ($4::text IS NULL OR e.type = $4){bounds}
             ORDER BY e.topological_ordering {order}, e.stream_ordering {order} LIMIT $5"
        );
        let rows = self.db.query(&sql, &params).await?;
        rows.iter()
            .map(|r| {
                Ok(Related {
                    event_id: r.get::<_, &str>(0).try_into()?,
                    rel_type: r.get(1),
                    sender: r.get(2),
                    depth: r.get(3),
                    stream: r.get(4),
                })
            })
            .collect()
    }

    /// Thread roots of a room by their latest reply, newest first, after `(depth, stream)` if given.
    pub async fn threads_of_room(
        &self,
        room_id: &str,
        limit: i64,
        after: Option<(i64, i64)>,
    ) -> Result<Vec<(OwnedEventId, i64, i64)>> {
        let (depth, stream) = after.unwrap_or((i64::MAX, i64::MAX));
        let sql = "SELECT thread_id, topological_ordering, stream_ordering FROM threads
                   WHERE room_id = $1 AND (topological_ordering, stream_ordering) < ($2, $3)
                   ORDER BY topological_ordering DESC, stream_ordering DESC LIMIT $4";
        let rows = self.db.query(sql, &[&room_id, &depth, &stream, &limit]).await?;
        rows.iter().map(|r| Ok((r.get::<_, &str>(0).try_into()?, r.get(1), r.get(2)))).collect()
    }

    /// Those of these events that a relation of such a type or sender points at (filters' `related_by_*`).
    pub async fn with_relations(
        &self,
        ids: &[&str],
        senders: Option<&[String]>,
        types: Option<&[String]>,
    ) -> Result<Vec<OwnedEventId>> {
        let sql = "SELECT DISTINCT r.relates_to_id FROM event_relations r JOIN events e USING (event_id)
                   WHERE r.relates_to_id = ANY($1) AND ($2::text[] IS NULL OR e.sender = ANY($2))
                     AND ($3::text[] IS NULL OR r.relation_type = ANY($3))";
        let rows = self.db.query(sql, &[&ids, &senders, &types]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Whether the sender has this very annotation (key and type) on the event already.
    pub async fn has_annotated(&self, parent: &str, kind: &str, key: &str, sender: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM event_relations JOIN events USING (event_id)
                   WHERE relates_to_id = $1 AND relation_type = 'm.annotation' AND type = $2
                     AND sender = $3 AND aggregation_key = $4 LIMIT 1";
        Ok(self.db.query_opt(sql, &[&parent, &kind, &sender, &key]).await?.is_some())
    }
}
