//! Devices, their keys, messages to them, cross-signing, key backups.

use replication::Cx;
use rooms::Rooms;

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Devices {
    pub(crate) cx: Cx,
    pub(crate) rooms: Rooms,
}

impl Devices {
    pub fn new(cx: Cx, rooms: Rooms) -> Self {
        Self { cx, rooms }
    }
}
