//! One per process: takes what the rooms made and commits the events of many of them in one transaction.
//! While a commit is under way the next batch fills up.

use crate::Sent;
use crate::ask::Answer;
use crate::flight::Flight;
use replication::Cx;
use ruma::OwnedEventId;
use slog::{error, warn};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Conn;
use store::db::{back_off, constraint_of, is_away, is_constraint, is_lost, is_serialisation};
use store::persist::{Doubt, RoomWrite, WriteError};
use tokio::sync::{mpsc, oneshot, watch};
use types::{Error, Result};

/// What answers a template.
pub(crate) enum Slot {
    /// Index in the events of the job's write.
    New(usize),
    Existing(OwnedEventId),
}

/// Events of one request.
pub(crate) struct Job {
    pub write: RoomWrite,
    pub slots: Vec<Slot>,
    /// The room's generation: fails as a whole once one of its jobs has.
    pub flight: Arc<Flight>,
    pub reply: oneshot::Sender<Result<Answer>>,
    /// Where a repetition of the request looks.
    pub txn: Option<watch::Sender<Option<Sent>>>,
}

/// Events in a batch at most.
const MAX_EVENTS: usize = 200;
/// Jobs waiting at most; beyond it rooms wait.
const QUEUE: usize = 1_000;
/// How long PostgreSQL may be away before requests fail.
const PATIENCE: Duration = Duration::from_secs(20);
const RETRIES: u32 = 6;
/// Foreign key from client transactions to devices.
const DEVICE_GONE: &str = "event_txn_id_device_id_user_id_device_id_fkey";

/// The way to the committer.
pub(crate) struct Committer {
    jobs: mpsc::Sender<Job>,
}

impl Committer {
    pub fn start(cx: &Cx) -> Self {
        let (jobs, rx) = mpsc::channel(QUEUE);
        tokio::spawn(Worker { cx: cx.clone(), conn: None }.run(rx));
        Self { jobs }
    }

    /// Queues a job; waits while the queue is full.
    pub async fn submit(&self, job: Job) -> Result<()> {
        self.jobs.send(job).await.map_err(|_| Error::unavailable("The server is shutting down"))
    }
}

struct Worker {
    cx: Cx,
    conn: Option<Conn>,
}

impl Worker {
    async fn run(mut self, mut rx: mpsc::Receiver<Job>) {
        while let Some(first) = rx.recv().await {
            let mut events = first.write.events.len();
            let mut jobs = vec![first];
            while events < MAX_EVENTS
                && let Ok(job) = rx.try_recv()
            {
                events += job.write.events.len();
                jobs.push(job);
            }
            self.commit(jobs).await;
        }
    }

