//! The bus as the rest of the process sees it: commands in, commands out.

use crate::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{broadcast, mpsc, watch};

/// Commands waiting to be published. More only gather while Redis is away; then they are worth nothing later.
const OUTGOING: usize = 8_192;
/// Commands a listener may lag behind; room for all of them is made at start.
const INCOMING: usize = 1_024;

/// Cheap to clone. Without Redis nothing goes out and nothing comes in.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    incoming: broadcast::Sender<Command>,
    /// None: this server has one process.
    outgoing: Option<mpsc::Sender<Outgoing>>,
    connections: watch::Sender<u64>,
    up: AtomicBool,
}

/// What the publisher is asked for.
pub(crate) enum Outgoing {
    Command(Command),
    /// The positions of all streams we write, for whoever has just connected.
    Positions,
}

impl Bus {
    pub(crate) fn new(enabled: bool) -> (Self, Option<mpsc::Receiver<Outgoing>>) {
        let (outgoing, requests) = match enabled {
            true => Some(mpsc::channel(OUTGOING)).unzip(),
            false => (None, None),
        };
        let inner = Inner {
            incoming: broadcast::channel(INCOMING).0,
            outgoing,
            connections: watch::channel(0).0,
            up: AtomicBool::new(false),
        };
        (Self(Arc::new(inner)), requests)
    }

    /// Publishes a command; lost if Redis is away.
    pub fn send(&self, command: Command) {
        self.request(Outgoing::Command(command));
    }

    pub(crate) fn request(&self, what: Outgoing) {
        if let Some(outgoing) = &self.0.outgoing {
            // A full queue means a Redis that has been away for long: what is asked now is worth nothing then,
            // and positions are announced on every new connection.
            let _ = outgoing.try_send(what);
        }
    }

    /// Commands from all processes but for RDATA and POSITION, which `store.streams` has digested. Our own
    /// come back too, except LOCK_RELEASED.
    pub fn commands(&self) -> broadcast::Receiver<Command> {
        self.0.incoming.subscribe()
    }

    pub(crate) fn received(&self, command: Command) {
        // Nobody listening is fine.
        let _ = self.0.incoming.send(command);
    }

    /// Counts the connections made to Redis: whoever must tell others its state does so on each change.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.0.connections.subscribe()
    }

    pub(crate) fn connected(&self) {
        self.0.up.store(true, Ordering::Release);
        self.0.connections.send_modify(|n| *n += 1);
    }

    pub(crate) fn disconnected(&self) {
        self.0.up.store(false, Ordering::Release);
    }

    /// Whether we hear the other processes at the moment.
    pub fn is_up(&self) -> bool {
        self.0.up.load(Ordering::Acquire)
    }

    /// Whether there are other processes to hear.
    pub fn is_enabled(&self) -> bool {
        self.0.outgoing.is_some()
    }
}
