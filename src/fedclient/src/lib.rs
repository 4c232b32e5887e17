//! Talking to other servers: signed requests, finding them, their keys, and leaving them alone for a while when they
//! do not answer.

mod admit;
mod backoff;
mod call;
mod connect;
mod discover;
mod exchange;
pub mod incoming;
pub mod keys;
mod sign;
mod verify;
mod well_known;

pub use admit::Turn;
pub use call::{Call, FedError};
pub use keys::Wanted;
pub use outgoing::escape;
pub use verify::is_signed_with;

use admit::Door;
use bytes::Bytes;
use connect::Connector;
use dashmap::DashMap;
use discover::Discovery;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use replication::{Cx, Proxies};
use serde_json::Value;
use sign::Signer;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Mutex, broadcast};
use types::Result;

/// Servers that came back and nobody has been told of yet.
const UP: usize = 1_024;

/// Everything about other servers. One per process; cheap to clone.
#[derive(Clone)]
pub struct Fed(Arc<Inner>);

pub(crate) struct Inner {
    pub cx: Cx,
    pub signer: Signer,
    pub discovery: Discovery,
    /// Made at the first request: reading certificates takes time and memory.
    client: OnceLock<Client<Connector, Full<Bytes>>>,
    /// Who sends our requests, if this process may not.
    pub proxies: Option<Proxies>,
    pub door: Door,
    /// Servers whose keys are being fetched.
    pub fetching: DashMap<String, Arc<Mutex<()>>>,
    up: broadcast::Sender<String>,
}

impl Fed {
    pub fn new(cx: &Cx) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            signer: Signer::new(&cx.config)?,
            discovery: Discovery::new(&cx.config),
            client: OnceLock::new(),
            proxies: Proxies::new(cx)?,
            door: Door::new(cx.config.rate.federation),
            fetching: DashMap::new(),
            up: broadcast::channel(UP).0,
            cx: cx.clone(),
        })))
    }

    /// GET. `path` is the path with its query, percent-encoded, from the slash on.
    pub async fn get(&self, destination: &str, path: &str) -> Result<Value, FedError> {
        self.call(Call::get(destination, path)).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, destination: &str, path: &str, body: &Value) -> Result<Value, FedError> {
        self.call(Call::post(destination, path, body)).await
    }

    /// PUT with a JSON body.
    pub async fn put(&self, destination: &str, path: &str, body: &Value) -> Result<Value, FedError> {
        self.call(Call::put(destination, path, body)).await
    }

    /// DELETE.
    pub async fn delete(&self, destination: &str, path: &str) -> Result<Value, FedError> {
        self.call(Call::delete(destination, path)).await
    }

    /// The `Authorization` header of a request in this server's name to something that is no homeserver (identity
    /// servers). `path` as in [`Fed::get`].
    pub fn authorization(&self, method: &str, destination: &str, path: &str, body: Option<&Value>) -> Result<String> {
        self.0.signer.authorization(method, destination, path, body)
    }

    /// Waits until a request of another server may be answered (`rc_federation`). 429 if too many of its requests wait.
    pub async fn admit(&self, origin: &str) -> Result<Turn> {
        self.0.door.admit(origin).await
    }

    /// Servers that answer again, as noticed by this process. What others notice comes as REMOTE_SERVER_UP.
    pub fn servers_up(&self) -> broadcast::Receiver<String> {
        self.0.up.subscribe()
    }
}
