//! Who is typing where: a stream in memory, written by one process.

use crate::Sync;
use config::StreamGroup;
use dashmap::DashMap;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use store::{Row, Stream, Streams, Update};
use tokio::sync::Notify;
use types::Result;

/// Longest time somebody may be shown as typing after one request, ms.
pub const MAX_TIMEOUT_MS: i64 = 120_000;
/// Rooms remembered at most.
const MAX_ROOMS: usize = 20_000;

/// What every process knows of the stream: the last list of each room.
#[derive(Default)]
pub struct TypingView {
    rooms: DashMap<String, (i64, Vec<String>)>,
    /// All rows up to here are in `rooms`.
    applied: AtomicI64,
}

impl TypingView {
    /// Takes over rows of the stream.
    pub fn apply(&self, update: &Update) {
        if update.token < self.applied.load(Ordering::Acquire) && !update.local {
            // The writer started again: its counter began anew and nobody types.
            self.rooms.clear();
        }
        for row in &update.rows {
            if let Row::Typing { room_id, user_ids } = row {
                self.set(room_id, update.token, user_ids.clone());
            }
        }
        self.applied.store(update.token, Ordering::Release);
    }

    fn set(&self, room_id: &str, at: i64, users: Vec<String>) {
        if self.rooms.len() >= MAX_ROOMS {
            self.rooms.retain(|_, (_, users)| !users.is_empty());
        }
        self.rooms.insert(room_id.to_owned(), (at, users));
    }

    /// Rows were lost: what was known is dropped.
    pub fn skip_to(&self, token: i64) {
        self.rooms.clear();
        self.applied.store(token, Ordering::Release);
    }

