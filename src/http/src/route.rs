//! One row of the route table.

use crate::reply::IntoReply;
use crate::{Reply, Rq};
use httpcrate::Method;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use types::{OwnedServerName, Requester, Result};

/// What handlers get besides the request: the assembled application. `http` asks it only what it cannot know.
pub trait App: Clone + Send + Sync + 'static {
    /// One of as many requests as may be answered at once.
    type Turn: Send + 'static;

    fn log(&self) -> &slog::Logger;

    /// Whether the process is about to end, so that connections should not be used again.
    fn is_draining(&self) -> bool;

    /// The process that must answer, if it is another one and speaks our forwarding.
    fn elsewhere(&self, on: On, rq: &Rq) -> impl Future<Output = Result<Option<String>>> + Send;

    /// Lets `instance` answer.
    fn forward(&self, instance: &str, rq: &Rq) -> impl Future<Output = Result<Reply>> + Send;

    /// Refuses requests without the cluster's replication secret.
    fn check_replication(&self, rq: &Rq) -> Result<()>;

    /// 429 M_LIMIT_EXCEEDED beyond the class's rate. A turn is kept until the request is answered.
    fn limit(&self, rate: Rate, caller: &Caller, rq: &Rq) -> impl Future<Output = Result<Option<Self::Turn>>> + Send;

    /// Whose access token this is. 401 M_UNKNOWN_TOKEN / M_MISSING_TOKEN, 403 for guests where not `guests`.
    fn authenticate(&self, rq: &Rq, access: Access) -> impl Future<Output = Result<Requester>> + Send;

    /// The server whose signature a request bears. 401 M_UNAUTHORIZED without a valid one.
    fn authenticate_server(&self, rq: &Rq) -> impl Future<Output = Result<OwnedServerName>> + Send;
}

/// Who calls, as far as the route wants to know.
#[derive(Clone, Debug)]
pub enum Caller {
    Anybody,
    User(Requester),
    Server(OwnedServerName),
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody; the handler sees no requester.
    Open,
    /// A registered user (or appservice).
    User,
    /// Guests too.
    Guest,
    /// Users whose account is locked or who have not consented may call, too (logout).
    Locked,
    /// A server admin.
    Admin,
    /// The cluster's replication secret.
    Replication,
    /// Another server, by its signature (`X-Matrix`).
    Server,
}

/// Listener resource that serves a route (names as in `listeners[].resources[].names`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Client,
    Federation,
    Keys,
    Media,
    Replication,
    /// On every HTTP listener.
    Health,
    Metrics,
}

/// Where a request is best, or must be, answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Any process.
    Any,
    /// Any, but the same one for the same user.
    SyncByUser,
    /// Any; kept apart since it is heavy (initial sync, initialSync).
    InitialSync,
    /// Any, the same one for the same room is best.
    RoomRead,
    /// The events writer that owns path parameter `room_id`.
    RoomShard,
    /// The writer of a stream (names of `stream_writers`: `typing`, `to_device`, `account_data` …).
    Writer(&'static str),
    /// Any, spread by source address.
    FederationIn,
    Media,
    /// The main process.
    Main,
}

/// Rate-limit class checked at dispatch; finer limits are the handlers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    None,
    /// `rc_message`, per user.
    Message,
    /// `rc_registration`, per address.
    Registration,
    /// `rc_login.address`.
    Login,
    /// `rc_federation`, per server.
    Server,
}

/// A handler behind one pointer.
pub type Handler<A> = Arc<dyn Fn(A, Caller, Rq) -> Pin<Box<dyn Future<Output = Result<Reply>> + Send>> + Send + Sync>;

/// One endpoint.
pub struct Route<A> {
    /// Servlet-like name: metrics label, docs, logs.
    pub name: &'static str,
    pub method: Method,
    /// `/_matrix/client/(r0|v3)/rooms/{room_id}/state`: groups of alternatives are expanded.
    pub path: &'static str,
    pub resource: Resource,
    pub access: Access,
    pub on: On,
    pub rate: Rate,
    pub handler: Handler<A>,
}

