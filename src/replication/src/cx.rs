//! The context: what every part of a process needs to know.

use crate::bus::Outgoing as ToPublish;
use crate::listen::Listener;
use crate::locks::Waiters;
use crate::publish::{Pool, Publisher};
use crate::{Bus, Life, Memory, Peers, SharedCache, link};
use bb8_redis::RedisConnectionManager;
use config::{Config, Duties, StreamGroup};
use outgoing::Outgoing;
use slog::{Logger, info};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Settings, Store, Stream};
use tokio::sync::mpsc;
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
    /// Commands from and to the other processes.
    pub bus: Bus,
    /// What this process wrote to the streams that live in memory.
    pub memory: Arc<Memory>,
    pub shared: SharedCache,
    /// Requests to the outside, but for federation.
    pub outgoing: Outgoing,
    pub clock: Clock,
    /// Whether this process is about to end.
    pub life: Arc<Life>,
    pub log: Logger,
    pub(crate) waiters: Arc<Waiters>,
    requests: Arc<Mutex<Option<mpsc::Receiver<ToPublish>>>>,
}

impl Cx {
    /// Opens the database (creating it if it is empty and this is main) and reads where all streams are.
    /// Waits as long as PostgreSQL is not there.
    pub async fn open(config: Config, instance: &str, log: Logger) -> Result<Self> {
        let duties = Duties::of(&config, instance);
        let mut settings = Settings::of(&config)?;
        settings.instance = instance.to_owned();
        store::schema::prepare(&settings, duties.is_main, &log).await?;
        let store = Store::open(settings, |stream| writers(&config, stream), &log).await?;
        let pool = match &config.redis {
            Some(redis) => Some(pool(redis)?),
            None => None,
        };
        info!(log, "database open"; "instance" => instance);
        let (bus, requests) = Bus::new(config.redis.is_some());
        let config = Arc::new(config);
        Ok(Self {
            outgoing: Outgoing::new(&config),
            peers: Arc::new(Peers::new(config.clone(), store.clone())?),
            config,
            duties: Arc::new(duties),
            instance: instance.into(),
            store,
            bus,
            memory: Arc::default(),
            shared: SharedCache { pool },
            clock: Clock::system(),
            life: Arc::default(),
            log,
            waiters: Arc::default(),
            requests: Arc::new(Mutex::new(requests)),
        })
    }

    /// Begins to talk to the other processes and to note positions. Call it once, before anything is written.
    pub fn start(&self) -> Result<()> {
        tokio::spawn(self.store.streams.clone().save_positions());
        tokio::spawn(self.store.clone().tend_locks());
        tokio::spawn(self.waiters.clone().listen(self.bus.commands()));
        let requests = self.requests.lock().unwrap_or_else(|e| e.into_inner()).take();
        let (Some(requests), Some(redis), Some(pool)) = (requests, &self.config.redis, self.shared.pool.clone()) else {
            return Ok(());
        };
        let channel = self.config.server.name.to_string();
        let publisher = Publisher {
            streams: self.store.streams.clone(),
            memory: self.memory.clone(),
            pool,
            channel: channel.clone(),
            log: self.log.clone(),
        };
        tokio::spawn(publisher.run(self.store.streams.announcements(), requests));
        let mut channels = vec![channel.clone()];
        if self.duties.is_main || self.duties.background_tasks {
            channels.insert(0, format!("{channel}/USER_IP"));
        }
        let listener = Listener {
            client: link::client(redis, false)?,
            streams: self.store.streams.clone(),
            peers: self.peers.clone(),
            bus: self.bus.clone(),
            channels,
            sends_federation: self.duties.federation_sender,
            log: self.log.clone(),
        };
        tokio::spawn(listener.run());
        Ok(())
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
        // Main hands EDUs to senders elsewhere through this stream; if it sends itself there is no stream.
        None if stream == Stream::Federation && config.workers.federation_senders.iter().any(|s| s == MASTER) => {
            Vec::new()
        }
        None => vec![MASTER.to_owned()],
    }
}

/// Connections for publishing and for the shared cache; made when first needed, and again when lost.
fn pool(redis: &config::Redis) -> Result<Pool> {
    let client = link::client(redis, true)?;
    let manager = RedisConnectionManager::new(client.get_connection_info().clone())?;
    Ok(bb8::Pool::builder().max_size(4).connection_timeout(Duration::from_secs(5)).build_unchecked(manager))
}
