//! A room that is awake: takes requests strictly in order and makes events ahead of their commit.

use crate::ask::{Answer, Ask, What};
use crate::committer::Job;
use crate::flight::Flight;
use crate::head::{Head, TxnKey};
use crate::parts::Parts;
use crate::prepared::Prepared;
use crate::{Rooms, Sent, Template};
use ruma::OwnedRoomId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use types::{Requester, Result};

/// The way to a room's actor.
pub(crate) struct Handle {
    /// Boxed: a channel has room for 32 of them even while it is empty.
    pub asks: mpsc::Sender<Box<Ask>>,
    id: u64,
    stale: Arc<AtomicBool>,
}

impl Handle {
    /// What the room holds in memory is no longer what is in the database.
    pub fn outdate(&self) {
        self.stale.store(true, Ordering::Release);
    }
}

/// Requests a room may have waiting.
const QUEUE: usize = 256;
/// A room nobody writes to leaves memory after this.
const IDLE: Duration = Duration::from_secs(60);
/// A room nobody writes to drops after this what it can read again.
const REST: Duration = Duration::from_secs(10);
/// With more rooms awake than this, they fall asleep sooner: twice as many, twice as soon.
const MANY_ROOMS: usize = 300;
const IDLE_CROWDED: Duration = Duration::from_secs(4);
/// With more state events at hand than this, those not needed all the time are dropped.
const MANY_EVENTS: usize = 2_000;

/// Starts a room. `head`: its state, if known already.
pub(crate) fn spawn(rooms: Rooms, room_id: OwnedRoomId, head: Option<Head>) -> Handle {
    static IDS: AtomicU64 = AtomicU64::new(0);
    let id = IDS.fetch_add(1, Ordering::Relaxed);
    let (asks, rx) = mpsc::channel(QUEUE);
    let stale: Arc<AtomicBool> = Arc::default();
    tokio::spawn(Actor { rooms, room_id, id, head, flight: Arc::default(), stale: stale.clone() }.run(rx));
    Handle { asks, id, stale }
}

impl Rooms {
    /// How many times the rooms awake are too many. None while they are not.
    pub(crate) fn crowd(&self) -> Option<u32> {
        let awake = self.writing.actors.len();
        (awake > MANY_ROOMS).then(|| u32::try_from(awake / MANY_ROOMS).unwrap_or(u32::MAX))
    }
}

struct Actor {
    rooms: Rooms,
    room_id: OwnedRoomId,
    id: u64,
    /// None until loaded, and after a failure.
    head: Option<Head>,
    flight: Arc<Flight>,
    stale: Arc<AtomicBool>,
}

impl Actor {
    async fn run(mut self, mut rx: mpsc::Receiver<Box<Ask>>) {
        let mut rested = false;
        loop {
            let crowd = self.rooms.crowd();
            let idle = match crowd {
                Some(times) => IDLE_CROWDED / times,
                None if rested => IDLE,
                None => REST,
            };
            match tokio::time::timeout(idle, rx.recv()).await {
                // Boxed, so that a room at rest is only as large as its state.
                Ok(Some(ask)) => {
                    Box::pin(self.take(*ask)).await;
                    rested = false;
                }
                Ok(None) => break,
                Err(_) if !self.flight.is_idle() => {}
                Err(_) if rested || crowd.is_some() => break,
                Err(_) => {
                    self.head.iter_mut().for_each(Head::shrink);
                    rested = true;
                }
            }
            // A room that does not exist, or cannot be read, is not kept.
            if self.head.is_none() && rx.is_empty() && self.flight.is_idle() {
                break;
            }
        }
        self.rooms.writing.actors.remove_if(&self.room_id, |_, h| h.id == self.id);
        rx.close();
        while let Some(ask) = rx.recv().await {
            let _ = ask.reply.send(Ok(Answer::Again));
        }
    }