    async fn commit(&mut self, jobs: Vec<Job>) {
        let (mut jobs, broken): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|j| !j.flight.is_broken());
        broken.into_iter().for_each(again);
        if jobs.is_empty() {
            return;
        }
        match self.write(&mut jobs).await {
            Ok(()) => self.answer_all(jobs).await,
            Err(e) if jobs.len() == 1 || is_away(&e) => {
                for job in jobs {
                    self.fail(job, &e).await;
                }
            }
            // One of them is bad: each for itself, so that the others do not suffer.
            Err(_) => {
                for job in jobs {
                    Box::pin(self.commit(vec![job])).await;
                }
            }
        }
    }

    /// Writes a batch, again after a serialisation failure or a lost connection.
    async fn write(&mut self, jobs: &mut [Job]) -> Result<()> {
        let mut writes: Vec<RoomWrite> = jobs.iter_mut().map(|j| j.write.take()).collect();
        let mut attempt = 0;
        let begun = Instant::now();
        let mut doubt = None;
        let outcome = loop {
            if doubt.is_some() {
                match self.cx.store.settle(&mut writes, &mut doubt).await {
                    Ok(true) => break Ok(()),
                    Ok(false) => {}
                    Err(error) if begun.elapsed() > PATIENCE => {
                        self.settle_later(&writes, doubt);
                        break Err(error);
                    }
                    Err(_) => {
                        back_off(&mut attempt).await;
                        continue;
                    }
                }
            }
            let Err(failure) = self.attempt(&mut writes).await else { break Ok(()) };
            let error = failure.error;
            doubt = failure.doubt;
            if self.conn.as_ref().is_none_or(Conn::is_closed) || is_lost(&error) {
                self.conn = None;
                if begun.elapsed() > PATIENCE && doubt.is_none() {
                    break Err(error);
                }
                if attempt == 0 {
                    warn!(self.cx.log, "a commit waits for the database"; "error" => %error);
                }
                back_off(&mut attempt).await;
            } else if is_serialisation(&error) && attempt < RETRIES {
                back_off(&mut attempt).await;
            } else if constraint_of(&error) == Some(DEVICE_GONE) && writes.len() == 1 && attempt < RETRIES {
                // The device logged out meanwhile: its transactions need no remembering.
                attempt += 1;
                writes.iter_mut().for_each(RoomWrite::forget_devices);
            } else {
                break Err(error);
            }
        };
        for (job, write) in jobs.iter_mut().zip(writes) {
            job.write = write;
        }
        outcome
    }

    async fn attempt(&mut self, writes: &mut [RoomWrite]) -> Result<(), WriteError> {
        if writes.iter().all(RoomWrite::is_empty) {
            return Ok(());
        }
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                let conn = self.cx.store.db.dedicated().await?;
                self.cx.store.prepare_writer(&conn).await?;
                conn
            }
        };
        let outcome = self.cx.store.write_rooms(&conn, writes, self.cx.now_ms()).await;
        self.conn = Some(conn);
        outcome
    }

    /// Requests cannot wait any longer, but what they may have written must be announced once it is known.
    fn settle_later(&self, writes: &[RoomWrite], mut doubt: Option<Doubt>) {
        let (store, mut writes) = (self.cx.store.clone(), writes.to_vec());
        tokio::spawn(async move {
            while store.settle(&mut writes, &mut doubt).await.is_err() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }

    async fn answer_all(&self, jobs: Vec<Job>) {
        for job in jobs {
            self.answer(job).await;
        }
    }

    async fn answer(&self, job: Job) {
        let mut sent = Vec::with_capacity(job.slots.len());
        for slot in &job.slots {
            let pdu = match slot {
                Slot::New(i) => job.write.events.get(*i).map(|e| e.pdu.clone()),
                Slot::Existing(id) => self.cx.store.event(id).await.ok().flatten(),
            };
            if let Some(pdu) = pdu {
                sent.push(Sent {
                    event_id: pdu.event_id.clone(),
                    room_id: pdu.room_id.clone(),
                    stream_ordering: pdu.stream(),
                    instance: pdu.instance_name.clone().unwrap_or_else(|| types::MASTER.to_owned()),
                });
            }
        }
        if let (Some(txn), [one]) = (&job.txn, &sent[..]) {
            txn.send_replace(Some(one.clone()));
        }
        job.flight.landed();
        let _ = job.reply.send(Ok(Answer::Sent(sent)));
    }

    /// A job that cannot be committed: its room starts afresh from the database.
    async fn fail(&mut self, job: Job, e: &Error) {
        if is_constraint(e)
            && let Some(sent) = self.earlier(&job).await
        {
            job.flight.broke();
            job.flight.landed();
            let _ = job.reply.send(Ok(Answer::Sent(vec![sent])));
            return;
        }
        error!(self.cx.log, "events could not be committed"; "room" => %job.write.room_id, "error" => %e);
        job.flight.broke();
        job.flight.landed();
        let answer = if is_away(e) {
            Error::unavailable("The database is not reachable at the moment")
        } else {
            Error::internal(format!("could not commit events of {}: {e}", job.write.room_id))
        };
        let _ = job.reply.send(Err(answer));
    }

    /// The event an earlier request with the same transaction id made.
    async fn earlier(&self, job: &Job) -> Option<Sent> {
        let [event] = &job.write.events[..] else { return None };
        let meta = &event.pdu.meta;
        let (device, txn) = (meta.device_id.as_deref()?, meta.txn_id.as_deref()?);
        let room_id = &job.write.room_id;
        let found = self.cx.store.event_of_txn(room_id, event.pdu.sender.as_str(), device, txn).await.ok()??;
        Some(Sent {
            event_id: found.0,
            room_id: room_id.clone(),
            stream_ordering: found.1,
            instance: found.2.unwrap_or_else(|| types::MASTER.to_owned()),
        })
    }
}

/// The room broke before this job's turn: the request is to be made again on the reloaded room.
fn again(job: Job) {
    job.flight.landed();
    let _ = job.reply.send(Ok(Answer::Again));
}
