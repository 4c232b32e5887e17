//! What waits to be sent to a server.

use crate::Sender;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// Events kept in memory; with more the server catches up from the tables.
const MAX_EVENTS: usize = 500;
/// Ephemeral data kept; the oldest keys' is dropped beyond.
const MAX_EDUS: usize = 1_000;

/// An event by its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueuedEvent {
    pub stream_ordering: i64,
    pub event_id: String,
}

/// Ephemeral data: of those with the same key only the last counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edu {
    pub kind: String,
    pub content: Value,
}

/// One server's. The default is that of a server that has to be looked up in the tables first.
#[derive(Debug)]
pub(crate) struct Queue {
    pub events: VecDeque<QueuedEvent>,
    pub edus: BTreeMap<String, Edu>,
    /// There may be messages to devices in the tables.
    pub to_device: bool,
    /// There may be device changes in the tables.
    pub device_lists: bool,
    /// There may be events in the tables that come before those in `events`.
    pub behind: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self { events: VecDeque::new(), edus: BTreeMap::new(), to_device: true, device_lists: true, behind: true }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.edus.is_empty() && !self.to_device && !self.device_lists && !self.behind
    }

    pub fn push(&mut self, event: QueuedEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.clear();
            self.behind = true;
        }
        self.events.push_back(event);
    }

    pub fn put(&mut self, key: String, edu: Edu) {
        if self.edus.len() >= MAX_EDUS && !self.edus.contains_key(&key) {
            self.edus.pop_first();
        }
        self.edus.insert(key, edu);
    }
}

impl Sender {
    /// Changes a server's queue and sees to it that it is sent.
    pub(crate) fn wake(&self, destination: &str, change: impl FnOnce(&mut Queue)) {
        let mut is_new = false;
        let mut queue = self.queues.entry(destination.to_owned()).or_insert_with(|| {
            is_new = true;
            Queue::default()
        });
        change(&mut queue);
        drop(queue);
        if is_new {
            tokio::spawn(self.clone().run(destination.to_owned()));
        }
    }

    /// Sends until there is nothing left, or the server does not answer.
    async fn run(self, destination: String) {
        loop {
            if let Err(e) = self.transmit(&destination).await {
                slog::info!(self.cx.log, "not sent to a server"; "server" => &destination, "reason" => %e);
                // Events and what else is in the tables is found there again.
                self.queues.remove(&destination);
                return;
            }
            if self.queues.remove_if(&destination, |_, queue| queue.is_empty()).is_some() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_queue_goes_back_to_the_tables() {
        let mut queue = Queue { behind: false, ..Queue::default() };
        for i in 0..=MAX_EVENTS as i64 {
            queue.push(QueuedEvent { stream_ordering: i, event_id: format!("${i}") });
        }
        assert!(queue.behind);
        assert_eq!(queue.events.front().map(|e| e.stream_ordering), Some(MAX_EVENTS as i64));
    }

    #[test]
    fn of_the_same_kind_the_last_counts() {
        let mut queue = Queue::default();
        for typing in [true, false] {
            queue.put("typing !r @u".into(), Edu { kind: "m.typing".into(), content: typing.into() });
        }
        assert_eq!(queue.edus.values().map(|e| e.content.clone()).collect::<Vec<_>>(), [Value::from(false)]);
    }
}
