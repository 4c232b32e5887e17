//! Requests to the outside: captcha, single sign-on, identity servers, delegation files of other servers.
//! Knows nothing of federation; `fedclient` builds on the same connecting and TLS.

pub mod connect;
pub mod tls;

use bytes::Bytes;
use config::Config;
use config::ip::IpRanges;
use connect::{AllowedAddresses, Ranges};
use http_body_util::{BodyExt, Full, Limited};
use httpcrate::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use types::{Boxed, Error, Result};

/// How this server introduces itself.
pub const USER_AGENT: &str = concat!("Plexus/", env!("CARGO_PKG_VERSION"));

/// A request takes no longer, from connecting to the last byte, unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Answers are not read beyond this many bytes, unless the request says otherwise.
const MAX_ANSWER: usize = 10 * 1024 * 1024;

/// The one client for everything but federation. Cheap to clone. Goes through no proxy; follows no redirects.
#[derive(Clone)]
pub struct Outgoing(Arc<Inner>);

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those signed by the system's authorities.
    System,
    /// Those signed by the authorities in these PEM files.
    Files(Vec<PathBuf>),
    /// Any.
    Anyone,
}

struct Inner {
    ranges: Ranges,
    trust: Trust,
    /// Made at the first request: reading the system's certificates takes time and memory.
    client: OnceLock<Client<HttpsConnector<HttpConnector<AllowedAddresses>>, Full<Bytes>>>,
}

/// What came back, whatever the status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request. Made by [`Outgoing::request`]'s callers through the constructors here.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    pub timeout: Duration,
    /// Largest answer in bytes.
    pub max_answer: usize,
}

impl Call {
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: TIMEOUT,
            max_answer: MAX_ANSWER,
        }
    }

    /// GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// POST with a JSON body.
    pub fn post_json(url: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, url).body("application/json", body.to_string())
    }

    /// Shows an access token. 400 if it cannot be one.
    pub fn bearer(self, token: &str) -> Result<Self> {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.map_err(|_| Error::invalid_param("not an access token"))?;
        value.set_sensitive(true);
        Ok(self.header(header::AUTHORIZATION, value))
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets a body with its content type.
    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }
}

impl Outgoing {
    /// Obeys `ip_range_blacklist` and `ip_range_whitelist`; certificates are verified unless
    /// `use_insecure_ssl_client_just_for_testing_do_not_use`.
    pub fn new(config: &Config) -> Self {
        let ranges = &config.server.ip_ranges;
        let trust = if config.tls.insecure { Trust::Anyone } else { Trust::System };
        Self::with(ranges.deny.clone(), ranges.allow.clone(), trust)
    }

    /// A client of its own rules: addresses not to connect to with exceptions, and which certificates to believe.
    pub fn with(deny: IpRanges, allow: IpRanges, trust: Trust) -> Self {
        Self(Arc::new(Inner { ranges: Ranges::new(deny, allow), trust, client: OnceLock::new() }))
    }

    /// GET.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        self.request(Call::get(url)).await
    }

    /// POST with a JSON body.
    pub async fn post_json(&self, url: &str, body: &Value) -> Result<Answer> {
        self.request(Call::post_json(url, body)).await
    }

    /// POST with an `application/x-www-form-urlencoded` body.
    pub async fn post_form(&self, url: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let body = serde_urlencoded::to_string(fields)?;
        self.request(Call::new(Method::POST, url).body("application/x-www-form-urlencoded", body)).await
    }

    /// Any request. An error means that there was no (complete) answer; what the other side says is an answer.
    pub fn request(&self, call: Call) -> Boxed<'_, Result<Answer>> {
        Box::pin(async move {
            let uri: Uri = call.url.parse().map_err(|_| Error::internal(format!("not a URL: {:?}", call.url)))?;
            self.0.ranges.check_literal(uri.host().unwrap_or_default())?;
            let mut request = Request::builder().method(call.method).uri(uri).body(Full::new(call.body))?;
            request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
            for (name, value) in call.headers {
                request.headers_mut().insert(name, value);
            }
            let client = self.client()?;
            let answered = async {
                let response = client.request(request).await.map_err(|e| Error::internal(causes(&e)))?;
                let (head, body) = response.into_parts();
                let body =
                    Limited::new(body, call.max_answer).collect().await.map_err(|e| Error::internal(e.to_string()))?;
                Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
            };
            let outcome = tokio::time::timeout(call.timeout, answered).await;
            outcome.unwrap_or_else(|_| Err(Error::internal(format!("{}: no answer in time", call.url))))
        })
    }

    fn client(&self) -> Result<Client<HttpsConnector<HttpConnector<AllowedAddresses>>, Full<Bytes>>> {
        if let Some(client) = self.0.client.get() {
            return Ok(client.clone());
        }
        let mut http = HttpConnector::new_with_resolver(AllowedAddresses(self.0.ranges.clone()));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect::TIMEOUT));
        let tls = match &self.0.trust {
            Trust::System => tls::verifying(tls::Roots::System, tls::MinimumVersion::V12)?,
            Trust::Files(files) => tls::verifying(tls::Roots::Files(files), tls::MinimumVersion::V12)?,
            Trust::Anyone => tls::unverified(tls::MinimumVersion::V12)?,
        };
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(4)
            .build(https);
        Ok(self.0.client.get_or_init(|| client).clone())
    }
}

/// What needs no encoding in a URL (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text as one segment of a path, or as a value in a query.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// An error with what caused it, in one line.
pub fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        text = format!("{text}: {s}");
        source = s.source();
    }
    text
}
