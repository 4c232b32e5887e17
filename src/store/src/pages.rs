//! Pages of room history: `events` by (topological, stream) ordering.

use crate::{Store, Streams};
use ruma::{EventId, OwnedEventId};
use std::fmt::Write;
use tokio_postgres::types::ToSql;
use types::filter::EventFilter;
use types::{Result, RoomToken};

/// Direction of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    Forwards,
    Backwards,
}

impl Dir {
    pub fn order(self) -> &'static str {
        if self == Dir::Backwards { "DESC" } else { "ASC" }
    }
}

/// As in the query parameter `dir`.
impl std::fmt::Display for Dir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Dir::Backwards { "b" } else { "f" })
    }
}

/// A position between events, as plain numbers. Tokens name the event before the gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// None: by stream ordering alone.
    pub depth: Option<i64>,
    pub stream: i64,
}

impl Bound {
    /// Where a page in direction `dir` that begins at `token` begins: never too late, see [`covers`].
    pub fn from(token: &RoomToken, dir: Dir) -> Self {
        match (token, dir) {
            (RoomToken::Topological { depth, stream }, _) => Self { depth: Some(*depth), stream: *stream },
            (RoomToken::Live(m), Dir::Backwards) => Self { depth: None, stream: m.max() },
            (RoomToken::Live(m), Dir::Forwards) => Self { depth: None, stream: m.stream },
        }
    }

    /// Where a page in direction `dir` that ends at `token` ends: never too early.
    pub fn to(token: &RoomToken, dir: Dir) -> Self {
        let opposite = if dir == Dir::Backwards { Dir::Forwards } else { Dir::Backwards };
        Self::from(token, opposite)
    }

    /// The token between the last event of a page and what follows it.
    pub fn after_page(dir: Dir, depth: i64, stream: i64) -> RoomToken {
        // Backwards tokens point before the event: one less in the stream.
        let stream = if dir == Dir::Backwards { stream - 1 } else { stream };
        RoomToken::Topological { depth, stream }
    }

    fn compare<'a>(&'a self, op: &str, prefix: &str, params: &mut Vec<Param<'a>>, sql: &mut String) {
        let stream = add(params, &self.stream);
        let _ = match &self.depth {
            Some(d) => {
                let depth = add(params, d);
                write!(sql, " AND ({prefix}topological_ordering, {prefix}stream_ordering) {op} ({depth}, {stream})")
            }
            None => write!(sql, " AND {prefix}stream_ordering {op} {stream}"),
        };
    }

    /// ` AND …` for a page between two bounds; their numbers are appended to `params`.
    pub(crate) fn clause<'a>(
        dir: Dir,
        from: Option<&'a Bound>,
        to: Option<&'a Bound>,
        prefix: &str,
        params: &mut Vec<Param<'a>>,
    ) -> String {
        let (upper, lower) = if dir == Dir::Backwards { (from, to) } else { (to, from) };
        let mut sql = String::new();
        if let Some(b) = upper {
            b.compare("<=", prefix, params, &mut sql);
        }
        if let Some(b) = lower {
            b.compare(">", prefix, params, &mut sql);
        }
        sql
    }
}

pub(crate) type Param<'a> = &'a (dyn ToSql + Sync);

/// Appends a parameter; its placeholder.
fn add<'a>(params: &mut Vec<Param<'a>>, value: Param<'a>) -> String {
    params.push(value);
    format!("${}", params.len())
}

/// Whether an event at this place lies at or before a token.
pub fn covers(token: &RoomToken, streams: &Streams, instance: Option<&str>, depth: i64, stream: i64) -> bool {
    match token {
        RoomToken::Topological { depth: d, stream: s } => (depth, stream) <= (*d, *s),
        RoomToken::Live(m) => stream <= m.for_instance(streams.instance_id(instance)),
    }
}