    /// Position of this view, for tokens.
    pub fn position(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// `m.typing` of those rooms whose list changed after `since`, by room; and where the view is.
    pub fn since(&self, since: i64, room_ids: &[String]) -> (HashMap<String, Value>, i64) {
        let now = self.position();
        let mut found = HashMap::new();
        if since >= now {
            return (found, now);
        }
        for room in room_ids {
            if let Some(entry) = self.rooms.get(room) {
                let (at, users) = entry.value();
                // That nobody types any more is told too, as Synapse does, also to those who come without a token:
                // one from before the first row of the stream looks no different.
                if *at > since {
                    found.insert(room.clone(), json!({"type": "m.typing", "content": {"user_ids": users}}));
                }
            }
        }
        (found, now)
    }
}

/// The writer's books: until when (ms) who types where.
#[derive(Default)]
pub struct TypingWriter {
    until: Mutex<HashMap<String, BTreeMap<String, i64>>>,
    changed: Notify,
}

impl TypingWriter {
    fn update<R>(&self, f: impl FnOnce(&mut HashMap<String, BTreeMap<String, i64>>) -> R) -> R {
        f(&mut self.until.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Somebody types until `until`; the room's new list if it changed.
    fn start(&self, room_id: &str, user_id: &str, until: i64) -> Option<Vec<String>> {
        let list = self.update(|rooms| {
            let room = rooms.entry(room_id.to_owned()).or_default();
            room.insert(user_id.to_owned(), until).is_none().then(|| room.keys().cloned().collect())
        });
        self.changed.notify_one();
        list
    }

    fn stop(&self, room_id: &str, user_id: &str) -> Option<Vec<String>> {
        self.update(|rooms| {
            let room = rooms.get_mut(room_id)?;
            room.remove(user_id)?;
            let list = room.keys().cloned().collect();
            if room.is_empty() {
                rooms.remove(room_id);
            }
            Some(list)
        })
    }

    /// Drops everybody whose time is over: rooms with their new lists; and when the next one is due.
    fn expire(&self, now: i64) -> (Vec<(String, Vec<String>)>, Option<i64>) {
        self.update(|rooms| {
            let mut changed = Vec::new();
            for (room, users) in rooms.iter_mut() {
                let before = users.len();
                users.retain(|_, until| *until > now);
                if users.len() != before {
                    changed.push((room.clone(), users.keys().cloned().collect()));
                }
            }
            rooms.retain(|_, users| !users.is_empty());
            let next = rooms.values().flat_map(|u| u.values()).min().copied();
            (changed, next)
        })
    }
}

impl Sync {
    /// Whether this process writes the stream.
    pub fn writes_typing(&self) -> bool {
        self.cx.is_mine(StreamGroup::Typing, "")
    }

    /// Somebody (local or remote) started typing, for `timeout_ms`, or stopped (None). Only in the writer.
    pub fn set_typing(&self, room_id: &str, user_id: &str, timeout_ms: Option<i64>) {
        let writer = &self.live.typing_writer;
        let list = match timeout_ms {
            Some(ms) => writer.start(room_id, user_id, self.cx.now_ms() + ms.clamp(0, MAX_TIMEOUT_MS)),
            None => writer.stop(room_id, user_id),
        };
        if let Some(list) = list {
            self.announce_typing(room_id, list);
        }
    }

    /// As [`Sync::set_typing`] from any process. A writer that is no Plexus process takes it as it takes the
    /// typing of remote users, with a time-out of its own.
    pub async fn tell_typing(&self, room_id: &str, user_id: &str, timeout_ms: Option<i64>) -> Result<()> {
        if self.writes_typing() {
            self.set_typing(room_id, user_id, timeout_ms);
            return self.typing_seen().await;
        }
        let content = json!({"room_id": room_id, "user_id": user_id, "typing": timeout_ms.is_some()});
        self.hand_edu(self.cx.owner(StreamGroup::Typing, ""), "m.typing", content).await
    }

    /// Gives an EDU of our own to the process that handles its kind.
    pub(crate) async fn hand_edu(&self, instance: &str, kind: &str, content: Value) -> Result<()> {
        let origin = self.cx.config.server.name.as_str();
        let payload =
            serde_json::Map::from_iter([("origin".to_owned(), origin.into()), ("content".to_owned(), content)]);
        self.cx.peers.call(instance, "fed_send_edu", &[kind], true, payload).await?;
        Ok(())
    }

    fn announce_typing(&self, room_id: &str, user_ids: Vec<String>) {
        announce(&self.cx.store.streams, room_id, user_ids);
    }

    /// Ends the typing of those whose time is over. Never returns; only in the writer.
    pub(crate) async fn time_out_typing(self) {
        loop {
            let (changed, next) = self.live.typing_writer.expire(self.cx.now_ms());
            for (room, users) in changed {
                self.announce_typing(&room, users);
            }
            let wait = next.map_or(3_600_000, |at| (at - self.cx.now_ms()).max(10));
            let pause = tokio::time::sleep(std::time::Duration::from_millis(wait as u64));
            tokio::select! {
                _ = pause => {}
                _ = self.live.typing_writer.changed.notified() => {}
            }
        }
    }

    /// Waits until a row announced here can be seen by syncs here.
    pub async fn typing_seen(&self) -> Result<()> {
        let wanted = self.cx.store.streams.current(Stream::Typing);
        for _ in 0..50 {
            if self.live.typing.position() >= wanted {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

fn announce(streams: &Arc<Streams>, room_id: &str, user_ids: Vec<String>) {
    streams.announce_in_memory(Stream::Typing, Row::Typing { room_id: room_id.to_owned(), user_ids });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(token: i64, users: &[&str]) -> Update {
        let row = Row::Typing { room_id: "!r:a".into(), user_ids: users.iter().map(|u| u.to_string()).collect() };
        Update { stream: Stream::Typing, instance: "w".into(), previous: 0, token, rows: vec![row], local: false }
    }

    #[test]
    fn a_restarted_writer_clears_the_view() {
        let view = TypingView::default();
        let rooms = vec!["!r:a".to_owned(), "!s:a".to_owned()];
        view.apply(&update(5, &["@a:a"]));
        assert_eq!(view.since(4, &rooms).0.len(), 1);
        assert_eq!(view.since(5, &rooms).0.len(), 0);
        view.apply(&Update { rows: vec![], ..update(0, &[]) });
        assert_eq!(view.since(0, &rooms), (HashMap::new(), 0));
        assert_eq!(view.since(9, &rooms).1, 0);
    }

    #[test]
    fn typing_ends_by_itself() {
        let w = TypingWriter::default();
        assert_eq!(w.start("!r:a", "@a:a", 100), Some(vec!["@a:a".to_owned()]));
        assert_eq!(w.start("!r:a", "@a:a", 200), None);
        assert_eq!(w.expire(150), (vec![], Some(200)));
        assert_eq!(w.expire(200), (vec![("!r:a".to_owned(), vec![])], None));
        assert_eq!(w.stop("!r:a", "@a:a"), None);
    }
}
