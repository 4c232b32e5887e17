//! Recent rows of the streams that live in memory, for readers that missed some.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use store::{Row, Stream, Update};

/// Rows older than this are of no use to anybody (presence for other servers, EDUs).
const QUEUE_AGE: Duration = Duration::from_secs(300);
const QUEUE_LENGTH: usize = 50_000;
/// Rooms where somebody typed lately.
const TYPING_ROOMS: usize = 10_000;

/// What this process wrote.
#[derive(Default)]
pub struct Memory(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Room → last row: it replaces those before it.
    typing: HashMap<String, (i64, Row)>,
    queues: BTreeMap<&'static str, VecDeque<(Instant, i64, Row)>>,
}

impl Memory {
    pub(crate) fn record(&self, update: &Update) {
        if !update.stream.is_memory() {
            return;
        }
        let mut inner = self.0.lock().unwrap_or_else(|e| e.into_inner());
        for row in &update.rows {
            if let Row::Typing { room_id, .. } = row {
                inner.typing.insert(room_id.clone(), (update.token, row.clone()));
                continue;
            }
            let queue = inner.queues.entry(update.stream.name()).or_default();
            queue.push_back((Instant::now(), update.token, row.clone()));
            while queue.len() > QUEUE_LENGTH || queue.front().is_some_and(|(at, ..)| at.elapsed() > QUEUE_AGE) {
                queue.pop_front();
            }
        }
        if inner.typing.len() > TYPING_ROOMS {
            let mut tokens: Vec<i64> = inner.typing.values().map(|(t, _)| *t).collect();
            let (_, middle, _) = tokens.select_nth_unstable(TYPING_ROOMS / 2);
            let middle = *middle;
            inner.typing.retain(|_, (t, _)| *t > middle);
        }
    }

    /// Rows with tokens in `(from, upto]`, oldest first.
    pub fn between(&self, stream: Stream, from: i64, upto: i64) -> Vec<(i64, Row)> {
        let inner = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let wanted = |t: &i64| *t > from && *t <= upto;
        if stream == Stream::Typing {
            let mut rows: Vec<_> = inner.typing.values().filter(|(t, _)| wanted(t)).cloned().collect();
            rows.sort_by_key(|(t, _)| *t);
            return rows;
        }
        let queue = inner.queues.get(stream.name()).into_iter().flatten();
        queue.filter(|(_, t, _)| wanted(t)).map(|(_, t, row)| (*t, row.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_room_counts() {
        let memory = Memory::default();
        for (token, room, users) in [(1, "!a", vec!["@x:y"]), (2, "!b", vec!["@x:y"]), (3, "!a", vec![])] {
            let users: Vec<String> = users.into_iter().map(str::to_owned).collect();
            memory.record(&Update {
                stream: Stream::Typing,
                instance: "master".into(),
                previous: token - 1,
                token,
                rows: vec![Row::Typing { room_id: room.into(), user_ids: users }],
                local: true,
            });
        }
        let tokens: Vec<i64> = memory.between(Stream::Typing, 0, 3).into_iter().map(|(t, _)| t).collect();
        assert_eq!(tokens, [2, 3]);
        assert_eq!(memory.between(Stream::Typing, 2, 2).len(), 0);
    }
}
