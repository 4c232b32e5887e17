//! Positions of all streams, the ids we write with, and the door through which every row passes:
//! rows of our own after COMMIT, rows of other processes as replication brings them.

mod catch_up;
mod load;
mod position;
mod row;
mod stream;
pub(crate) mod unended;

pub use position::Position;
pub use row::{EventRow, PresenceRow, Row};
pub use stream::{Definition, Source, Stream};

use crate::db::{Db, Tx};
use dashmap::DashMap;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use types::{Error, MultiToken, Result, RoomToken, StreamToken};

/// Something moved in a stream.
#[derive(Clone, Debug)]
pub struct Update {
    pub stream: Stream,
    /// The writer.
    pub instance: Arc<str>,
    /// Where the writer was before, and where it is now.
    pub previous: i64,
    pub token: i64,
    /// Empty: the position moved without rows.
    pub rows: Vec<Row>,
    /// Written by this process.
    pub local: bool,
}

struct State {
    position: Mutex<Position>,
    moved: Notify,
    /// Own position still to be written to `stream_positions`.
    unsaved: Notify,
    /// Writers by configuration.
    writers: Vec<String>,
}

/// Updates a subscriber may lag behind before it has to take a gap. Room for all of them is made at start.
const BUS_CAPACITY: usize = 4_096;

/// Called with the id a row is announced under (0 for streams in memory).
type Forgets = Box<dyn Fn(i64, &Row) + Send + Sync>;

/// All streams of this process.
pub struct Streams {
    db: Db,
    instance: Arc<str>,
    states: Vec<State>,
    bus: broadcast::Sender<Arc<Update>>,
    /// What this process has to tell others: apart, so that who only follows is not woken twice for each row.
    announcements: broadcast::Sender<Arc<Update>>,
    forgets: OnceLock<Forgets>,
    /// `instance_map`: name → id.
    instance_ids: DashMap<String, i64>,
}

impl Streams {
    /// Name of this process.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Configured writers of a stream (of `caches`: none in particular).
    pub fn writers(&self, stream: Stream) -> &[String] {
        &self.states[stream as usize].writers
    }

    /// True if this process writes the stream. Everybody writes `caches`.
    pub fn is_writer(&self, stream: Stream) -> bool {
        stream == Stream::Caches || self.writers(stream).iter().any(|w| **w == *self.instance)
    }

