//! One Matrix client: keep-alive connections, JSON in and out.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use httpcrate::{Method, Request};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::Result;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Percent-encodes one path segment.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A login on one base URL.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
    token: Option<String>,
}

impl Client {
    pub fn new(base: &str, token: Option<&str>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Client {
            pool: Pool::builder(TokioExecutor::new()).build(connector),
            base: base.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
        }
    }

    /// The same connections under another login.
    pub fn with_token(&self, token: &str) -> Self {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Status and body; an answer that is not JSON is an error.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(value) => {
                request = request.header("content-type", "application/json");
                Bytes::from(serde_json::to_vec(value)?)
            }
            None => Bytes::new(),
        };
        let answer = self.pool.request(request.body(Full::new(bytes))?).await?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes)?))
    }

    /// The body of an answer 200; any other status is an error.
    pub async fn ok(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.call(method, path, body).await?;
        if status != 200 {
            return Err(format!("{path}: {status} {answer}").into());
        }
        Ok(answer)
    }

    /// Sends a text message and returns the event id, which must look like one.
    pub async fn send(&self, room: &str, txn: &str, text: &str) -> Result<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", segment(room), segment(txn));
        let body = serde_json::json!({ "msgtype": "m.text", "body": text });
        let answer = self.ok(Method::PUT, &path, Some(&body)).await?;
        match answer["event_id"].as_str() {
            Some(id) if id.starts_with('$') && id.len() > 10 => Ok(id.to_owned()),
            _ => Err(format!("no event id in {answer}").into()),
        }
    }

    /// The text of a message as the server has it now.
    pub async fn text_of(&self, room: &str, event: &str) -> Result<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/event/{}", segment(room), segment(event));
        let answer = self.ok(Method::GET, &path, None).await?;
        Ok(answer["content"]["body"].as_str().unwrap_or_default().to_owned())
    }
}