/// Where an event stands.
#[derive(Clone, Debug)]
pub struct Place {
    pub event_id: OwnedEventId,
    pub instance: Option<String>,
    pub depth: i64,
    pub stream: i64,
}

/// What to load with [`Store::page`].
#[derive(Clone, Debug)]
pub struct PageQuery<'a> {
    pub room_id: &'a str,
    pub dir: Dir,
    pub from: &'a RoomToken,
    pub to: Option<&'a RoomToken>,
    pub limit: usize,
    pub filter: Option<&'a EventFilter>,
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page {
    pub events: Vec<Place>,
    /// Where the next page begins.
    pub next: RoomToken,
    /// There may be more.
    pub limited: bool,
}

/// `*` is only a wildcard at the end of a type.
const TYPE_IN: &str = "EXISTS (SELECT 1 FROM unnest(?::text[]) p
    WHERE e.type = p OR (right(p, 1) = '*' AND starts_with(e.type, left(p, -1))))";

/// SQL for the parts of a filter that the database can judge; it is applied again in full afterwards.
fn filter_clause<'a>(filter: &'a EventFilter, params: &mut Vec<Param<'a>>) -> String {
    let mut sql = String::new();
    let mut and = |condition: String, value: Param<'a>| {
        let placeholder = add(params, value);
        let _ = write!(sql, " AND {}", condition.replace('?', &placeholder));
    };
    if let Some(types) = filter.types.as_ref().filter(|t| !t.is_empty()) {
        and(TYPE_IN.into(), types);
    }
    if !filter.not_types.is_empty() {
        and(format!("NOT {TYPE_IN}"), &filter.not_types);
    }
    if let Some(senders) = filter.senders.as_ref().filter(|s| !s.is_empty()) {
        and("e.sender = ANY(?)".into(), senders);
    }
    if !filter.not_senders.is_empty() {
        and("NOT e.sender = ANY(?)".into(), &filter.not_senders);
    }
    if filter.contains_url == Some(true) {
        sql.push_str(" AND e.contains_url");
    }
    if filter.has_relation_filter() {
        let senders = add(params, &filter.related_by_senders);
        let types = add(params, &filter.related_by_rel_types);
        let _ = write!(
            sql,
            " AND EXISTS (SELECT 1 FROM event_relations r JOIN events c ON c.event_id = r.event_id
                 WHERE r.relates_to_id = e.event_id AND ({senders}::text[] IS NULL OR c.sender = ANY({senders}))
                   AND ({types}::text[] IS NULL OR r.relation_type = ANY({types})))"
        );
    }
    sql
}

