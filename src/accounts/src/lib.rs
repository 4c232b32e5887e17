//! Accounts: registering, logging in, tokens, profiles, account data, push rules.

use replication::Cx;
use rooms::Rooms;

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) cx: Cx,
    pub(crate) rooms: Rooms,
}

impl Accounts {
    pub fn new(cx: Cx, rooms: Rooms) -> Self {
        Self { cx, rooms }
    }
}