    async fn take(&mut self, ask: Ask) {
        if self.stale.swap(false, Ordering::AcqRel) || self.flight.is_broken() {
            self.flight.wait_idle().await;
            self.head = None;
            self.flight = Arc::default();
        }
        let mut head = match self.head.take() {
            Some(head) => head,
            None => match self.rooms.load(&self.room_id).await {
                Ok(head) => head,
                Err(e) => {
                    let _ = ask.reply.send(Err(e));
                    return;
                }
            },
        };
        let large = head.events.len().max(head.hashes.len()) > MANY_EVENTS || head.chains.is_large();
        if large || matches!(ask.what, What::Take(_) | What::Backfill(_)) {
            // Events of others may need groups from the database: all of ours must be there.
            self.flight.wait_idle().await;
        }
        if large {
            head.shrink();
        }
        let key = match &ask.what {
            What::Make { who, templates } if templates.len() == 1 => txn_key(who, &templates[0]),
            _ => None,
        };
        if let Some(key) = &key {
            match self.repeated(&mut head, key).await {
                Ok(None) => {}
                known => {
                    self.head = Some(head);
                    let _ = ask.reply.send(known.map(|answer| answer.unwrap_or(Answer::Again)));
                    return;
                }
            }
        }
        if let What::Backfill(events) = &ask.what {
            // What went wrong half way is read again from the database.
            let stored = self.rooms.take_backfill(&mut head, events).await;
            self.head = stored.is_ok().then_some(head);
            let _ = ask.reply.send(stored.map(Answer::Sent));
            return;
        }
        if let Err(e) = self.make_all(head, ask, key).await {
            slog::warn!(self.rooms.cx.log, "a room lost its committer"; "room" => %self.room_id, "error" => %e);
        }
    }

    /// Answers a request that was made before.
    async fn repeated(&self, head: &mut Head, key: &TxnKey) -> Result<Option<Answer>> {
        if let Some(slot) = head.txns.get(key) {
            if slot.borrow().is_some() || slot.has_changed().is_ok() {
                return Ok(Some(Answer::Wait(slot)));
            }
            head.txns.forget(key);
        }
        let device = (key.0.clone(), key.1.clone());
        if head.txns.checked.contains(&device) && !head.txns.is_committed(key) {
            return Ok(None);
        }
        let store = &self.rooms.cx.store;
        let found = store.event_of_txn(&self.room_id, &key.0, &key.1, &key.2).await?;
        if head.txns.checked.len() >= MANY_EVENTS {
            head.txns.checked.clear();
        }
        head.txns.checked.insert(device);
        Ok(found.map(|(event_id, stream_ordering, instance)| {
            let instance = instance.unwrap_or_else(|| types::MASTER.to_owned());
            Answer::Sent(vec![Sent { event_id, room_id: self.room_id.clone(), stream_ordering, instance }])
        }))
    }

    async fn make_all(&mut self, mut head: Head, ask: Ask, key: Option<TxnKey>) -> Result<()> {
        let mut parts = Parts::default();
        let done = match &ask.what {
            What::Make { who, templates } => self.make_each(&mut head, who, templates, &mut parts).await,
            What::Take(prepared) | What::Backfill(prepared) => self.take_each(&mut head, prepared, &mut parts).await,
        };
        if let Err(e) = done {
            if parts.is_empty() && head.is_intact() {
                self.head = Some(head);
            } else {
                // The head is ahead of what will be written: start again from the database.
                self.flight.wait_idle().await;
            }
            let _ = ask.reply.send(Err(e));
            return Ok(());
        }
        let txn = key.map(|key| {
            let (tx, rx) = watch::channel(None);
            head.txns.put(key, rx);
            tx
        });
        let (write, slots) = parts.into_write(&mut head, None);
        self.head = Some(head);
        self.flight.took_off();
        let job = Job { write, slots, flight: self.flight.clone(), reply: ask.reply, txn };
        self.rooms.writing.committer.submit(job).await
    }
}

impl Actor {
    async fn make_each(
        &self,
        head: &mut Head,
        who: &Requester,
        templates: &[Template],
        parts: &mut Parts,
    ) -> Result<()> {
        for template in templates {
            parts.add(self.rooms.make(head, who, template).await?);
        }
        Ok(())
    }

    async fn take_each(&self, head: &mut Head, prepared: &[Prepared], parts: &mut Parts) -> Result<()> {
        let known = self.rooms.look_ahead(head, prepared).await?;
        for event in prepared {
            parts.add(self.rooms.take_prepared(head, event, known.get(&event.pdu.event_id).copied()).await?);
        }
        Ok(())
    }
}

/// Identifies the request of a client; None without a transaction id.
fn txn_key(who: &Requester, t: &Template) -> Option<TxnKey> {
    let txn = t.txn_id.clone()?;
    let device = match (&who.device_id, who.access_token_id) {
        (Some(device), _) => device.clone(),
        (None, Some(token)) => format!("\u{0}{token}"),
        (None, None) => String::from("\u{0}"),
    };
    Some((t.sender.to_string(), device, txn))
}
