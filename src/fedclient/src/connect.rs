//! Connections to other servers. hyper pools them by the authority of the URI, which is the server's name; where that
//! is, and which certificate it must show, discovery says.

use crate::discover::{Discovery, Target};
use bytes::Bytes;
use config::Config;
use http_body_util::Full;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outgoing::connect::Ranges;
use outgoing::tls::{MinimumVersion, Roots, unverified, verifying};
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use types::Result;

/// One address of a server gets this long to answer.
const PATIENCE: Duration = Duration::from_secs(10);

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    config: Config,
    discovery: Discovery,
    ranges: Ranges,
    verifying: TlsConnector,
    unverified: TlsConnector,
}

/// A client for signed requests.
pub(crate) fn client(config: &Config, discovery: Discovery) -> Result<Client<Connector, Full<Bytes>>> {
    let minimum = match config.tls.minimum_version.as_str() {
        "1.3" => MinimumVersion::V13,
        _ => MinimumVersion::V12,
    };
    let roots = match &config.tls.custom_ca {
        Some(files) => Roots::Files(files),
        None => Roots::System,
    };
    let ranges = &config.server.ip_ranges;
    let connector = Connector(Arc::new(Inner {
        discovery,
        ranges: Ranges::new(ranges.federation_deny.clone(), ranges.federation_allow.clone()),
        verifying: TlsConnector::from(Arc::new(verifying(roots, minimum)?)),
        unverified: TlsConnector::from(Arc::new(unverified(minimum)?)),
        config: config.clone(),
    }));
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(120))
        .pool_max_idle_per_host(5)
        .build(connector))
}

impl Inner {
    async fn connect(&self, server: &str) -> std::io::Result<Stream> {
        let target = self.discovery.target(server).await?;
        let tcp = self.dial(&target).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(target.tls_name.clone()).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?;
        let tls = if self.config.tls.must_verify(&target.tls_name) { &self.verifying } else { &self.unverified };
        let tls = tokio::time::timeout(PATIENCE, tls.connect(name, TokioIo::new(TokioIo::new(tcp)))).await;
        let tls = tls.map_err(|_| timed_out("the TLS handshake took too long"))??;
        Ok(MaybeHttpsStream::Https(TokioIo::new(tls)))
    }

    /// The first address that takes a connection.
    async fn dial(&self, target: &Target) -> std::io::Result<TcpStream> {
        let mut last = Error::new(ErrorKind::NotFound, "the server has no address");
        for (host, port) in &target.hosts {
            let addresses = match self.ranges.resolve(host, *port).await {
                Ok(addresses) => addresses,
                Err(e) => {
                    last = e;
                    continue;
                }
            };
            for address in addresses {
                match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(e)) => last = Error::new(e.kind(), format!("{address}: {e}")),
                    Err(_) => last = timed_out("the connection took too long"),
                }
            }
        }
        Err(last)
    }
}

fn timed_out(text: &'static str) -> Error {
    Error::new(ErrorKind::TimedOut, text)
}

impl tower_service::Service<httpcrate::Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: httpcrate::Uri) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move {
            let server = uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
            inner.connect(&server).await
        })
    }
}
