//! Rooms: creating, authorising, resolving, persisting events; joining and leaving; reading state.
//!
//! Each active room this process owns is an actor (`actor`) with the room's hot state (`head`). It builds
//! events (`make`) one after the other, each on top of the last, and hands them to the committer
//! (`committer`), which writes the events of many rooms in one transaction.

mod abroad;
pub mod access;
mod actor;
pub mod address;
pub mod aliases;
mod ask;
pub mod bundle;
mod chain;
mod committer;
mod create;
pub mod directory;
pub mod elsewhere;
pub mod exchange;
mod flight;
mod head;
pub mod history;
mod ids;
mod load;
mod make;
pub mod membership;
pub mod new_room;
mod notify;
mod parts;
pub mod power;
pub mod prepared;
pub mod read;
mod redaction;
pub mod relate;
mod related;
pub mod remote;
pub mod render;
mod resolve;
mod restricted;
pub mod search;
mod state;
pub mod summary;
mod synapse;
mod take;
mod template;
pub mod upgrade;
pub mod visibility;

pub use bundle::{Bundle, Bundles};
pub use render::{Render, Shape};
pub use store::state_groups::StateMap;
pub use template::{NewRoom, Sent, Template};
pub use visibility::{Look, Visible};

use ask::{Answer, Ask, What};
use committer::Committer;
use config::StreamGroup;
use dashmap::DashMap;
use fedclient::Fed;
use ids::IdPool;
use replication::Cx;
use replication::locks::NEW_EVENT_DURING_PURGE;
use rules::Signer;
use ruma::{OwnedRoomId, RoomId};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use store::locks::{Lock, Mode};
use store::{Row, Stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use types::{Boxed, Error, Requester, Result};

/// Everything about rooms. One per process; cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    pub(crate) cx: Cx,
    /// Other servers.
    pub(crate) fed: Fed,
    pub(crate) reading: Arc<Reading>,
    pub(crate) writing: Arc<Writing>,
}

/// See [`Rooms::on_entry`].
pub type Entered = Box<dyn Fn(OwnedRoomId) -> Boxed<'static, ()> + Send + Sync>;

/// What reading keeps in memory.
pub(crate) struct Reading {
    pub seen: visibility::SeenCache,
}

/// What writing keeps in memory.
pub(crate) struct Writing {
    pub signer: Signer,
    pub committer: Committer,
    pub groups: IdPool,
    pub chains: IdPool,
    /// Rooms that are awake.
    pub actors: DashMap<OwnedRoomId, actor::Handle>,
    /// Who may change a membership of a room abroad.
    pub turns: abroad::Turns,
    /// What is to be done once this server is in a room.
    pub entered: OnceLock<Entered>,
    /// Counts event ids of rooms v1 and v2.
    pub event_counter: AtomicU64,
}

/// How often a request is handed to a room again that reloaded or fell asleep in between.
const ATTEMPTS: u32 = 8;

impl Rooms {
    /// Starts what writes events here. Must be called within the runtime that will run the rooms.
    pub fn start(cx: Cx, fed: Fed) -> Result<Self> {
        let key = cx.config.keys.signing.first().ok_or_else(|| Error::internal("no signing key"))?;
        let signer = Signer::new(cx.config.server.name.clone(), &key.expose_pkcs8(), &key.version)?;
        let writing = Writing {
            committer: Committer::start(&cx),
            groups: IdPool::new("state_group_id_seq"),
            chains: IdPool::new("event_auth_chain_id"),
            actors: DashMap::new(),
            turns: abroad::Turns::default(),
            entered: OnceLock::new(),
            event_counter: AtomicU64::new(0),
            signer,
        };
        let reading = Arc::new(Reading { seen: visibility::SeenCache::new(50_000) });
        let rooms = Self { cx, fed, reading, writing: Arc::new(writing) };
        if rooms.cx.store.streams.is_writer(Stream::Events) {
            tokio::spawn(rooms.clone().watch());
        }
        tokio::spawn(rooms.clone().tend_staged());
        Ok(rooms)
    }

    /// Sets what is to be done with a room that this process entered through other servers, before whoever joins gets
    /// an answer; once, at start.
    pub fn on_entry(&self, f: Entered) {
        let _ = self.writing.entered.set(f);
    }

