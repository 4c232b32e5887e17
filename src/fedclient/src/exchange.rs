//! One request and its answer: by ourselves, or by a process that may speak to other servers.

use crate::connect::{self, Connector};
use crate::{Fed, FedError};
use bytes::Bytes;
use config::FEDERATION_SCHEME;
use http_body_util::{BodyExt, Full, Limited};
use httpcrate::{HeaderMap, HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use outgoing::causes;
use std::time::Duration;
use types::{Error, Result};

/// Largest answer read, in bytes: the state of the largest rooms.
const MAX_ANSWER: usize = 128 * 1024 * 1024;
/// What is sent for another process takes no longer; longer than that process waits, unless told otherwise.
const RELAY_TIMEOUT: Duration = Duration::from_secs(90);

/// A request to a server; `path` with its query, percent-encoded.
pub(crate) fn request(
    method: Method,
    server: &str,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>> {
    let uri = format!("{FEDERATION_SCHEME}://{server}{path}");
    let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
    *request.headers_mut() = headers;
    Ok(request)
}

impl Fed {
    /// Sends a request that another process of this server has made and signed; the answer as it is.
    /// 503 if this process may not speak to other servers either.
    pub async fn relay(
        &self,
        method: Method,
        server: &str,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>> {
        if self.0.proxies.is_some() {
            return Err(Error::unavailable("This process is not in outbound_federation_restricted_to"));
        }
        let exchanged = self.exchange(server, request(method, server, path, headers, body)?);
        match tokio::time::timeout(RELAY_TIMEOUT, exchanged).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::client(502, "M_UNKNOWN", format!("{server}: no answer in time"))),
        }
    }

    pub(crate) async fn exchange(
        &self,
        server: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, FedError> {
        let lost = |reason: String| FedError::Unreachable { destination: server.to_owned(), reason };
        let response = match &self.0.proxies {
            // What happens between our processes says nothing about the server.
            Some(proxies) => proxies.request(request).await.map_err(|e| FedError::NoProxy(e.to_string()))?,
            None => self.directly(server, request).await.map_err(|e| lost(e.to_string()))?,
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| lost(e.to_string()))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn directly(&self, server: &str, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let target = self.0.discovery.target(server).await?;
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(&target.host_header)?);
        self.client()?.request(request).await.map_err(|e| Error::internal(causes(&e)))
    }

    fn client(&self) -> Result<Client<Connector, Full<Bytes>>> {
        if let Some(client) = self.0.client.get() {
            return Ok(client.clone());
        }
        let client = connect::client(&self.0.cx.config, self.0.discovery.clone())?;
        Ok(self.0.client.get_or_init(|| client).clone())
    }
}
