//! Sockets: accept loops for TCP (with or without TLS) and unix sockets, around one warp filter.

use crate::dispatch::{Incoming, dispatch};
use crate::route::App;
use crate::{Reply, Table};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use httpcrate::{HeaderMap, HeaderValue, Method, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use types::{Error, Result};
use warp::Filter;

/// Largest request body read, in bytes (media uploads have their own limit, checked by their handler).
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub usize);

/// A bound socket with what it serves.
pub struct Serving<A> {
    pub app: A,
    pub table: Arc<Table<A>>,
    /// Take the client's address from `X-Forwarded-For`.
    pub x_forwarded: bool,
    pub body_limit: BodyLimit,
    pub tls: Option<TlsAcceptor>,
}

/// Below it are, by server and path, the requests that other processes want sent (`matrix-federation://…`).
pub const FEDERATION_PROXY: &str = "/_synapse/replication/plexus_federation_proxy";

/// How long connections may take to finish after the stop signal.
const DRAIN: Duration = Duration::from_secs(10);
/// A client that does not finish its request headers within this time is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Address of the peer, put into the request's extensions by the accept loop.
#[derive(Clone, Copy)]
struct Peer(Option<IpAddr>);

impl<A: App> Serving<A> {
    /// Serves until `stop` turns true, then drains.
    pub async fn tcp(self, listener: TcpListener, stop: watch::Receiver<bool>) {
        let listener = &listener;
        let next = move || async move {
            let (socket, address) = listener.accept().await?;
            let _ = socket.set_nodelay(true);
            Ok((socket, Peer(Some(address.ip()))))
        };
        self.serve(next, stop).await;
    }

    /// As [`Serving::tcp`] on a unix socket.
    pub async fn unix(self, listener: UnixListener, stop: watch::Receiver<bool>) {
        let listener = &listener;
        let next = move || async move { Ok((listener.accept().await?.0, Peer(None))) };
        self.serve(next, stop).await;
    }

    /// Takes connections from `next` until `stop` turns true, then lets the open ones finish.
    async fn serve<S, F>(self, next: impl Fn() -> F, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = std::io::Result<(S, Peer)>>,
    {
        let this = Arc::new(self);
        let graceful = GracefulShutdown::new();
        loop {
            tokio::select! {
                _ = stopped(&mut stop) => break,
                accepted = next() => match accepted {
                    Ok((socket, peer)) => this.clone().connection(socket, peer, &graceful),
                    // Out of file descriptors, most likely: give some back before trying again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    }

    fn connection<S>(self: Arc<Self>, socket: S, peer: Peer, graceful: &GracefulShutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            match self.tls.clone() {
                None => self.speak(socket, peer, watcher).await,
                Some(tls) => {
                    if let Ok(Ok(s)) = tokio::time::timeout(HEADER_TIMEOUT, tls.accept(socket)).await {
                        self.speak(s, peer, watcher).await;
                    }
                }
            }
        });
    }

    async fn speak<S>(self: Arc<Self>, socket: S, peer: Peer, watcher: hyper_util::server::graceful::Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = warp::service(filter(self));
        let service = TowerToHyperService::new(WithPeer { service, peer });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(socket), service).into_owned();
        // Whatever ends a connection early is the client's affair.
        let _ = watcher.watch(connection).await;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means the process is going down as well.
    let _ = stop.wait_for(|s| *s).await;
}

/// Puts the peer's address into each request, and gives what is meant for another server a path here.
#[derive(Clone)]
struct WithPeer<S> {
    service: S,
    peer: Peer,
}

impl<S, B> tower_service::Service<httpcrate::Request<B>> for WithPeer<S>
where
    S: tower_service::Service<httpcrate::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: httpcrate::Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        if let Some(uri) = proxied(request.uri()) {
            *request.uri_mut() = uri;
        }
        self.service.call(request)
    }
}

/// Where a request goes that another process wants sent to the server its URI names.
fn proxied(uri: &Uri) -> Option<Uri> {
    let (scheme, server, path) = (uri.scheme_str()?, uri.authority()?, uri.path_and_query()?);
    if scheme != config::FEDERATION_SCHEME {
        return None;
    }
    format!("{FEDERATION_PROXY}/{server}{path}").parse().ok()
}

/// The one filter: takes everything, the table does the rest.
fn filter<A: App>(
    serving: Arc<Serving<A>>,
) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone {
    let raw_query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::any()
        .map(move || serving.clone())
        .and(warp::method())
        .and(warp::path::full())
        .and(raw_query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Peer>())
        .and(warp::body::stream())
        .then(answer)
}

async fn answer<A: App, B: Buf>(
    serving: Arc<Serving<A>>,
    method: Method,
    path: warp::path::FullPath,
    raw_query: String,
    headers: HeaderMap,
    peer: Peer,
    body: impl futures::Stream<Item = Result<B, warp::Error>> + Send,
) -> warp::reply::Response {
    let body = match read_body(body, serving.body_limit).await {
        Ok(b) => b,
        Err(e) => return respond(Reply::error(&e), serving.app.is_draining()),
    };
    let ip = client_ip(&headers, peer, serving.x_forwarded);
    let path = path.as_str().to_owned();
    let incoming = Incoming { method, path, raw_query, headers, body, ip, forwarded: false };
    let reply = dispatch(&serving.app, &serving.table, incoming).await;
    respond(reply, serving.app.is_draining())
}

async fn read_body<B: Buf>(
    body: impl futures::Stream<Item = Result<B, warp::Error>>,
    limit: BodyLimit,
) -> Result<Bytes> {
    let mut body = std::pin::pin!(body);
    let mut read = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|_| Error::bad_request("The request body broke off"))?;
        if read.len() + chunk.remaining() > limit.0 {
            return Err(Error::too_large(format!("Request body is larger than {} bytes", limit.0)));
        }
        while chunk.has_remaining() {
            let piece = chunk.chunk();
            read.extend_from_slice(piece);
            let n = piece.len();
            chunk.advance(n);
        }
    }
    Ok(read.freeze())
}