impl Store {
    /// A page of a room's history. Rejected events are in it: they count, but are not shown.
    pub async fn page(&self, q: &PageQuery<'_>) -> Result<Page> {
        let empty = |next: &RoomToken| Page { events: Vec::new(), next: next.clone(), limited: false };
        let end = q.to.unwrap_or(q.from);
        if q.filter.is_some_and(|f| f.refuses_everything()) {
            return Ok(empty(end));
        }
        let limit = (q.limit as i64) * 2;
        let (from, to) = (Bound::from(q.from, q.dir), q.to.map(|t| Bound::to(t, q.dir)));
        let mut params: Vec<Param<'_>> = vec![&q.room_id, &limit];
        let bounds = Bound::clause(q.dir, Some(&from), to.as_ref(), "e.", &mut params);
        let filter = q.filter.map(|f| filter_clause(f, &mut params)).unwrap_or_default();
        let order = q.dir.order();
        let sql = format!(
            "SELECT e.event_id, e.instance_name, e.topological_ordering, e.stream_ordering FROM events e
             WHERE e.room_id = $1 AND NOT e.outlier{bounds}{filter}
             ORDER BY e.topological_ordering {order}, e.stream_ordering {order} LIMIT $2"
        );
        let rows = self.db.query(&sql, &params).await?;
        let mut limited = rows.len() as i64 >= limit && limit > 0;
        let (upper, lower) = if q.dir == Dir::Backwards { (Some(q.from), q.to) } else { (q.to, Some(q.from)) };
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            let place = Place {
                event_id: row.get::<_, &str>(0).try_into()?,
                instance: row.get(1),
                depth: row.get(2),
                stream: row.get(3),
            };
            let is_covered =
                |t: &RoomToken| covers(t, &self.streams, place.instance.as_deref(), place.depth, place.stream);
            if upper.is_none_or(is_covered) && !lower.is_some_and(is_covered) {
                events.push(place);
            }
        }
        limited |= events.len() > q.limit;
        events.truncate(q.limit);
        let next = match events.last() {
            Some(last) => Bound::after_page(q.dir, last.depth, last.stream),
            None => end.clone(),
        };
        Ok(Page { events, next, limited })
    }

    /// The newest position of a room as a topological token.
    pub async fn newest_token(&self, room_id: &str) -> Result<RoomToken> {
        // Read before the query: what is written meanwhile may be in the depth, never beyond the stream.
        let stream = self.streams.token(crate::Stream::Events).max();
        let sql = "SELECT topological_ordering FROM events WHERE room_id = $1
                   ORDER BY topological_ordering DESC, stream_ordering DESC LIMIT 1";
        let row = self.db.query_opt(sql, &[&room_id]).await?;
        Ok(RoomToken::Topological { depth: row.map_or(0, |r| r.get(0)), stream })
    }

    /// Where events stand; unknown ones are left out.
    pub async fn places<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<Vec<Place>> {
        let ids: Vec<&str> = ids.iter().map(|i| i.as_ref().as_str()).collect();
        let sql = "SELECT event_id, instance_name, topological_ordering, stream_ordering FROM events
                   WHERE event_id = ANY($1)";
        let rows = self.db.query(sql, &[&ids]).await?;
        rows.iter()
            .map(|r| {
                Ok(Place {
                    event_id: r.get::<_, &str>(0).try_into()?,
                    instance: r.get(1),
                    depth: r.get(2),
                    stream: r.get(3),
                })
            })
            .collect()
    }

    /// The last event of a room at or before a token.
    pub async fn last_event_at(&self, room_id: &str, token: &RoomToken) -> Result<Option<OwnedEventId>> {
        let query = PageQuery { room_id, dir: Dir::Backwards, from: token, to: None, limit: 10, filter: None };
        match token {
            // By position in the room, not in the stream.
            RoomToken::Topological { .. } => Ok(self.page(&query).await?.events.into_iter().next().map(|p| p.event_id)),
            RoomToken::Live(m) => {
                let sql = "SELECT event_id, instance_name, topological_ordering, stream_ordering FROM events
                           WHERE room_id = $1 AND stream_ordering <= $2 AND NOT outlier AND rejection_reason IS NULL
                           ORDER BY stream_ordering DESC LIMIT 100";
                for r in self.db.query(sql, &[&room_id, &m.max()]).await? {
                    if covers(token, &self.streams, r.get(1), r.get(2), r.get(3)) {
                        return Ok(Some(r.get::<_, &str>(0).try_into()?));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The event nearest to a time (ms) in a direction.
    pub async fn event_near(&self, room_id: &str, at_ms: i64, dir: Dir) -> Result<Option<(OwnedEventId, i64)>> {
        let (op, order) = if dir == Dir::Backwards { ("<=", "DESC") } else { (">=", "ASC") };
        let sql = format!(
            "SELECT event_id, origin_server_ts FROM events
             WHERE room_id = $1 AND origin_server_ts {op} $2 AND NOT outlier AND rejection_reason IS NULL
             ORDER BY origin_server_ts {order}, depth {order}, stream_ordering {order} LIMIT 1"
        );
        let row = self.db.query_opt(&sql, &[&room_id, &at_ms]).await?;
        row.map(|r| Ok((r.get::<_, &str>(0).try_into()?, r.get(1)))).transpose()
    }
}
