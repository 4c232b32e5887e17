//! The assembled application: what handlers get.

use accounts::Accounts;
use devices::Devices;
use replication::Cx;
use rooms::Rooms;
use std::ops::Deref;
use std::sync::Arc;
use store::Store;
use sync::Sync;
use types::Result;

/// Everything a handler may need. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
pub struct Inner {
    pub cx: Cx,
    pub store: Arc<Store>,
    pub rooms: Rooms,
    pub accounts: Accounts,
    pub devices: Devices,
    pub sync: Sync,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Puts the parts together and starts the tasks that belong to them.
    pub fn start(cx: Cx) -> Result<Self> {
        let rooms = Rooms::start(cx.clone())?;
        let accounts = Accounts::new(cx.clone(), rooms.clone());
        let devices = Devices::new(cx.clone(), rooms.clone());
        let sync = Sync::start(cx.clone(), rooms.clone(), accounts.clone(), devices.clone());
        let store = cx.store.clone();
        Ok(Self(Arc::new(Inner { cx, store, rooms, accounts, devices, sync })))
    }
}
