//! Timelines of many rooms at once, for `/sync`.

use crate::Store;
use ruma::OwnedEventId;
use std::collections::HashMap;
use types::{MultiToken, Result, RoomToken};

/// Which stretch of a room's timeline is wanted, read backwards.
#[derive(Clone, Debug)]
pub struct Stretch<'a> {
    pub room_id: &'a str,
    /// Newest end, inclusive.
    pub upto: RoomToken,
    /// Oldest end, exclusive. None: the beginning of the room, and by topological order.
    pub since: Option<MultiToken>,
}

/// What was found, newest first.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub events: Vec<(OwnedEventId, i64)>,
    /// Where to go on from.
    pub end: Option<RoomToken>,
    /// More may follow.
    pub limited: bool,
}

const BY_STREAM: &str = "
    SELECT r.nr, e.event_id, e.instance_name, e.stream_ordering, e.topological_ordering
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS r(room_id, low, high, nr), LATERAL (
        SELECT event_id, instance_name, stream_ordering, topological_ordering FROM events
        WHERE room_id = r.room_id AND NOT outlier AND stream_ordering > r.low AND stream_ordering <= r.high
        ORDER BY stream_ordering DESC LIMIT $4) e
    ORDER BY r.nr, e.stream_ordering DESC";

const BY_DEPTH: &str = "
    SELECT r.nr, e.event_id, e.instance_name, e.stream_ordering, e.topological_ordering
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS r(room_id, depth, high, nr), LATERAL (
        SELECT event_id, instance_name, stream_ordering, topological_ordering FROM events
        WHERE room_id = r.room_id AND NOT outlier
              AND CASE WHEN r.depth IS NULL THEN stream_ordering <= r.high
                       ELSE (topological_ordering, stream_ordering) <= (r.depth, r.high) END
        ORDER BY topological_ordering DESC, stream_ordering DESC LIMIT $4) e
    ORDER BY r.nr, e.topological_ordering DESC, e.stream_ordering DESC";

const GAPS: &str = "
    SELECT room_id, instance_name, stream_ordering FROM timeline_gaps
    WHERE room_id = ANY($1) AND stream_ordering > $2 AND stream_ordering <= $3 ORDER BY stream_ordering";

fn bounds(token: &RoomToken) -> (Option<i64>, i64) {
    match token {
        RoomToken::Live(m) => (None, m.max()),
        RoomToken::Topological { depth, stream } => (Some(*depth), *stream),
    }
}

impl Store {
    /// At most `limit` events of each stretch, newest first. Rejected events count but are for the caller
    /// to leave out (they are not known here).
    pub async fn timelines(&self, stretches: &[Stretch<'_>], limit: usize) -> Result<Vec<Found>> {
        let mut found = vec![Found::default(); stretches.len()];
        for by_stream in [true, false] {
            let chosen: Vec<usize> =
                (0..stretches.len()).filter(|i| stretches[*i].since.is_some() == by_stream).collect();
            if chosen.is_empty() {
                continue;
            }
            let rooms: Vec<&str> = chosen.iter().map(|i| stretches[*i].room_id).collect();
            let high: Vec<i64> = chosen.iter().map(|i| bounds(&stretches[*i].upto).1).collect();
            // Twice as many: some may belong to writers the tokens do not cover that far.
            let fetch = 2 * limit as i64;
            let rows = if by_stream {
                let low: Vec<i64> =
                    chosen.iter().map(|i| stretches[*i].since.as_ref().map_or(0, |s| s.stream)).collect();
                self.db.query(BY_STREAM, &[&rooms, &low, &high, &fetch]).await?
            } else {
                let depth: Vec<Option<i64>> = chosen.iter().map(|i| bounds(&stretches[*i].upto).0).collect();
                self.db.query(BY_DEPTH, &[&rooms, &depth, &high, &fetch]).await?
            };
            self.sort_rows(stretches, &chosen, &rows, limit, &mut found)?;
        }
        Ok(found)
    }

    fn sort_rows(
        &self,
        stretches: &[Stretch<'_>],
        chosen: &[usize],
        rows: &[tokio_postgres::Row],
        limit: usize,
        found: &mut [Found],
    ) -> Result<()> {
        let mut fetched: HashMap<usize, usize> = HashMap::new();
        for row in rows {
            let Some(i) = usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|nr| chosen.get(nr)).copied() else {
                continue;
            };
            *fetched.entry(i).or_default() += 1;
            let (stretch, out) = (&stretches[i], &mut found[i]);
            let (instance, stream, depth): (Option<&str>, i64, i64) = (row.get(2), row.get(3), row.get(4));
            if !self.covers(stretch, instance, stream) {
                continue;
            }
            if out.events.len() == limit {
                out.limited = true;
                continue;
            }
            out.events.push((row.get::<_, &str>(1).try_into()?, stream));
            out.end = Some(match stretch.since {
                Some(_) => RoomToken::live(stream - 1),
                None => RoomToken::Topological { depth, stream: stream - 1 },
            });
        }
        for (i, n) in fetched {
            found[i].limited |= n >= 2 * limit;
        }
        Ok(())
    }

    fn covers(&self, stretch: &Stretch<'_>, instance: Option<&str>, stream: i64) -> bool {
        let writer = self.streams.instance_id(instance);
        let below = match &stretch.upto {
            RoomToken::Live(m) => stream <= m.for_instance(writer),
            RoomToken::Topological { .. } => true,
        };
        below && stretch.since.as_ref().is_none_or(|s| stream > s.for_instance(writer))
    }

    /// Rooms with a gap in their timeline after `from`, up to `to`: the position just before the last one.
    pub async fn timeline_gaps(
        &self,
        room_ids: &[&str],
        from: Option<&MultiToken>,
        to: &MultiToken,
    ) -> Result<HashMap<String, MultiToken>> {
        let start = MultiToken::default();
        let from = from.unwrap_or(&start);
        let rows = self.db.query(GAPS, &[&room_ids, &from.stream, &to.max()]).await?;
        let inside = rows.iter().filter(|r| self.is_within(from, to, r.get(1), r.get(2)));
        Ok(inside.map(|r| (r.get(0), MultiToken::at(r.get::<_, i64>(2) - 1))).collect())
    }

    /// (event, writer, position) of events.
    pub async fn event_positions(&self, ids: &[&str]) -> Result<HashMap<OwnedEventId, (Option<String>, i64)>> {
        let sql = "SELECT event_id, instance_name, stream_ordering FROM events WHERE event_id = ANY($1)";
        let rows = self.db.query(sql, &[&ids]).await?;
        rows.iter().map(|r| Ok((r.get::<_, &str>(0).try_into()?, (r.get(1), r.get(2))))).collect()
    }
}
