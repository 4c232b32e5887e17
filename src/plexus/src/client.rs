//! A small HTTP client for the commands that talk to a running server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port` or `https://host`, without a slash at the end.
    Url(String),
    /// A unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Reads `http://…`, `https://…` or `unix:/path`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Url(text.trim_end_matches('/').to_owned()));
        }
        Err(format!("{text:?} is no address of a server; allowed: http://…, https://… or unix:/path"))
    }
}

/// The client. Every request has half a minute.
pub struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

const PATIENCE: Duration = Duration::from_secs(30);

impl Client {
    /// A client that trusts the CA certificates of a PEM file, without one the system's.
    pub fn new(authorities: Option<&Path>) -> Result<Self, String> {
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let tls = match authorities {
            Some(file) => builder.with_tls_config(trusting(file).map_err(|e| format!("{}: {e}", file.display()))?),
            None => builder.with_native_roots().map_err(|e| format!("the system's certificates: {e}"))?,
        };
        let connector = tls.https_or_http().enable_http1().build();
        Ok(Self(legacy::Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// GET; the status and the JSON answer (null if it is none).
    pub async fn get(&self, target: &Target, path: &str, token: Option<&str>) -> Result<(u16, Value), String> {
        self.json("GET", target, path, token, None).await
    }

    /// POST of JSON.
    pub async fn post(
        &self,
        target: &Target,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<(u16, Value), String> {
        self.json("POST", target, path, token, Some(body)).await
    }

    /// PUT of JSON.
    pub async fn put(
        &self,
        target: &Target,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<(u16, Value), String> {
        self.json("PUT", target, path, token, Some(body)).await
    }

    /// GET of text.
    pub async fn text(&self, target: &Target, path: &str) -> Result<(u16, String), String> {
        let (status, bytes) = self.request("GET", target, path, None, Bytes::new()).await?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn json(
        &self,
        method: &str,
        target: &Target,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(u16, Value), String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, bytes) = self.request(method, target, path, token, body.into()).await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    async fn request(
        &self,
        method: &str,
        target: &Target,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<(u16, Bytes), String> {
        let uri = match target {
            Target::Url(base) => format!("{base}{path}"),
            Target::Unix(_) => path.to_owned(),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        // Over TCP the client sets it from the URL.
        if let Target::Unix(_) = target {
            request = request.header("host", "localhost");
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let answer = tokio::time::timeout(PATIENCE, self.exchange(target, request)).await;
        answer.unwrap_or_else(|_| Err("no answer within 30 seconds".into()))
    }

    async fn exchange(&self, target: &Target, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String> {
        let response = match target {
            Target::Url(base) => {
                self.0.request(request).await.map_err(|e| format!("can't reach {base}: {}", chain(&e)))?
            }
            Target::Unix(path) => {
                over_socket(path, request).await.map_err(|e| format!("can't reach {}: {e}", path.display()))?
            }
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|e| e.to_string())?;
        Ok((status, body.to_bytes()))
    }
}

fn trusting(file: &Path) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| e.to_string())? {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn over_socket(
    path: &PathBuf,
    request: Request<Full<Bytes>>,
) -> Result<hyper::Response<hyper::body::Incoming>, String> {
    let stream = tokio::net::UnixStream::connect(path).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| e.to_string())
}

/// An error with its causes; the outermost one of hyper says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
