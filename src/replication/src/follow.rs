//! Following one stream as its other writers announce it: rows in order, gaps filled from the tables or from
//! the writer's memory.

use crate::Peers;
use serde_json::Value;
use slog::{Logger, debug, warn};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::{Row, Stream, Streams};
use tokio::sync::{Mutex, mpsc};
use types::{Error, Result};

/// What the bus says about one stream.
pub(crate) enum Heard {
    /// A new connection: nobody's position is known on it yet.
    Connected,
    /// `token` None: more rows of the same token follow.
    Row {
        instance: String,
        token: Option<i64>,
        row: Value,
    },
    Position {
        instance: String,
        previous: i64,
        token: i64,
    },
}

/// What may wait of one stream while it catches up; then the connection waits.
const QUEUE: usize = 10_000;
/// Times a writer is asked for rows that only it has.
const TRIES: u32 = 5;

/// The way of one stream's commands to its follower. Rows are obeyed where they are read, which spares them a
/// task of their own; what comes while the stream catches up waits its turn.
pub(crate) struct Lane {
    follower: Arc<Mutex<Follower>>,
    queue: mpsc::Sender<Heard>,
    /// Commands given to the queue and not obeyed yet.
    waiting: Arc<AtomicUsize>,
}

impl Lane {
    pub fn start(follower: Follower) -> Self {
        let (queue, mut heard) = mpsc::channel(QUEUE);
        let lane = Self { follower: Arc::new(Mutex::new(follower)), queue, waiting: Arc::default() };
        let (follower, waiting) = (lane.follower.clone(), lane.waiting.clone());
        tokio::spawn(async move {
            while let Some(heard) = heard.recv().await {
                follower.lock().await.obey(heard).await;
                waiting.fetch_sub(1, Ordering::Release);
            }
        });
        lane
    }

    /// To be called by one task only, in the order of what was said.
    pub async fn hear(&self, heard: Heard) {
        let heard = match heard {
            Heard::Row { instance, token, row } if self.waiting.load(Ordering::Acquire) == 0 => {
                return self.follower.lock().await.row(instance, token, row);
            }
            other => other,
        };
        // The receiver lives as long as this.
        if let Ok(place) = self.queue.reserve().await {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            place.send(heard);
        }
    }
}

pub(crate) struct Follower {
    pub stream: Stream,
    pub streams: Arc<Streams>,
    pub peers: Arc<Peers>,
    /// Whether this process needs the rows of the `federation` stream.
    pub sends_federation: bool,
    pub log: Logger,
    connected: HashSet<String>,
    /// Rows whose token is still to come, by writer.
    pending: HashMap<String, Vec<Row>>,
}

impl Follower {
    pub fn new(stream: Stream, streams: Arc<Streams>, peers: Arc<Peers>, sends_federation: bool, log: Logger) -> Self {
        Self { stream, streams, peers, sends_federation, log, connected: HashSet::new(), pending: HashMap::new() }
    }

    async fn obey(&mut self, heard: Heard) {
        match heard {
            Heard::Connected => {
                self.connected.clear();
                self.pending.clear();
            }
            Heard::Row { instance, token, row } => self.row(instance, token, row),
            Heard::Position { instance, previous, token } => self.position(&instance, previous, token).await,
        }
    }

    fn row(&mut self, instance: String, token: Option<i64>, row: Value) {
        // The writer's position will follow, and with it the rows.
        if !self.connected.contains(&instance) {
            return;
        }
        match Row::from_wire(self.stream, row) {
            Some(row) => self.pending.entry(instance.clone()).or_default().push(row),
            None => {
                warn!(self.log, "a row of unknown shape was left out"; "stream" => self.stream.name(), "writer" => &instance)
            }
        }
        if let Some(token) = token {
            let rows = self.pending.remove(&instance).unwrap_or_default();
            if token > self.streams.position_of(self.stream, &instance) {
                self.streams.advance(self.stream, &instance, token, rows);
            }
        }
    }

    async fn position(&mut self, instance: &str, previous: i64, token: i64) {
        let current = self.streams.position_of(self.stream, instance);
        let memory = self.stream.is_memory();
        if !memory && token <= current && self.connected.contains(instance) {
            return;
        }
        self.connected.remove(instance);
        self.pending.remove(instance);
        if memory && token < current {
            // The writer began anew.
            self.streams.advance(self.stream, instance, 0, Vec::new());
            self.fetch(instance, 0, token).await;
        } else if current < previous {
            self.fetch(instance, current, token).await;
        }
        self.streams.advance(self.stream, instance, token, Vec::new());
        self.connected.insert(instance.to_owned());
    }

    /// Gets the rows in `(from, upto]`. Those of tables for certain, those of a writer's memory if it answers.
    async fn fetch(&self, instance: &str, from: i64, upto: i64) {
        debug!(self.log, "catching up"; "stream" => self.stream.name(), "writer" => instance, "from" => from, "to" => upto);
        let (mut at, mut tries) = (from, 0u32);
        while at < upto {
            let chunk = match self.stream {
                Stream::Federation if !self.sends_federation => return,
                s if s.is_memory() => self.ask(instance, at, upto).await,
                s => self.streams.rows_between(s, instance, at, upto).await,
            };
            match chunk {
                Ok((rows, reached)) => {
                    for (token, rows) in rows {
                        self.streams.advance(self.stream, instance, token, rows);
                    }
                    tries = 0;
                    // A writer that has nothing more must not keep us here.
                    at = if reached > at { reached } else { upto };
                }
                Err(e) => {
                    warn!(self.log, "could not catch up yet"; "stream" => self.stream.name(), "writer" => instance, "reason" => %e);
                    tries += 1;
                    if self.stream.is_memory() && tries >= TRIES {
                        return;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Asks the writer itself.
    async fn ask(&self, instance: &str, from: i64, upto: i64) -> Result<(Vec<(i64, Vec<Row>)>, i64)> {
        let answer = self.peers.stream_updates(instance, self.stream, from, upto).await?;
        let bad = || Error::internal(format!("{instance} answered get_repl_stream_updates with another shape"));
        let mut rows: Vec<(i64, Vec<Row>)> = Vec::new();
        for update in answer["updates"].as_array().ok_or_else(bad)? {
            let (Some(token), Some(row)) = (update[0].as_i64(), Row::from_wire(self.stream, update[1].clone())) else {
                return Err(bad());
            };
            match rows.last_mut().filter(|(t, _)| *t == token) {
                Some((_, group)) => group.push(row),
                None => rows.push((token, vec![row])),
            }
        }
        let limited = answer["limited"].as_bool().unwrap_or(false);
        let reached = answer["upto_token"].as_i64().filter(|_| limited).unwrap_or(upto);
        Ok((rows, reached))
    }
}
