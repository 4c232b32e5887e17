//! `/sync` and what feeds it: the notifier, presence, typing, receipts, unread counts.

use accounts::Accounts;
use devices::Devices;
use replication::Cx;
use rooms::Rooms;

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Sync {
    pub(crate) cx: Cx,
    pub(crate) rooms: Rooms,
    pub(crate) accounts: Accounts,
    pub(crate) devices: Devices,
}

impl Sync {
    /// Starts the tasks that belong to it (notifier, timers); they end with the runtime.
    pub fn start(cx: Cx, rooms: Rooms, accounts: Accounts, devices: Devices) -> Self {
        Self { cx, rooms, accounts, devices }
    }
}
