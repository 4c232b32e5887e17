//! Requests to other processes of the cluster, over HTTP replication.

use crate::connector::Connector;
use bytes::Bytes;
use config::Config;
use dashmap::DashMap;
use http_body_util::{BodyExt, Full};
use httpcrate::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Store, Stream};
use types::{Boxed, Error, Result, credentials};

/// One attempt at a request may take this long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer waits for rows of streams that moved at the other end.
const STREAM_WAIT: Duration = Duration::from_secs(5);
/// How long we believe to know what a peer is.
const KNOWN_FOR: Duration = Duration::from_secs(20);
/// Path that only a Plexus process answers.
pub const HELLO: &str = "/_synapse/replication/plexus_hello/";

/// The other processes of the cluster. One per process, shared.
pub struct Peers {
    config: Arc<Config>,
    store: Arc<Store>,
    client: Client<Connector, Full<Bytes>>,
    /// Whether an instance is Plexus, and since when we know.
    plexus: DashMap<String, (bool, Instant)>,
}

/// What a peer answered, whatever the status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// Why there was no answer.
enum Failure {
    /// Nothing was sent: the peer is not there.
    Connect(String),
    /// It may or may not have been carried out.
    Lost(String),
    TimedOut,
}

/// How long a peer that does not answer is tried again, with pauses that double.
struct Patience {
    first: Duration,
    /// The longest pause.
    longest: Duration,
    /// How often it is asked again although it was perhaps carried out.
    after_loss: u32,
    /// Is asked again when it takes its time.
    after_timeout: bool,
}

/// A client is waiting: about 13 s. What may be repeated is, once, if the peer went away half way.
const fn forwarding(repeatable: bool) -> Patience {
    let (first, longest) = (Duration::from_millis(100), Duration::from_secs(8));
    Patience { first, longest, after_loss: repeatable as u32, after_timeout: false }
}

/// About a minute, as Synapse; for ever where a peer takes its time over what may be repeated.
const fn calling(repeatable: bool) -> Patience {
    let (first, longest) = (Duration::from_secs(1), Duration::from_secs(32));
    Patience { first, longest, after_loss: if repeatable { u32::MAX } else { 0 }, after_timeout: repeatable }
}

impl Peers {
    pub fn new(config: Arc<Config>, store: Arc<Store>) -> Result<Self> {
        let connector = Connector::new(config.clone())?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build(connector);
        Ok(Self { config, store, client, plexus: DashMap::new() })
    }

    /// Whether an instance is a Plexus process. One that does not answer is taken for none.
    pub fn is_plexus<'a>(&'a self, instance: &'a str) -> Boxed<'a, bool> {
        Box::pin(async move {
            if let Some(known) = self.plexus.get(instance)
                && known.1.elapsed() < KNOWN_FOR
            {
                return known.0;
            }
            let asked = self.request(instance, Method::GET, HELLO, HeaderMap::new(), Bytes::new());
            match tokio::time::timeout(Duration::from_secs(5), asked).await {
                Ok(Ok(answer)) => {
                    let is = answer.status == StatusCode::OK;
                    self.plexus.insert(instance.to_owned(), (is, Instant::now()));
                    is
                }
                // Down, perhaps restarting: what it was is the best guess.
                _ => self.plexus.get(instance).is_some_and(|known| known.0),
            }
        })
    }

