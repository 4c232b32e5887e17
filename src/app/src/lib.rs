//! The assembled application: what handlers get.

mod bus;
mod edus;
mod forward;
mod hooks;
mod inbound;
mod system;
mod tasks;

pub use forward::FORWARD_PREFIX;
pub use inbound::Inbound;

use accounts::Accounts;
use devices::Devices;
use fedclient::Fed;
use http::{Route, Table, Txns};
use replication::Cx;
use rooms::Rooms;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use store::Store;
use sync::Sync;
use types::Result;

/// Routes every process has, whatever else it serves.
pub fn routes() -> Vec<Route<App>> {
    let mut all = forward::routes();
    all.extend(system::routes());
    all
}

/// Everything a handler may need. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
pub struct Inner {
    pub cx: Cx,
    pub store: Arc<Store>,
    /// Other servers.
    pub fed: Fed,
    pub rooms: Rooms,
    pub accounts: Accounts,
    pub devices: Devices,
    pub sync: Sync,
    /// Answers to requests with a transaction id.
    pub txns: Txns,
    /// Transactions of other servers.
    pub inbound: Inbound,
    /// The client routes, for requests other processes hand on.
    clients: OnceLock<Arc<Table<App>>>,
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
        let fed = Fed::new(&cx)?;
        let rooms = Rooms::start(cx.clone(), fed.clone())?;
        let devices = Devices::new(cx.clone(), fed.clone());
        let accounts = Accounts::new(cx.clone(), fed.clone(), rooms.clone(), devices.clone())?;
        accounts.spawn_tasks();
        let follower = accounts.clone();
        rooms.on_entry(Box::new(move |room_id| {
            let accounts = follower.clone();
            Box::pin(async move { accounts.follow_upgrade(&room_id).await })
        }));
        devices.spawn_tasks();
        let sync = Sync::start(cx.clone(), rooms.clone(), devices.clone());
        let store = cx.store.clone();
        let app = Self(Arc::new(Inner {
            cx,
            store,
            fed,
            rooms,
            accounts,
            devices,
            sync,
            txns: Txns::default(),
            inbound: Inbound::default(),
            clients: OnceLock::new(),
        }));
        app.join_bus();
        Ok(app)
    }

    /// Sets the routes that handed-on requests are dispatched to; once, at start.
    pub fn serve_forwarded(&self, table: Arc<Table<App>>) {
        let _ = self.0.clients.set(table);
    }
}