    /// Rooms that were deleted or purged behind their actors' backs are read again.
    async fn watch(self) {
        let mut updates = self.cx.store.streams.subscribe();
        loop {
            let update = match updates.recv().await {
                Ok(update) if update.stream == Stream::Caches => update,
                Ok(_) => continue,
                Err(RecvError::Lagged(_)) => {
                    self.writing.actors.iter().for_each(|a| a.outdate());
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            for row in &update.rows {
                if let Row::Cache { name, keys: Some(keys), .. } = row
                    && matches!(name.as_str(), "dr_cache_fake" | "ph_cache_fake")
                    && let Some(handle) =
                        keys.first().and_then(|id| self.writing.actors.get(<&RoomId>::try_from(id.as_str()).ok()?))
                {
                    handle.outdate();
                }
            }
        }
    }

    /// Whether this process writes the room.
    pub fn is_mine(&self, room_id: &RoomId) -> bool {
        self.cx.is_mine(StreamGroup::Events, room_id.as_str())
    }

    /// Makes one event: authorised, signed, committed on return.
    pub async fn send(&self, who: &Requester, room_id: &RoomId, template: Template) -> Result<Sent> {
        let sent = self.send_many(who, room_id, vec![template]).await?;
        sent.into_iter().next().ok_or_else(|| Error::internal("an event was asked for and none made"))
    }

    /// Makes events one after the other, in one transaction: all of them or none.
    pub fn send_many<'a>(
        &'a self,
        who: &'a Requester,
        room_id: &'a RoomId,
        templates: Vec<Template>,
    ) -> Boxed<'a, Result<Vec<Sent>>> {
        Box::pin(async move {
            if !self.is_mine(room_id) {
                return self.send_elsewhere(who, room_id, templates).await;
            }
            if templates.iter().any(|t| self.invites_abroad(t)) {
                // The other server takes its time to sign, and the room goes on meanwhile.
                return self.send_prepared(&self.cx.instance, who, room_id, &templates).await;
            }
            self.ask(room_id, || What::Make { who: who.clone(), templates: templates.clone() }).await
        })
    }

    /// Keeps a Synapse process from deleting the room while events are made in it. None where nobody would: the
    /// processes that delete rooms are Plexus.
    pub(crate) async fn keep_from_purge(&self, room_id: &RoomId) -> Result<Option<Lock>> {
        let deleters = [types::MASTER, self.cx.config.workers.background_tasks.as_str()];
        for instance in deleters.into_iter().filter(|i| **i != *self.cx.instance) {
            if !self.cx.peers.is_plexus(instance).await {
                let lock = self.cx.lock(NEW_EVENT_DURING_PURGE, room_id.as_str(), Mode::Read).await?;
                // Word of a purge may come later than its lock is free.
                if self.cx.store.room(room_id.as_str()).await?.is_none()
                    && let Some(actor) = self.writing.actors.get(room_id)
                {
                    actor.outdate();
                }
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    /// Asks the room's actor until it answers.
    pub(crate) async fn ask(&self, room_id: &RoomId, what: impl Fn() -> What) -> Result<Vec<Sent>> {
        let _not_purged = self.keep_from_purge(room_id).await?;
        let mut attempt = 0;
        loop {
            let (reply, answer) = oneshot::channel();
            self.dispatch(room_id, Box::new(Ask { what: what(), reply })).await?;
            attempt += 1;
            match answer.await {
                Ok(Ok(Answer::Sent(sent))) => return Ok(sent),
                Ok(Ok(Answer::Wait(mut slot))) => {
                    if let Ok(sent) = slot.wait_for(Option::is_some).await
                        && let Some(sent) = &*sent
                    {
                        return Ok(vec![sent.clone()]);
                    }
                }
                Ok(Ok(Answer::Again)) | Err(_) => {}
                Ok(Err(e)) => return Err(e),
            }
            if attempt >= ATTEMPTS {
                return Err(Error::unavailable("The room is too busy to take the event"));
            }
        }
    }

    /// Hands a request to the room's actor, which is woken if need be.
    async fn dispatch(&self, room_id: &RoomId, ask: Box<Ask>) -> Result<()> {
        let mut ask = ask;
        for _ in 0..ATTEMPTS {
            let handle = self.handle(room_id, None);
            match handle.send(ask).await {
                Ok(()) => return Ok(()),
                Err(mpsc::error::SendError(returned)) => ask = returned,
            }
            tokio::task::yield_now().await;
        }
        Err(Error::unavailable("The room is too busy to take the event"))
    }

    fn handle(&self, room_id: &RoomId, head: Option<head::Head>) -> mpsc::Sender<Box<Ask>> {
        let entry = self.writing.actors.entry(room_id.to_owned());
        let handle = entry.or_insert_with(|| actor::spawn(self.clone(), room_id.to_owned(), head));
        handle.asks.clone()
    }
}
