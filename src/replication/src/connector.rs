//! From the name of a process to a connection, by `instance_map`.

use config::{Config, InstanceLocation};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use types::{Error, Result};

/// Finds an instance by the authority of the URI.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Arc<Config>,
    /// There if `instance_map` has processes that want TLS.
    tls: Option<TlsConnector>,
}

impl Connector {
    /// Processes with `tls: true` are believed by the CA certificates of `worker_replication_tls_ca_path`, without it
    /// by the operating system's (or those that `SSL_CERT_FILE` names), as among Synapse's, and must have a certificate
    /// for their `host`.
    pub(crate) fn new(config: Arc<Config>) -> Result<Self> {
        let mut locations = config.workers.instance_map.values();
        let tls = match locations.any(|l| matches!(l, InstanceLocation::Tcp { tls: true, .. })) {
            true => Some(tls(config.workers.replication_ca.as_deref())?),
            false => None,
        };
        Ok(Self { config, tls })
    }

    /// Connects to an instance.
    pub(crate) async fn open(&self, name: &str) -> io::Result<Link> {
        // Hosts are case-insensitive, instance names are not.
        let map = &self.config.workers.instance_map;
        let location = map.get(name).or_else(|| map.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v));
        let io: Box<dyn Io> = match location {
            None => {
                let text = format!("instance_map has no {name:?}");
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            Some(InstanceLocation::Tcp { host, port, tls: wanted }) => {
                tcp(host, *port, self.tls.clone().filter(|_| *wanted)).await?
            }
            Some(InstanceLocation::Unix { path }) => Box::new(UnixStream::connect(path).await?),
        };
        Ok(Link { io: TokioIo::new(io), proxy: false })
    }
}

fn tls(authorities: Option<&Path>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(match authorities {
        Some(file) => CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|e| Error::internal(format!("worker_replication_tls_ca_path: {}: {e}", file.display())))?,
        None => rustls_native_certs::load_native_certs().certs,
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(client)))
}

async fn tcp(host: &str, port: u16, tls: Option<TlsConnector>) -> io::Result<Box<dyn Io>> {
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(socket)) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(tls.connect(name, socket).await?))
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a peer, TCP (with or without TLS) or unix.
pub(crate) struct Link {
    io: TokioIo<Box<dyn Io>>,
    /// The peer is to fetch what the whole URI names.
    proxy: bool,
}

impl Link {
    /// Requests name their whole URI.
    pub(crate) fn proxy(self) -> Self {
        Self { proxy: true, ..self }
    }
}

impl tower_service::Service<httpcrate::Uri> for Connector {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: httpcrate::Uri) -> Self::Future {
        let encoded = uri.host().unwrap_or_default().to_owned();
        let this = self.clone();
        Box::pin(async move {
            let name = percent_encoding::percent_decode_str(&encoded).decode_utf8_lossy().into_owned();
            this.open(&name).await
        })
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxy)
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
