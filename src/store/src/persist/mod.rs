//! Writing events of many rooms in one transaction: one statement for what every event needs, and
//! further ones only for what a batch happens to hold (state, relations, redactions …).

mod ahead;
mod extras;
mod groups;
mod hot;
mod parted;
mod pushes;
mod remote;
mod state;

pub use remote::Revived;

use crate::backend::Backend;
use crate::db::Conn;
use crate::{EventRow, IdGuard, Row, Store, Stream};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, RoomVersionId};
use std::collections::HashSet;
use std::sync::Arc;
use types::{Error, Pdu, Result};

/// A notification of one user (`event_push_actions`).
#[derive(Clone, Debug)]
pub struct PushAction {
    pub user_id: String,
    /// JSON, or empty for the common ones.
    pub actions: String,
    pub notify: bool,
    pub highlight: bool,
    pub unread: bool,
}

/// Place in the chain cover of a room, with links to the chains of its auth events.
#[derive(Clone, Debug)]
pub struct ChainPlace {
    pub chain: i64,
    pub sequence: i64,
    /// (chain, sequence number) of auth events in other chains.
    pub links: Vec<(i64, i64)>,
}

/// An event to be stored.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Stream ordering and writer are filled in by the commit.
    pub pdu: Arc<Pdu>,
    /// For `event_json`.
    pub json: String,
    /// None for outliers and rejected events.
    pub state_group: Option<i64>,
    /// Auth events, with the create event in v12 rooms too (`event_auth`).
    pub auth_ids: Vec<OwnedEventId>,
    pub chain: Option<ChainPlace>,
    /// The place in the chain cover cannot be told yet.
    pub chain_later: bool,
    pub push: Vec<PushAction>,
    /// The notifications are in `event_push_actions_staging`, where whoever made the event put them.
    pub staged: bool,
    /// Thread the notifications belong to; `main` if none.
    pub push_thread: String,
    /// (parent, type, aggregation key).
    pub relation: Option<(String, String, Option<String>)>,
    /// Of another server: events before it may be missing.
    pub remote: bool,
}

/// A new state group.
#[derive(Clone, Debug)]
pub struct NewGroup {
    pub id: i64,
    /// The event it was made for.
    pub event_id: OwnedEventId,
    /// Rows are a delta against this group; None: they are the whole state.
    pub prev: Option<i64>,
    pub rows: Vec<(String, String, OwnedEventId)>,
}

/// A change of current state.
#[derive(Clone, Debug)]
pub struct StateChange {
    pub kind: String,
    pub state_key: String,
    /// None: the entry goes.
    pub event_id: Option<OwnedEventId>,
    pub prev: Option<OwnedEventId>,
    /// The new event, if it is not among those being stored (a state reset).
    pub known: Option<Arc<Pdu>>,
}

/// What the sliding sync tables repeat of a room's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomSummary {
    pub room_type: Option<String>,
    pub name: Option<String>,
    pub encrypted: bool,
    pub successor: Option<String>,
}

/// A room that does not exist yet.
#[derive(Clone, Debug)]
pub struct NewRoomRow {
    pub version: RoomVersionId,
    pub creator: String,
    pub is_public: bool,
}

/// Events of one room that are stored together or not at all.
#[derive(Clone, Debug)]
pub struct RoomWrite {
    pub room_id: OwnedRoomId,
    pub new_room: Option<NewRoomRow>,
    pub events: Vec<NewEvent>,
    /// Outliers that get their place in the room.
    pub revived: Vec<Revived>,
    /// Forward extremities afterwards; None: unchanged.
    pub extremities: Option<Vec<OwnedEventId>>,
    pub groups: Vec<NewGroup>,
    pub delta: Vec<StateChange>,
    /// The last local member left: the current state is dropped.
    pub abandoned: bool,
    pub summary: RoomSummary,
    /// Local members who speak for the first time since they joined (`room_memberships.participant`).
    pub participants: Vec<String>,
}

/// State that the sliding sync tables repeat.
const SUMMARISED: [&str; 4] = ["m.room.create", "m.room.encryption", "m.room.name", "m.room.tombstone"];

/// At most this many users fit in one `cs_cache_fake` row.
const USERS_PER_ROW: usize = 50;

/// From this many changes on, readers are told to look at all of a room's state.
const MANY_CHANGES: usize = 150;

impl RoomWrite {
    /// Whether the sliding sync row of the room itself changes.
    fn changes_summary(&self) -> bool {
        !self.abandoned && self.delta.iter().any(|c| c.state_key.is_empty() && SUMMARISED.contains(&c.kind.as_str()))
    }

    /// A write of nothing.
    pub fn nothing(room_id: &RoomId) -> Self {
        Self {
            room_id: room_id.to_owned(),
            new_room: None,
            events: Vec::new(),
            revived: Vec::new(),
            extremities: None,
            groups: Vec::new(),
            delta: Vec::new(),
            abandoned: false,
            summary: RoomSummary::default(),
            participants: Vec::new(),
        }
    }

