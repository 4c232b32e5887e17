//! Every line of SQL: the pool, transactions, caches, id generators, and one file a noun.

mod account_caches;
pub mod account_data;
pub mod aliases;
mod backend;
pub mod cache;
pub mod changed;
mod cleanup;
mod connect;
pub mod cross_signing;
pub mod db;
pub mod deactivation;
pub mod dehydrated;
pub mod destinations;
pub mod device_lists;
pub mod device_rooms;
pub mod devices;
pub mod directory;
pub mod e2e_keys;
pub mod events;
mod expiry;
pub mod external_ids;
pub mod extremities;
pub mod filters;
pub mod forget;
pub mod history_gaps;
pub mod hosts;
mod ignored;
pub mod inbound;
pub mod key_backup;
pub mod locks;
pub mod membership_for_user;
pub mod memberships;
mod obey;
pub mod open_id;
pub mod outbound;
pub mod pages;
pub mod persist;
pub mod presence;
pub mod profiles;
pub mod push_rules;
pub mod push_rules_of;
pub mod push_rules_stored;
pub mod pushers;
pub mod receipts;
pub mod registration_tokens;
mod relation_checks;
pub mod relations;
mod remote_devices;
mod reports;
mod room_caches;
pub mod rooms;
pub mod scheduled_tasks;
pub mod schema;
pub mod search;
pub mod seen;
pub mod server_keys;
pub mod shown;
pub mod spaces;
pub mod standing;
pub mod state_groups;
mod statistics;
pub mod streams;
pub mod sync_account_data;
mod sync_caches;
pub mod sync_state;
pub mod sync_timeline;
pub mod tags;
pub mod threepid_sessions;
pub mod threepids;
mod tls;
pub mod to_device;
pub mod tokens;
pub mod ui_auth;
pub mod unread;
mod unread_rotate;
pub mod upgrade;
pub mod user_directory;
mod user_directory_update;
pub mod user_ips;
pub mod users;
mod writer_caches;

pub use cache::{Cache, Registry, WireKey};
pub use changed::Changed;
pub use connect::Server;
pub use db::{Conn, Db, Params, Tx};
pub use streams::{EventRow, IdGuard, PresenceRow, Row, Stream, Streams, Update};

use slog::Logger;
use std::sync::Arc;
use types::{OwnedServerName, Pdu, Result};

/// What the store needs to know to open.
pub struct Settings {
    pub server_name: OwnedServerName,
    /// Name of this process (`master` for main).
    pub instance: String,
    pub server: Server,
    pub max_connections: u32,
    /// Accept a database whose locale is not C.
    pub allow_unsafe_locale: bool,
    /// How large caches may grow.
    pub caches: config::misc::Caches,
    /// Write the full-text index (`enable_search`).
    pub search: bool,
    /// Note when self-destructing events expire (`enable_ephemeral_messages`).
    pub ephemeral: bool,
}

/// The database with its caches. One per process, shared.
pub struct Store {
    pub db: Db,
    pub streams: Arc<Streams>,
    pub registry: Registry,
    pub server_name: OwnedServerName,
    /// Which rooms and users moved last when.
    pub changed: Changed,
    pub(crate) locks: locks::Locks,
    pub(crate) sync: sync_caches::SyncCaches,
    pub(crate) event_cache: Cache<String, Arc<Pdu>>,
    pub(crate) room_caches: room_caches::RoomCaches,
    pub(crate) key_caches: e2e_keys::KeyCaches,
    pub(crate) accounts: account_caches::AccountCaches,
    pub(crate) writer_caches: writer_caches::WriterCaches,
    pub(crate) federation: destinations::FederationCaches,
    pub(crate) search_enabled: bool,
    pub(crate) ephemeral_enabled: bool,
}

impl Store {
    /// Opens a database whose schema was checked before. `writers`: configured writers of a stream.
    pub async fn open(settings: Settings, writers: impl Fn(Stream) -> Vec<String>, log: &Logger) -> Result<Arc<Self>> {
        let db = Db::new(settings.server, settings.max_connections, log.clone());
        streams::unended::wait(&db, log).await?;
        let streams = Streams::load(db.clone(), &settings.instance, writers).await?;
        let events = settings.caches.events();
        let registry = Registry::new(settings.caches);
        let store = Arc::new(Self {
            changed: Changed::new(&streams),
            locks: locks::Locks::default(),
            sync: sync_caches::SyncCaches::new(&registry),
            event_cache: registry.sized("_get_event_cache", events),
            room_caches: room_caches::RoomCaches::new(&registry),
            key_caches: e2e_keys::KeyCaches::new(&registry),
            accounts: account_caches::AccountCaches::new(&registry),
            writer_caches: writer_caches::WriterCaches::new(&registry),
            federation: destinations::FederationCaches::new(&registry),
            search_enabled: settings.search,
            ephemeral_enabled: settings.ephemeral,
            db,
            streams,
            registry,
            server_name: settings.server_name,
        });
        let weak = Arc::downgrade(&store);
        store.streams.set_forgets(Box::new(move |id, row| {
            if let Some(store) = weak.upgrade() {
                store.changed.note(id, row);
                store.obey(row);
            }
        }));
        Ok(store)
    }

    /// Name of this process, for `instance_name` columns.
    pub fn instance(&self) -> &str {
        self.streams.instance()
    }

    /// Begins a transaction; use [`transaction!`].
    #[doc(hidden)]
    pub async fn begin(&self, name: &'static str) -> Result<Tx> {
        self.db.begin(name).await
    }
}
