//! Timelines of many rooms at once, for `/sync`.

use crate::Store;
use crate::cache::Stamp;
use ruma::OwnedEventId;
use std::collections::HashMap;
use std::sync::Arc;
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

/// An event's place in its room.
#[derive(Clone, Debug)]
struct Place {
    event_id: OwnedEventId,
    /// `instance_map` id of its writer.
    writer: Option<i64>,
    stream: i64,
    depth: i64,
}

/// The newest events of a room by topological order, newest first, whoever wrote them.
#[derive(Debug)]
pub(crate) struct Recent {
    places: Box<[Place]>,
    /// The room has no older ones.
    whole: bool,
}

impl Recent {
    /// What it takes of its cache.
    pub fn weight(&self) -> usize {
        self.places.len()
    }
}

/// Longer beginnings of a room are not kept: few ask for more.
const MAX_RECENT: usize = 100;

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

impl<'a> Stretch<'a> {
    /// The newest of the whole room.
    fn is_recent(&self) -> bool {
        self.since.is_none() && matches!(self.upto, RoomToken::Live(_))
    }

    /// The same of all that is there, also what was just written.
    fn unbounded(&self) -> Stretch<'a> {
        Stretch { room_id: self.room_id, upto: RoomToken::live(i64::MAX), since: None }
    }

    fn covers(&self, place: &Place) -> bool {
        let below = match &self.upto {
            RoomToken::Live(m) => place.stream <= m.for_instance(place.writer),
            RoomToken::Topological { .. } => true,
        };
        below && self.since.as_ref().is_none_or(|s| place.stream > s.for_instance(place.writer))
    }

    /// What is told of these places, newest first. `more`: there may be others beyond them.
    fn pick(&self, places: &[Place], limit: usize, more: bool) -> Found {
        let mut found = Found { limited: more, ..Found::default() };
        for place in places.iter().filter(|p| self.covers(p)) {
            if found.events.len() == limit {
                found.limited = true;
                break;
            }
            found.events.push((place.event_id.clone(), place.stream));
            found.end = Some(match self.since {
                Some(_) => RoomToken::live(place.stream - 1),
                None => RoomToken::Topological { depth: place.depth, stream: place.stream - 1 },
            });
        }
        found
    }

    /// As [`Stretch::pick`]; None: the room has to be asked for more than this.
    fn pick_recent(&self, recent: &Recent, limit: usize) -> Option<Found> {
        let found = self.pick(&recent.places, limit, false);
        (recent.whole || found.limited).then_some(found)
    }
}

impl Store {
    /// At most `limit` events of each stretch, newest first. Rejected events count but are for the caller
    /// to leave out (they are not known here).
    pub async fn timelines(&self, stretches: &[Stretch<'_>], limit: usize) -> Result<Vec<Found>> {
        let mut found: Vec<Option<Found>> = vec![None; stretches.len()];
        self.find_recent(stretches, limit, &mut found).await?;
        for by_stream in [true, false] {
            let is_asked = |i: &usize| found[*i].is_none() && stretches[*i].since.is_some() == by_stream;
            let asked: Vec<usize> = (0..stretches.len()).filter(is_asked).collect();
            let chosen: Vec<&Stretch<'_>> = asked.iter().map(|i| &stretches[*i]).collect();
            for (i, places) in asked.iter().zip(self.places_of(&chosen, by_stream, 2 * limit).await?) {
                found[*i] = Some(stretches[*i].pick(&places, limit, places.len() >= 2 * limit));
            }
        }
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Finds what lies at the end of rooms' timelines without asking for it each time. What arrives while it is asked
    /// for may leave too little that the token covers: such a stretch stays open.
    async fn find_recent(&self, stretches: &[Stretch<'_>], limit: usize, found: &mut [Option<Found>]) -> Result<()> {
        let recent = &self.sync.recent;
        let mut missing: Vec<(usize, Stamp)> = Vec::new();
        for (i, stretch) in stretches.iter().enumerate().filter(|(_, s)| s.is_recent()) {
            found[i] = recent.get(stretch.room_id).and_then(|r| stretch.pick_recent(&r, limit));
            if found[i].is_none() {
                missing.push((i, recent.stamp(stretch.room_id)));
            }
        }
        // Without upper bound: what is not there yet when this is read is announced later, and then forgotten.
        let whole: Vec<Stretch<'_>> = missing.iter().map(|(i, _)| stretches[*i].unbounded()).collect();
        let places = self.places_of(&whole.iter().collect::<Vec<_>>(), false, 2 * limit).await?;
        for ((i, stamp), places) in missing.into_iter().zip(places) {
            let read = Recent { whole: places.len() < 2 * limit, places: places.into() };
            found[i] = stretches[i].pick_recent(&read, limit);
            if read.places.len() <= MAX_RECENT {
                recent.put_since(stamp, stretches[i].room_id.to_owned(), Arc::new(read));
            }
        }
        Ok(())
    }

    /// The newest `fetch` events of each stretch, also those of writers its tokens do not cover that far.
    async fn places_of(&self, stretches: &[&Stretch<'_>], by_stream: bool, fetch: usize) -> Result<Vec<Vec<Place>>> {
        let mut places: Vec<Vec<Place>> = vec![Vec::new(); stretches.len()];
        if stretches.is_empty() {
            return Ok(places);
        }
        let rooms: Vec<&str> = stretches.iter().map(|s| s.room_id).collect();
        let high: Vec<i64> = stretches.iter().map(|s| bounds(&s.upto).1).collect();
        let fetch = fetch as i64;
        let rows = if by_stream {
            let low: Vec<i64> = stretches.iter().map(|s| s.since.as_ref().map_or(0, |s| s.stream)).collect();
            self.db.query(BY_STREAM, &[&rooms, &low, &high, &fetch]).await?
        } else {
            let depth: Vec<Option<i64>> = stretches.iter().map(|s| bounds(&s.upto).0).collect();
            self.db.query(BY_DEPTH, &[&rooms, &depth, &high, &fetch]).await?
        };
        for row in &rows {
            let place = Place {
                event_id: row.get::<_, &str>(1).try_into()?,
                writer: self.streams.instance_id(row.get(2)),
                stream: row.get(3),
                depth: row.get(4),
            };
            let nr = usize::try_from(row.get::<_, i64>(0) - 1).ok();
            if let Some(list) = nr.and_then(|nr| places.get_mut(nr)) {
                list.push(place);
            }
        }
        Ok(places)
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
