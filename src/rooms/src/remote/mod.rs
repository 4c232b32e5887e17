//! Events of other servers: judged, given their place in the room, handed to the process that owns it.
//!
//! `check` judges, `outliers` takes events whose place is not known, `accept` takes rooms and invites, `hand` gives
//! the result to the owner, `backfilled` is what the owner does with history.

mod accept;
mod acl;
mod answer;
mod backfilled;
mod check;
mod hand;
mod joins;
mod outliers;
pub(crate) mod place;
mod receive;
mod staging;

pub use accept::RemoteRoom;
pub use answer::{MissingQuestion, StateAnswer};
pub use joins::{InviteQuestion, Taken};
pub(crate) use place::Judge;
pub use rules::Incoming;

use crate::prepared::{Prepared, Source};
use rules::AuthEvent;
use std::collections::HashMap;
use std::sync::Arc;
use types::{OwnedEventId, Pdu};

/// `events.rejection_reason` of what the rules forbid.
pub(crate) const AUTH_ERROR: &str = "auth_error";

/// Events by which others are judged.
pub(crate) type Known = HashMap<OwnedEventId, AuthEvent>;

/// An event whose place in the room is not known.
pub(crate) fn outlier(mut pdu: Pdu, json: String) -> Prepared {
    pdu.outlier = true;
    remote(pdu, json, None, None)
}

/// An event of another server with the state groups after and before it.
pub(crate) fn remote(pdu: Pdu, json: String, group: Option<i64>, before: Option<i64>) -> Prepared {
    Prepared { pdu: Arc::new(pdu), json, group, before, source: Source::Remote { staged: false } }
}
