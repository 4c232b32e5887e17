//! Requests to other servers by way of the processes that may speak to them (`outbound_federation_restricted_to`).

use crate::Cx;
use crate::connector::{Connector, Link};
use bytes::Bytes;
use http_body_util::Full;
use httpcrate::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rand::seq::SliceRandom;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use types::{Error, Result};

/// Takes requests for other servers, with URIs of scheme [`config::FEDERATION_SCHEME`], to a process that sends them.
#[derive(Clone)]
pub struct Proxies {
    client: Client<Through, Full<Bytes>>,
    /// `Bearer` and the replication secret.
    authorization: HeaderValue,
}

impl Proxies {
    /// None if this process may speak to other servers itself.
    pub fn new(cx: &Cx) -> Result<Option<Self>> {
        let workers = &cx.config.workers;
        let Some(names) = workers.outbound_federation_restricted_to.as_ref().filter(|_| !cx.duties.outbound_federation)
        else {
            return Ok(None);
        };
        let secret =
            workers.replication_secret.as_ref().ok_or_else(|| Error::internal("no worker_replication_secret"))?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))?;
        authorization.set_sensitive(true);
        let through = Through { connector: Connector::new(cx.config.clone())?, names: names.as_slice().into() };
        // hyper's pool goes by the other server's name, of which there are thousands: no connection is kept.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(through);
        Ok(Some(Self { client, authorization }))
    }

    /// The answer of the other server, or of the proxy: 502 if there is none. An error: no process could be asked.
    pub async fn request(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, self.authorization.clone());
        self.client.request(request).await.map_err(|e| Error::internal(outgoing::causes(&e)))
    }
}

/// Connects to any of the processes, whatever the URI.
#[derive(Clone)]
struct Through {
    connector: Connector,
    names: Arc<[String]>,
}

impl tower_service::Service<httpcrate::Uri> for Through {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: httpcrate::Uri) -> Self::Future {
        let Self { connector, names } = self.clone();
        Box::pin(async move {
            let mut names = names.to_vec();
            names.shuffle(&mut rand::rng());
            let mut last = io::Error::new(io::ErrorKind::NotFound, "no process may speak to other servers");
            for name in names {
                match connector.open(&name).await {
                    Ok(link) => return Ok(link.proxy()),
                    Err(e) => last = io::Error::new(e.kind(), format!("process {name}: {e}")),
                }
            }
            Err(last)
        })
    }
}