    /// Moves the contents out, leaving a write of nothing.
    pub fn take(&mut self) -> Self {
        let nothing = Self::nothing(&self.room_id);
        std::mem::replace(self, nothing)
    }

    /// Stores the events without the devices that sent them.
    pub fn forget_devices(&mut self) {
        for event in &mut self.events {
            Arc::make_mut(&mut event.pdu).meta.device_id = None;
        }
    }

    fn event(&self, id: &OwnedEventId) -> Option<&NewEvent> {
        let revived = self.revived.iter().map(|r| &r.event);
        self.events.iter().chain(revived).find(|e| e.pdu.event_id == *id)
    }

    /// There is state among the events.
    fn has_state(&self) -> bool {
        self.events.iter().any(|e| e.pdu.is_state())
    }

    /// Nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.revived.is_empty()
    }

    /// `cs_cache_fake` rows: room, then users whose membership changed.
    fn cache_rows(&self) -> Vec<Vec<String>> {
        if self.delta.is_empty() && !self.abandoned {
            return Vec::new();
        }
        let users: Vec<&String> =
            self.delta.iter().filter(|c| c.kind == "m.room.member").map(|c| &c.state_key).collect();
        let row = |chunk: &[&String]| {
            std::iter::once(self.room_id.to_string()).chain(chunk.iter().map(|u| (*u).clone())).collect()
        };
        if users.is_empty() { vec![row(&[])] } else { users.chunks(USERS_PER_ROW).map(row).collect() }
    }
}

/// A transaction's failure.
pub struct WriteError {
    pub error: Error,
    /// The connection went away around the commit, so nobody knows whether it happened.
    pub doubt: Option<Doubt>,
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self { error, doubt: None }
    }
}

/// A commit of unknown outcome. While it lives no reader goes beyond the ids it may have written.
pub struct Doubt {
    flight: InFlight,
    /// What may still be committing.
    backend: Backend,
}

/// Ids in flight of one batch.
struct InFlight {
    events: IdGuard,
    caches: Option<IdGuard>,
    /// The ids of the events are known.
    numbered: bool,
}

impl InFlight {
    fn failed(self, error: Error, conn: &Conn) -> WriteError {
        let doubt = crate::db::is_lost(&error).then(|| Doubt { flight: self, backend: conn.backend().clone() });
        WriteError { error, doubt }
    }
}

impl Store {
    /// Prepares a connection for [`Store::write_rooms`].
    pub async fn prepare_writer(&self, conn: &Conn) -> Result<()> {
        conn.prepare(hot::SQL).await?;
        for sql in
            state::STATEMENTS.iter().chain(extras::STATEMENTS).chain(remote::STATEMENTS).chain(parted::STATEMENTS)
        {
            conn.prepare(sql).await?;
        }
        Ok(())
    }

    /// Stores events of any number of rooms in one transaction. On success the events carry their stream
    /// ordering, caches are up to date and the rows are announced. `now_ms`: for `received_ts`.
    pub async fn write_rooms(&self, conn: &Conn, writes: &mut [RoomWrite], now_ms: i64) -> Result<(), WriteError> {
        let mut flight = InFlight { events: self.streams.reserve(Stream::Events), caches: None, numbered: false };
        let plain = writes.iter().all(|w| state::is_plain(w) && extras::is_plain(w) && remote::is_plain(w));
        if plain {
            let ids = match hot::run(self, conn, writes, now_ms).await {
                Ok(ids) => ids,
                Err(e) => return Err(flight.failed(e, conn)),
            };
            flight.events.allocated(&ids);
            number(self, writes, &ids)?;
        } else {
            if let Err(error) = self.write_all(conn, writes, now_ms, &mut flight).await {
                // A lost connection rolls back by itself.
                let _ = conn.batch("ROLLBACK").await;
                return Err(error.into());
            }
            if let Err(e) = conn.batch("COMMIT").await {
                return Err(flight.failed(e, conn));
            }
        }
        self.announce(writes, flight);
        Ok(())
    }