    /// Subscribes to everything that moves, in order within each stream.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Update>> {
        self.bus.subscribe()
    }

    /// Subscribes to what moves in streams that this process writes: by itself, or, where several write, by another.
    pub fn announcements(&self) -> broadcast::Receiver<Arc<Update>> {
        self.announcements.subscribe()
    }

    /// Tells the subscribers.
    fn publish(&self, update: Update) {
        let update = Arc::new(update);
        let stream = update.stream;
        if update.local || (stream != Stream::Caches && self.is_writer(stream)) {
            let _ = self.announcements.send(update.clone());
        }
        let _ = self.bus.send(update);
    }

    /// Sets what readers must drop for a row; called once, by the store.
    pub(crate) fn set_forgets(&self, f: Forgets) {
        let _ = self.forgets.set(f);
    }

    fn lock(&self, stream: Stream) -> MutexGuard<'_, Position> {
        self.states[stream as usize].position.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Everything up to here is persisted, by whichever writer.
    pub fn current(&self, stream: Stream) -> i64 {
        self.lock(stream).upto()
    }

    /// Position of one writer as far as known.
    pub fn position_of(&self, stream: Stream, instance: &str) -> i64 {
        self.lock(stream).of(instance)
    }

    /// Our own position, as announced.
    pub fn own(&self, stream: Stream) -> i64 {
        self.lock(stream).own_position()
    }

    /// Up to where our own rows are persisted, which others learn from their announcement.
    pub fn own_written(&self, stream: Stream) -> i64 {
        self.lock(stream).own_written()
    }

    /// Position with the writers that are ahead. Those without an `instance_map` id are left out, which only delays.
    pub fn token(&self, stream: Stream) -> MultiToken {
        let p = self.lock(stream);
        let ahead: BTreeMap<i64, i64> =
            p.ahead().filter_map(|(name, pos)| Some((*self.instance_ids.get(name)?, pos))).collect();
        MultiToken { stream: p.upto(), ahead }
    }

    /// `instance_map` id of a writer (`events.instance_name`; NULL reads as master).
    pub fn instance_id(&self, name: Option<&str>) -> Option<i64> {
        self.instance_ids.get(name.unwrap_or(types::MASTER)).map(|i| *i)
    }

    /// Where all streams are now: the token a `/sync` answer ends with.
    pub fn now(&self) -> StreamToken {
        StreamToken {
            room: RoomToken::Live(self.token(Stream::Events)),
            presence: self.current(Stream::Presence),
            typing: self.current(Stream::Typing),
            receipts: self.token(Stream::Receipts),
            account_data: self.current(Stream::AccountData),
            push_rules: self.current(Stream::PushRules),
            to_device: self.current(Stream::ToDevice),
            device_lists: self.token(Stream::DeviceLists),
            groups: 0,
            un_partial_stated_rooms: self.current(Stream::UnPartialStatedRoom),
            thread_subscriptions: self.current(Stream::ThreadSubscriptions),
            sticky_events: self.token(Stream::StickyEvents),
            quarantined_media: self.token(Stream::QuarantinedMedia),
            profile_updates: self.current(Stream::ProfileUpdates),
        }
    }

    /// Reserves the right to allocate ids. Until the guard ends, readers stay below what it gets.
    pub fn reserve(self: &Arc<Self>, stream: Stream) -> IdGuard {
        let bound = self.lock(stream).requesting();
        IdGuard { streams: self.clone(), stream, bound: Some(bound), ids: Vec::new(), rows: Vec::new() }
    }

    /// Publishes what `finish` released. Runs under the stream's lock so that order holds.
    fn release(&self, stream: Stream, previous: i64, position: &Position, released: Vec<(i64, Vec<Row>)>) {
        let mut at = previous;
        for (token, rows) in released {
            let update = Update { stream, instance: self.instance.clone(), previous: at, token, rows, local: true };
            at = token;
            self.publish(update);
        }
        let now = position.own_position();
        if now > at {
            let update =
                Update { stream, instance: self.instance.clone(), previous: at, token: now, rows: vec![], local: true };
            self.publish(update);
        }
        self.states[stream as usize].moved.notify_waiters();
        self.states[stream as usize].unsaved.notify_one();
    }

    fn finish(&self, stream: Stream, bound: Option<i64>, ids: &[i64], rows: Vec<(i64, Row)>) {
        if let Some(f) = self.forgets.get() {
            rows.iter().for_each(|(id, row)| f(*id, row));
        }
        let mut position = self.lock(stream);
        let previous = position.own_position();
        if let Some(b) = bound {
            position.allocated(b, &[]);
        }
        let released = position.finish(ids, rows);
        self.release(stream, previous, &position, released);
    }

    /// Announces a row of an in-memory stream; returns its token.
    pub fn announce_in_memory(&self, stream: Stream, row: Row) -> i64 {
        if let Some(f) = self.forgets.get() {
            f(0, &row);
        }
        let mut position = self.lock(stream);
        let previous = position.own_position();
        let token = position.next_in_memory();
        self.release(stream, previous, &position, vec![(token, vec![row])]);
        token
    }

    /// Rows of another process, or only its new position. False if there was nothing new.
    pub fn advance(&self, stream: Stream, instance: &str, token: i64, rows: Vec<Row>) -> bool {
        if let Some(f) = self.forgets.get() {
            rows.iter().for_each(|row| f(token, row));
        }
        let mut position = self.lock(stream);
        let previous = position.of(instance);
        let moved = if stream.is_memory() && token < previous {
            position.reset(instance, token);
            true
        } else {
            position.advance(instance, token)
        };
        if moved || !rows.is_empty() {
            let update = Update { stream, instance: instance.into(), previous, token, rows, local: false };
            self.publish(update);
            self.states[stream as usize].moved.notify_waiters();
        }
        moved
    }

    /// Waits until `instance` has reached `token` here. False after the timeout.
    pub async fn wait_for(&self, stream: Stream, instance: &str, token: i64, timeout: Duration) -> bool {
        let reached = async {
            loop {
                let moved = self.states[stream as usize].moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if self.position_of(stream, instance) >= token {
                    return;
                }
                moved.await;
            }
        };
        tokio::time::timeout(timeout, reached).await.is_ok()
    }

    /// Keeps `stream_positions` up to date for the streams we write. Never returns.
    pub async fn save_positions(self: Arc<Self>) {
        let tasks = Stream::ALL
            .into_iter()
            .filter(|s| s.definition().positions.is_some() && self.is_writer(*s))
            .map(|s| tokio::spawn(self.clone().save_positions_of(s)));
        futures::future::join_all(tasks).await;
    }

    async fn save_positions_of(self: Arc<Self>, stream: Stream) {
        let mut saved = 0;
        loop {
            self.states[stream as usize].unsaved.notified().await;
            let own = self.own(stream);
            if own > saved && self.save_position(stream, own).await.is_ok() {
                saved = own;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn save_position(&self, stream: Stream, own: i64) -> Result<()> {
        let Some(name) = stream.definition().positions else { return Ok(()) };
        let (value, best) = if stream.definition().negative { (-own, "LEAST") } else { (own, "GREATEST") };
        let sql = format!(
            "INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES ($1, $2, $3)
             ON CONFLICT (stream_name, instance_name)
             DO UPDATE SET stream_id = {best}(stream_positions.stream_id, EXCLUDED.stream_id)"
        );
        self.db.execute(&sql, &[&name, &&*self.instance, &value]).await?;
        Ok(())
    }
}

/// Ids of one stream in flight. Dropped without [`IdGuard::committed`] they are given up.
pub struct IdGuard {
    streams: Arc<Streams>,
    stream: Stream,
    bound: Option<i64>,
    ids: Vec<i64>,
    rows: Vec<(i64, Row)>,
}

impl IdGuard {
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The ids the reservation got (positive, also for backfill).
    pub fn allocated(&mut self, ids: &[i64]) {
        if let Some(bound) = self.bound.take() {
            self.streams.lock(self.stream).allocated(bound, ids);
        }
        self.ids.extend(ids);
    }

    /// Attaches a row to be announced under `id` after the commit.
    pub fn announce(&mut self, id: i64, row: Row) {
        self.rows.push((id, row));
    }

    /// The transaction is committed: the ids are visible and their rows go out.
    pub fn committed(mut self) {
        let rows = std::mem::take(&mut self.rows);
        let ids = std::mem::take(&mut self.ids);
        self.streams.finish(self.stream, self.bound.take(), &ids, rows);
    }
}

impl Drop for IdGuard {
    fn drop(&mut self) {
        if self.bound.is_some() || !self.ids.is_empty() {
            self.streams.finish(self.stream, self.bound.take(), &self.ids, Vec::new());
        }
    }
}

impl Tx {
    /// Allocates `n` ids of a stream, in flight until this transaction ends.
    pub async fn next_n(&mut self, streams: &Arc<Streams>, stream: Stream, n: usize) -> Result<Vec<i64>> {
        let sequence =
            stream.definition().sequence.ok_or_else(|| Error::internal("in-memory streams have no sequence"))?;
        let mut guard = streams.reserve(stream);
        let sql = format!("SELECT nextval('{sequence}') FROM generate_series(1, $1)");
        let rows = self.query(&sql, &[&(n as i32)]).await?;
        let ids: Vec<i64> = rows.iter().map(|r| r.get(0)).collect();
        guard.allocated(&ids);
        self.hold(guard);
        Ok(ids)
    }

    /// Allocates one id of a stream.
    pub async fn next(&mut self, streams: &Arc<Streams>, stream: Stream) -> Result<i64> {
        Ok(self.next_n(streams, stream, 1).await?[0])
    }

    /// Announces `row` under an id allocated in this transaction, once it has committed.
    pub fn announce(&mut self, stream: Stream, id: i64, row: Row) {
        if let Some(guard) = self.held().iter_mut().find(|g| g.stream == stream && g.ids.contains(&id)) {
            guard.announce(id, row);
        }
    }
}