    /// Hands a request on and returns the answer as it is. A peer that is just restarting is waited for; `repeatable`:
    /// also if it may have begun with the request.
    pub async fn forward(
        &self,
        instance: &str,
        repeatable: bool,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer> {
        self.persistently(instance, &forwarding(repeatable), method, target, headers, body).await
    }

    /// Calls a replication endpoint: `args` become path segments, `txn` adds a transaction id so that the call
    /// can be repeated. Waits until the rows the callee wrote have arrived here. Errors of the callee are
    /// passed on as they are.
    pub fn call<'a>(
        &'a self,
        instance: &'a str,
        name: &'a str,
        args: &'a [&'a str],
        txn: bool,
        mut payload: Map<String, Value>,
    ) -> Boxed<'a, Result<Value>> {
        Box::pin(async move {
            let txn_id = credentials::letters(10);
            let mut parts: Vec<String> = args.iter().map(|a| outgoing::escape(a)).collect();
            if txn {
                parts.push(txn_id);
            }
            let target = format!("/_synapse/replication/{name}/{}", parts.join("/"));
            payload.insert(
                "_INT_STREAM_POS".into(),
                json!({
                    "instance_name": self.store.instance(),
                    "streams": own_positions(&self.store),
                }),
            );
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let body = Bytes::from(serde_json::to_vec(&payload)?);
            let answer = self.persistently(instance, &calling(txn), Method::POST, &target, headers, body).await?;
            let mut value = outcome(&answer)?;
            if let Some(positions) = value.as_object_mut().and_then(|o| o.remove("_INT_STREAM_POS")) {
                wait_for_positions(&self.store, instance, &positions).await;
            }
            Ok(value)
        })
    }

    /// `get_repl_stream_updates`: rows of an in-memory stream (or presence) in `(from, upto]`.
    pub fn stream_updates<'a>(
        &'a self,
        instance: &'a str,
        stream: Stream,
        from: i64,
        upto: i64,
    ) -> Boxed<'a, Result<Value>> {
        Box::pin(async move {
            let txn_id = credentials::letters(10);
            let target = format!(
                "/_synapse/replication/get_repl_stream_updates/{}/{txn_id}?from_token={from}&upto_token={upto}",
                stream.name()
            );
            let (headers, body) = (HeaderMap::new(), Bytes::new());
            let answer = self.persistently(instance, &calling(true), Method::GET, &target, headers, body).await?;
            outcome(&answer)
        })
    }

    /// Asks until there is an answer or `patience` is at its end.
    fn persistently<'a>(
        &'a self,
        instance: &'a str,
        patience: &'a Patience,
        method: Method,
        target: &'a str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Boxed<'a, Result<Answer>> {
        Box::pin(async move {
            let (mut wait, mut losses) = (patience.first, 0);
            loop {
                match self.request(instance, method.clone(), target, headers.clone(), body.clone()).await {
                    Ok(answer) => return Ok(answer),
                    // It is there and at work: asking again is answered by the same transaction.
                    Err(Failure::TimedOut) if patience.after_timeout => tokio::time::sleep(patience.first).await,
                    Err(failure) => {
                        let again = match failure {
                            Failure::Connect(_) => true,
                            Failure::Lost(_) => {
                                losses += 1;
                                losses <= patience.after_loss
                            }
                            Failure::TimedOut => false,
                        };
                        if !again || wait > patience.longest {
                            return Err(unreachable(instance, &failure));
                        }
                        tokio::time::sleep(wait).await;
                        wait *= 2;
                    }
                }
            }
        })
    }

    async fn request(
        &self,
        instance: &str,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let invalid = |e: &dyn std::fmt::Display| Failure::Lost(e.to_string());
        if !self.config.workers.instance_map.contains_key(instance) {
            return Err(Failure::Lost(format!("instance_map has no {instance:?}")));
        }
        if let Some(secret) = &self.config.workers.replication_secret {
            let value = format!("Bearer {}", secret.expose());
            let mut value = HeaderValue::from_str(&value).map_err(|e| invalid(&e))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let host = HeaderValue::from_str(&format!("{instance}:80")).map_err(|e| invalid(&e))?;
        headers.insert(header::HOST, host);
        // The authority only names the instance; the connector knows where it is.
        let authority = outgoing::escape(instance);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{authority}{target}"))
            .body(Full::new(body))
            .map_err(|e| invalid(&e))?;
        *request.headers_mut() = headers;
        let answered = async {
            let response = self.client.request(request).await.map_err(|e| {
                let text = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
                if e.is_connect() { Failure::Connect(text) } else { Failure::Lost(text) }
            })?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| Failure::Lost(e.to_string()))?.to_bytes();
            let skip = [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::DATE];
            let headers = head
                .headers
                .into_iter()
                .filter_map(|(n, v)| Some((n?, v)))
                .filter(|(n, _)| !skip.contains(n))
                .collect();
            Ok(Answer { status: head.status, headers, body })
        };
        tokio::time::timeout(TIMEOUT, answered).await.unwrap_or(Err(Failure::TimedOut))
    }
}

fn unreachable(instance: &str, failure: &Failure) -> Error {
    let why = match failure {
        Failure::Connect(e) | Failure::Lost(e) => e.as_str(),
        Failure::TimedOut => "timed out",
    };
    Error::client(502, "M_UNKNOWN", format!("Process {instance} of this server did not answer: {why}"))
}

/// The callee's JSON, or its Matrix error as our own.
fn outcome(answer: &Answer) -> Result<Value> {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status.is_success() {
        return Ok(value);
    }
    let text = |key: &str, default: &str| value[key].as_str().unwrap_or(default).to_owned();
    let mut error = Error::client(
        answer.status.as_u16(),
        text("errcode", "M_UNKNOWN"),
        text("error", "Another process of this server failed"),
    );
    for (key, v) in value.as_object().into_iter().flatten().filter(|(k, _)| *k != "errcode" && *k != "error") {
        error = error.with(key, v.clone());
    }
    Err(error)
}

/// `{stream: own position}` for every stream this process writes.
pub fn own_positions(store: &Store) -> Map<String, Value> {
    let mine = Stream::ALL.into_iter().filter(|s| store.streams.is_writer(*s));
    mine.map(|s| (s.name().to_owned(), json!(store.streams.own_written(s)))).collect()
}

/// Waits (5 s a stream at most) until `instance`'s streams have come here as far as it says.
pub fn wait_for_positions<'a>(store: &'a Store, instance: &'a str, positions: &'a Value) -> Boxed<'a, ()> {
    Box::pin(async move {
        let waits = positions.as_object().into_iter().flatten().filter_map(|(name, token)| {
            let (stream, token) = (Stream::by_name(name)?, token.as_i64()?);
            (stream != Stream::Federation).then(|| store.streams.wait_for(stream, instance, token, STREAM_WAIT))
        });
        futures::future::join_all(waits).await;
    })
}