    /// Finds out whether a commit of unknown outcome happened. If so its events are announced, as if nothing had
    /// been; if not, the doubt is over and the writes can be tried again. On an error the doubt stays.
    pub async fn settle(&self, writes: &mut [RoomWrite], doubt: &mut Option<Doubt>) -> Result<bool> {
        if let Some(doubt) = doubt {
            self.db.end(&doubt.backend).await?;
        }
        let ids: Vec<String> = writes.iter().flat_map(|w| &w.events).map(|e| e.pdu.event_id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = self.stream_orderings(&ids).await?;
        let orders: Vec<i64> = ids.iter().filter_map(|id| found.get(*id).copied()).collect();
        let Some(Doubt { mut flight, .. }) = doubt.take() else { return Ok(false) };
        if orders.len() < ids.len() || ids.is_empty() {
            return Ok(false);
        }
        number(self, writes, &orders)?;
        if !flight.numbered {
            flight.events.allocated(&orders);
        }
        self.announce(writes, flight);
        Ok(true)
    }

    async fn write_all(&self, conn: &Conn, writes: &mut [RoomWrite], now_ms: i64, flight: &mut InFlight) -> Result<()> {
        let begin = conn.batch("BEGIN");
        let (_, ids, ()) =
            futures::try_join!(begin, hot::run(self, conn, writes, now_ms), state::run_before(conn, writes))?;
        flight.events.allocated(&ids);
        flight.numbered = true;
        number(self, writes, &ids)?;
        flight.events.allocated(&remote::revive(self, conn, writes, false).await?);
        let after = state::run_after(self, conn, writes);
        let extras = extras::run(self, conn, writes, now_ms);
        let state = writes.iter().flat_map(RoomWrite::cache_rows).map(|keys| ("cs_cache_fake".to_owned(), keys));
        let stale = state.chain(extras::cache_rows(writes)).collect();
        (_, _, flight.caches) = futures::try_join!(after, extras, self.cache_rows(conn, stale, None, now_ms))?;
        let parted = parted::run(self, conn, writes).await?.into_iter();
        let stale = parted.map(|user| ("get_device_list_last_stream_id_for_remote".to_owned(), vec![user])).collect();
        flight.caches = self.cache_rows(conn, stale, flight.caches.take(), now_ms).await?;
        remote::run(self, conn, writes).await
    }

    /// Tells other processes which caches no longer hold: (name, key). Returns the ids with those of `before`.
    async fn cache_rows(
        &self,
        conn: &Conn,
        stale: Vec<(String, Vec<String>)>,
        before: Option<IdGuard>,
        now_ms: i64,
    ) -> Result<Option<IdGuard>> {
        if stale.is_empty() {
            return Ok(before);
        }
        let mut guard = before.unwrap_or_else(|| self.streams.reserve(Stream::Caches));
        let (names, keys): (Vec<String>, Vec<Vec<String>>) = stale.into_iter().unzip();
        let ids = extras::insert_cache_rows(self, conn, &names, &keys, now_ms).await?;
        guard.allocated(&ids);
        for ((id, name), keys) in ids.into_iter().zip(names).zip(keys) {
            guard.announce(id, Row::Cache { name, keys: Some(keys), at_ms: now_ms });
        }
        Ok(Some(guard))
    }

    /// After the commit: caches, then rows.
    fn announce(&self, writes: &[RoomWrite], mut flight: InFlight) {
        for write in writes {
            if let Some(new) = &write.new_room {
                self.writer_caches.versions.put(write.room_id.to_string(), new.version.clone());
            }
            let mut announced_state = write.delta.is_empty() && !write.abandoned;
            let revived = write.revived.iter().map(|r| (&r.event, r.at));
            for (event, id) in write.events.iter().map(|e| (e, e.pdu.stream())).chain(revived) {
                self.remember_event(event.pdu.clone());
                flight.events.announce(id, Row::Event(event_row(event)));
                if !announced_state {
                    state_rows(write).into_iter().for_each(|row| flight.events.announce(id, row));
                    announced_state = true;
                }
            }
        }
        if let Some(caches) = flight.caches {
            caches.committed();
        }
        flight.events.committed();
    }
}

/// Gives the events the ids of the batch, in order.
fn number(store: &Store, writes: &mut [RoomWrite], ids: &[i64]) -> Result<()> {
    let mut ids = ids.iter();
    let instance: Arc<str> = store.instance().into();
    for event in writes.iter_mut().flat_map(|w| &mut w.events) {
        let id = ids.next().ok_or_else(|| Error::internal("the batch got fewer stream ids than events"))?;
        let pdu = Arc::make_mut(&mut event.pdu);
        pdu.stream_ordering = Some(*id);
        pdu.instance_name = Some(instance.to_string());
    }
    Ok(())
}

fn event_row(event: &NewEvent) -> EventRow {
    let pdu = &event.pdu;
    EventRow {
        event_id: pdu.event_id.to_string(),
        room_id: pdu.room_id.to_string(),
        kind: pdu.kind.clone(),
        state_key: pdu.state_key.clone(),
        redacts: pdu.redacts.as_ref().filter(|_| pdu.kind == "m.room.redaction").map(ToString::to_string),
        relates_to: event.relation.as_ref().map(|r| r.0.clone()),
        membership: pdu.membership(),
        rejected: pdu.rejected.is_some(),
        outlier: pdu.outlier,
    }
}

fn state_rows(write: &RoomWrite) -> Vec<Row> {
    let room_id = write.room_id.to_string();
    if write.abandoned || write.delta.len() >= MANY_CHANGES {
        return vec![Row::StateAll { room_id }];
    }
    let row = |c: &StateChange| Row::State {
        room_id: room_id.clone(),
        kind: c.kind.clone(),
        state_key: c.state_key.clone(),
        event_id: c.event_id.as_ref().map(ToString::to_string),
    };
    write.delta.iter().map(row).collect()
}

/// Rooms in a batch, each once, in order.
fn rooms_of(writes: &[RoomWrite]) -> Vec<&str> {
    let mut seen = HashSet::new();
    writes.iter().map(|w| w.room_id.as_str()).filter(|r| seen.insert(*r)).collect()
}
