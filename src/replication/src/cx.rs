//! The context: what every part of a process needs to know.

use crate::{Peers, SharedCache};
use crate::link;
use bb8_redis::RedisConnectionManager;
use config::{Config, Duties, StreamGroup};
use slog::{Logger, info};
use std::sync::Arc;
use std::time::Duration;
use store::{Settings, Store, Stream};
use types::{Clock, MASTER, Result};

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Cx {
    pub config: Arc<Config>,
    pub duties: Arc<Duties>,
    /// Name of this process; `master` for main.
    pub instance: Arc<str>,
    pub store: Arc<Store>,
    /// The other processes.
    pub peers: Arc<Peers>,
    pub shared: SharedCache,
    pub clock: Clock,
    pub log: Logger,
}

impl Cx {
    /// Opens the database (creating it if it is empty and this is main) and reads where all streams are.
    /// Waits as long as PostgreSQL is not there.
    pub async fn open(config: Config, instance: &str, log: Logger) -> Result<Self> {
        let duties = Duties::of(&config, instance);
        let mut settings = Settings::of(&config)?;
        settings.instance = instance.to_owned();
        store::schema::prepare(&settings, duties.is_main, &log).await?;
        let store = Store::open(settings, |stream| writers(&config, stream)).await?;
        let pool = match &config.redis {
            Some(redis) => Some(pool(redis)?),
            None => None,
        };
        info!(log, "database open"; "instance" => instance);
        let config = Arc::new(config);
        Ok(Self {
            peers: Arc::new(Peers::new(config.clone(), store.clone())),
            config,
            duties: Arc::new(duties),
            instance: instance.into(),
            store,
            shared: SharedCache { pool },
            clock: Clock::system(),
            log,
        })
    }

    /// The process that writes `key` of a group of streams (a room id for events; any text where one process writes all).
    pub fn owner(&self, group: StreamGroup, key: &str) -> &str {
        self.config.owners().owner(group, key)
    }

    /// Whether this process writes `key` of a group.
    pub fn is_mine(&self, group: StreamGroup, key: &str) -> bool {
        self.owner(group, key) == &*self.instance
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

/// Writers of a stream by configuration; none for `caches`, which everybody writes.
fn writers(config: &Config, stream: Stream) -> Vec<String> {
    match stream.definition().writers.and_then(StreamGroup::named) {
        Some(group) => config.owners().writers(group).to_vec(),
        None if stream == Stream::Caches => Vec::new(),
        None => vec![MASTER.to_owned()],
    }
}

/// Connections for publishing and for the shared cache; made when first needed, and again when lost.
fn pool(redis: &config::Redis) -> Result<bb8::Pool<RedisConnectionManager>> {
    let client = link::client(redis, true)?;
    let manager = RedisConnectionManager::new(client.get_connection_info().clone())?;
    Ok(bb8::Pool::builder().max_size(4).connection_timeout(Duration::from_secs(5)).build_unchecked(manager))
}
