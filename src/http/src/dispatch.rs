//! From a request to its answer: find the route, hand on or authenticate, run the handler, log and count.

use crate::metrics::Timer;
use crate::route::{App, On, Rate, Resource};
use crate::{Access, Caller, Reply, Route, Rq, Table};
use bytes::Bytes;
use httpcrate::{HeaderMap, HeaderValue, Method, header};
use percent_encoding::percent_decode_str;
use slog::{error, info};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use types::{Error, Result};

/// A request before it is matched.
pub struct Incoming {
    pub method: Method,
    /// Not decoded.
    pub path: String,
    /// Without `?`.
    pub raw_query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub ip: Option<IpAddr>,
    /// Handed on by another process of the cluster: must not travel further.
    pub forwarded: bool,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Answers one request. Never fails: errors become responses.
pub async fn dispatch<A: App>(app: &A, table: &Arc<Table<A>>, incoming: Incoming) -> Reply {
    if incoming.method == Method::OPTIONS {
        return with_cors(Reply { status: httpcrate::StatusCode::NO_CONTENT, headers: vec![], body: Bytes::new() });
    }
    let head = incoming.method == Method::HEAD;
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let method = incoming.method.clone();
    let (name, result, path) = match matched(table, incoming, id) {
        Err((e, path)) => ("", Err(e), path),
        Ok((route, rq, forwarded)) => {
            let path = rq.path.clone();
            (route.name, run(app, route, rq, forwarded).await, path)
        }
    };
    let log = app.log();
    let mut reply = match result {
        Ok(reply) => reply,
        Err(e) => {
            if let Error::Internal(_) = e {
                error!(log, "request failed"; "request" => id, "method" => %method, "path" => &path, "error" => %e);
            }
            Reply::error(&e)
        }
    };
    slog::debug!(log, "answered"; "request" => id, "method" => %method, "path" => &path, "status" => reply.status.as_u16());
    crate::metrics::count_response(&method, name, reply.status.as_u16());
    if head {
        reply.body = Bytes::new();
    }
    with_cors(reply)
}

type Matched<A> = (Arc<Route<A>>, Rq, bool);

fn matched<A>(table: &Table<A>, incoming: Incoming, id: u64) -> Result<Matched<A>, (Error, String)> {
    let found = match table.find(&incoming.method, &incoming.path) {
        Ok(f) => f,
        Err(e) => return Err((e, incoming.path)),
    };
    let mut args = Vec::with_capacity(found.args.len());
    for (name, raw) in found.args {
        match percent_decode_str(&raw).decode_utf8() {
            // PostgreSQL can't store NUL, so nothing is called so.
            Ok(v) if v.contains('\0') => {
                let e = Error::invalid_param(format!("Path parameter {name} contains NUL"));
                return Err((e, incoming.path));
            }
            Ok(v) => args.push((name, v.into_owned())),
            Err(_) => {
                let e = Error::invalid_param(format!("Path parameter {name} is not valid UTF-8"));
                return Err((e, incoming.path));
            }
        }
    }
    let query = serde_urlencoded::from_str(&incoming.raw_query).unwrap_or_default();
    let rq = Rq {
        method: incoming.method,
        path: incoming.path,
        raw_query: incoming.raw_query,
        args,
        query,
        headers: incoming.headers,
        body: incoming.body,
        ip: incoming.ip,
        id,
        route: found.route.name,
    };
    Ok((found.route, rq, incoming.forwarded))
}

async fn run<A: App>(app: &A, route: Arc<Route<A>>, rq: Rq, forwarded: bool) -> Result<Reply> {
    let timer = Timer::start(&rq.method, route.name);
    if !forwarded && let Some(instance) = app.elsewhere(route.on, &rq).await? {
        return app.forward(&instance, &rq).await;
    }
    let caller = match route.access {
        Access::Open => Caller::Anybody,
        Access::Replication => {
            app.check_replication(&rq)?;
            Caller::Anybody
        }
        Access::Server => Caller::Server(app.authenticate_server(&rq).await?),
        access => Caller::User(app.authenticate(&rq, access).await?),
    };
    let turn = match route.rate {
        Rate::None => None,
        rate => app.limit(rate, &caller, &rq).await?,
    };
    let (is_read, id) = (rq.method == Method::GET, rq.id);
    let handler = (route.handler)(app.clone(), caller, rq);
    let work = async move {
        let result = handler.await;
        drop(turn);
        result
    };
    let result = if is_read { work.await } else { finish_alone(app, id, work).await };
    timer.stop();
    result
}

/// A write goes on to its end even if the client hangs up.
async fn finish_alone<A: App>(
    app: &A,
    id: u64,
    work: impl Future<Output = Result<Reply>> + Send + 'static,
) -> Result<Reply> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(e) => {
            info!(app.log(), "handler did not finish"; "request" => id);
            Err(Error::internal(format!("handler stopped: {e}")))
        }
    }
}

/// Browsers may call from anywhere (spec: "Web Browser Clients").
fn with_cors(mut reply: Reply) -> Reply {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization, Date"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Synapse-Trace-Id, Server"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::SERVER, concat!("Plexus/", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in headers {
        if !reply.headers.iter().any(|(n, _)| *n == name) {
            reply.headers.push((name, HeaderValue::from_static(value)));
        }
    }
    reply
}

impl Resource {
    /// The resource that serves a path: how a forwarded request finds its table.
    pub fn of_path(path: &str) -> Self {
        match path {
            p if p.starts_with("/_matrix/federation") => Resource::Federation,
            p if p.starts_with("/_matrix/key") => Resource::Keys,
            p if p.starts_with("/_matrix/media") => Resource::Media,
            p if p.starts_with("/_synapse/replication") => Resource::Replication,
            p if p.starts_with("/_synapse/metrics") => Resource::Metrics,
            p if p.starts_with("/health") => Resource::Health,
            _ => Resource::Client,
        }
    }
}

impl On {
    /// Whether another process may have to answer.
    pub fn is_owned(self) -> bool {
        matches!(self, On::RoomShard | On::Writer(_) | On::Main)
    }
}
