//! Full-text search in messages, names and topics: table `event_search`, which the commit of an event fills.

use crate::Store;
use ruma::OwnedEventId;
use std::collections::BTreeSet;
use types::Result;

/// What is looked for, and where.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// As people type it into search engines: `"a phrase"`, `or`, `-not` (PostgreSQL's `websearch_to_tsquery`).
    pub term: &'a str,
    pub rooms: &'a [String],
    /// Of `content.body`, `content.name`, `content.topic`.
    pub keys: &'a [String],
}

/// A row that matches.
#[derive(Clone, Debug)]
pub struct Hit {
    pub event_id: OwnedEventId,
    pub rank: f64,
    /// Milliseconds; None in rows older than the column.
    pub at_ms: Option<i64>,
    pub stream: Option<i64>,
}

/// Matches ordered by rank that are looked at, at most.
const MOST: i64 = 500;

const COLUMNS: &str =
    "SELECT event_id, ts_rank_cd(vector, query)::text::float8 AS rank, origin_server_ts, stream_ordering
    FROM event_search, websearch_to_tsquery('english', $1) query
    WHERE vector @@ query AND room_id = ANY($2) AND key = ANY($3)";

fn hits(rows: Vec<tokio_postgres::Row>) -> Result<Vec<Hit>> {
    let hit = |r: &tokio_postgres::Row| {
        Ok(Hit { event_id: r.get::<_, &str>(0).try_into()?, rank: r.get(1), at_ms: r.get(2), stream: r.get(3) })
    };
    rows.iter().map(hit).collect()
}

impl Store {
    /// The best matches, best first.
    pub async fn best_matches(&self, s: Search<'_>) -> Result<Vec<Hit>> {
        let sql = format!("{COLUMNS} ORDER BY rank DESC LIMIT $4");
        hits(self.db.query(&sql, &[&s.term, &s.rooms, &s.keys, &MOST]).await?)
    }

    /// The newest matches, newest first; `before`: older than (milliseconds, stream ordering).
    pub async fn newest_matches(&self, s: Search<'_>, before: Option<(i64, i64)>, limit: i64) -> Result<Vec<Hit>> {
        let (at_ms, stream) = before.unwrap_or((i64::MAX, i64::MAX));
        let sql = format!(
            "{COLUMNS} AND ($4 OR (origin_server_ts, stream_ordering) < ($5, $6))
             ORDER BY origin_server_ts DESC NULLS LAST, stream_ordering DESC NULLS LAST LIMIT $7"
        );
        let from_start = before.is_none();
        hits(self.db.query(&sql, &[&s.term, &s.rooms, &s.keys, &from_start, &at_ms, &stream, &limit]).await?)
    }

    /// How many rows match.
    pub async fn count_matches(&self, s: Search<'_>) -> Result<i64> {
        let sql = "SELECT count(*) FROM event_search
                   WHERE vector @@ websearch_to_tsquery('english', $1) AND room_id = ANY($2) AND key = ANY($3)";
        let row = self.db.query_opt(sql, &[&s.term, &s.rooms, &s.keys]).await?;
        Ok(row.map_or(0, |r| r.get(0)))
    }

    /// Words of these texts that a search term found, in lower case.
    pub async fn highlights(&self, term: &str, texts: &[String]) -> Result<BTreeSet<String>> {
        let longest = |c: char| texts.iter().flat_map(|t| t.split(|x| x != c)).map(str::len).max().unwrap_or(0);
        let (start, stop) = ("<".repeat(longest('<') + 1), ">".repeat(longest('>') + 1));
        let options = format!("StartSel={start},StopSel={stop},MaxFragments=50");
        let sql = "SELECT ts_headline(t, websearch_to_tsquery('english', $2), $3) FROM unnest($1::text[]) t";
        let rows = self.db.query(sql, &[&texts, &term, &options]).await?;
        let found = rows.iter().flat_map(|r| between(r.get(0), &start, &stop));
        Ok(found.map(|word| word.to_lowercase()).collect())
    }

    /// Rooms that these rooms replaced, directly (`predecessor` of their create events).
    pub async fn predecessors_of(&self, rooms: &[String]) -> Result<Vec<String>> {
        let sql = "SELECT j.json::jsonb->'content'->'predecessor'->>'room_id'
                   FROM current_state_events c JOIN event_json j USING (event_id)
                   WHERE c.room_id = ANY($1) AND c.type = 'm.room.create' AND c.state_key = ''
                     AND j.json::jsonb->'content'->'predecessor'->>'room_id' IS NOT NULL";
        Ok(self.db.query(sql, &[&rooms]).await?.iter().map(|r| r.get(0)).collect())
    }
}

/// What stands between marks.
fn between<'a>(text: &'a str, start: &str, stop: &str) -> Vec<&'a str> {
    let marked = text.split(start).skip(1);
    marked.filter_map(|part| part.split_once(stop)).map(|(word, _)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_words_are_found() {
        assert_eq!(between("a <b> <c> d", "<", ">"), ["b", "c"]);
        assert_eq!(between("1 < 2 <<two>> x", "<<", ">>"), ["two"]);
        assert!(between("nothing", "<", ">").is_empty());
    }
}
