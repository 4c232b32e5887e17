//! What a room is asked, and how it answers.

use crate::head::TxnSlot;
use crate::prepared::Prepared;
use crate::{Sent, Template};
use tokio::sync::oneshot;
use types::{Requester, Result};

/// A request to a room.
pub(crate) struct Ask {
    pub what: What,
    pub reply: oneshot::Sender<Result<Answer>>,
}

/// What is asked for.
pub(crate) enum What {
    /// Events to be made.
    Make { who: Requester, templates: Vec<Template> },
    /// Events made elsewhere, to be stored.
    Take(Vec<Prepared>),
    /// History fetched from another server, to be stored.
    Backfill(Vec<Prepared>),
}

/// How a request ended.
pub(crate) enum Answer {
    Sent(Vec<Sent>),
    /// The same request is under way: its outcome appears here. None once it has failed.
    Wait(TxnSlot),
    /// Nothing was done; ask again.
    Again,
}