/// `route("GET", "whoami", "/_matrix/client/(r0|v3)/account/whoami")` + `.open(handler)` or `.user(handler)`.
pub fn route(method: &'static str, name: &'static str, path: &'static str) -> Unbound {
    Unbound { method, name, path, resource: Resource::of_path(path), on: On::Any, rate: Rate::None }
}

/// A route without its handler.
#[derive(Clone, Copy)]
pub struct Unbound {
    method: &'static str,
    name: &'static str,
    path: &'static str,
    resource: Resource,
    on: On,
    rate: Rate,
}

impl Unbound {
    pub fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }

    pub fn limit(mut self, rate: Rate) -> Self {
        self.rate = rate;
        self
    }

    pub fn resource(mut self, resource: Resource) -> Self {
        self.resource = resource;
        self
    }

    fn bind<A>(self, access: Access, handler: Handler<A>) -> Route<A> {
        Route {
            name: self.name,
            // Methods are literals in the route table; an unknown one is an extension method, never a panic.
            method: Method::from_bytes(self.method.as_bytes()).unwrap_or_default(),
            path: self.path,
            resource: self.resource,
            access,
            on: self.on,
            rate: self.rate,
            handler,
        }
    }

    /// A handler that takes no requester.
    pub fn open<A, F, Fut, R>(self, f: F) -> Route<A>
    where
        F: Fn(A, Rq) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: IntoReply + 'static,
    {
        self.open_as(Access::Open, f)
    }

    /// As [`Unbound::open`], behind the cluster's replication secret.
    pub fn replication<A, F, Fut, R>(self, f: F) -> Route<A>
    where
        F: Fn(A, Rq) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: IntoReply + 'static,
    {
        self.open_as(Access::Replication, f)
    }

    fn open_as<A, F, Fut, R>(self, access: Access, f: F) -> Route<A>
    where
        F: Fn(A, Rq) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: IntoReply + 'static,
    {
        self.bind(
            access,
            Arc::new(move |app, _, rq| {
                let answer = f(app, rq);
                Box::pin(async move { answer.await?.into_reply() })
            }),
        )
    }

    /// A handler for other servers; it gets the name of the one that signed.
    pub fn server<A, F, Fut, R>(self, f: F) -> Route<A>
    where
        F: Fn(A, OwnedServerName, Rq) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: IntoReply + 'static,
    {
        self.bind(
            Access::Server,
            Arc::new(move |app, caller, rq| {
                let answer = match caller {
                    Caller::Server(origin) => Some(f(app, origin, rq)),
                    _ => None,
                };
                Box::pin(async move {
                    match answer {
                        Some(a) => a.await?.into_reply(),
                        None => Err(types::Error::client(401, "M_UNAUTHORIZED", "Missing Authorization headers")),
                    }
                })
            }),
        )
    }

    /// A handler for users.
    pub fn user<A, F, Fut, R>(self, f: F) -> Route<A>
    where
        F: Fn(A, Requester, Rq) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: IntoReply + 'static,
    {
        self.with_requester(Access::User, f)
    }

    /// A handler for users and guests.
    pub fn guest<A, F, Fut, R>(self, f: F) -> Route<A>
    where
        F: Fn(A, Requester, Rq) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: IntoReply + 'static,
    {
        self.with_requester(Access::Guest, f)
    }

    /// A handler with any kind of access that has a requester.
    pub fn with_requester<A, F, Fut, R>(self, access: Access, f: F) -> Route<A>
    where
        F: Fn(A, Requester, Rq) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: IntoReply + 'static,
    {
        self.bind(
            access,
            Arc::new(move |app, caller, rq| {
                let answer = match caller {
                    Caller::User(who) => Some(f(app, who, rq)),
                    _ => None,
                };
                Box::pin(async move {
                    match answer {
                        Some(a) => a.await?.into_reply(),
                        None => Err(types::Error::missing_token("Missing access token")),
                    }
                })
            }),
        )
    }
}