/// The first address of `X-Forwarded-For` if the listener trusts it, else the peer's.
fn client_ip(headers: &HeaderMap, peer: Peer, x_forwarded: bool) -> Option<IpAddr> {
    let forwarded = || {
        let value = headers.get("x-forwarded-for")?.to_str().ok()?;
        value.split(',').next()?.trim().parse().ok()
    };
    if x_forwarded { forwarded().or(peer.0) } else { peer.0 }
}

/// `last`: the connection ends with this answer, so that no request is on its way into it when it is closed.
fn respond(reply: Reply, last: bool) -> warp::reply::Response {
    let mut response = warp::reply::Reply::into_response(reply.body.to_vec());
    response.headers_mut().clear();
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    for (name, value) in reply.headers {
        headers.append(name, value);
    }
    if last {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Binds a TCP port; port 0 lets the system choose.
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(1024)?)
}

/// Binds a unix socket with permissions `mode`, replacing what a former process left. The file goes with the second.
pub fn bind_unix(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile)> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    let inode = std::fs::metadata(path)?.ino();
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

/// The file of a socket that this process has bound. It is removed in the end, since Synapse, started in our place,
/// takes one that is there for a server that runs.
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have bound the path already.
        if std::fs::metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{bind_unix, proxied};

    #[test]
    fn only_uris_of_the_federation_are_proxied() {
        let of = |uri: &str| proxied(&uri.parse().expect("URI")).map(|u| u.to_string());
        let expected = "/_synapse/replication/plexus_federation_proxy/[::1]:8448/_matrix/key/v2/server?a=%2Fb";
        assert_eq!(of("matrix-federation://[::1]:8448/_matrix/key/v2/server?a=%2Fb").as_deref(), Some(expected));
        assert_eq!(of("http://example.org/_matrix/key/v2/server"), None);
        assert_eq!(of("/_matrix/key/v2/server"), None);
    }

    #[tokio::test]
    async fn the_file_of_a_socket_goes_with_its_process_unless_it_is_anothers_by_then() {
        let path = std::env::temp_dir().join(format!("plexus-serve-{}.sock", std::process::id()));
        let first = bind_unix(&path, 0o600).expect("bound");
        let second = bind_unix(&path, 0o600).expect("bound again");
        drop(first);
        assert!(path.exists(), "the second's file");
        drop(second);
        assert!(!path.exists());
    }
}
