//! One signed request, with its attempts.

use crate::{Fed, exchange};
use bytes::Bytes;
use http_body_util::Full;
use httpcrate::{HeaderMap, HeaderValue, Method, Request, header};
use outgoing::USER_AGENT;
use serde_json::Value;
use std::time::Duration;
use types::{Boxed, ClientError, Error, Result};

/// Why there is no answer to go on with.
#[derive(Clone, Debug)]
pub enum FedError {
    /// `federation_domain_whitelist` does not have the server, or it is this one.
    Denied(String),
    /// The server did not answer before, and is left alone for now.
    BackingOff { destination: String, until_ms: i64 },
    /// The server answered, and said no. The errcode is the server's.
    Refused(ClientError),
    /// Not found, not connected, no answer in time, or one that makes no sense.
    Unreachable { destination: String, reason: String },
    /// No process that may speak to other servers (`outbound_federation_restricted_to`) answered.
    NoProxy(String),
}

impl FedError {
    /// The errcode the other server gave.
    pub fn errcode(&self) -> Option<&str> {
        match self {
            Self::Refused(e) => Some(&e.errcode),
            _ => None,
        }
    }

    /// The status the other server gave.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(e) => Some(e.status),
            _ => None,
        }
    }

    /// The server knows no such endpoint: 404 or 405 with M_UNRECOGNIZED, or without an errcode as old ones answer.
    pub fn is_unrecognized(&self) -> bool {
        matches!(self, Self::Refused(e) if matches!(e.status, 400 | 404 | 405 | 501)
            && (e.errcode == "M_UNRECOGNIZED" || (e.errcode == "M_UNKNOWN" && e.status != 400)))
    }
}

impl std::fmt::Display for FedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(server) => write!(f, "federation with {server} is not allowed"),
            Self::BackingOff { destination, .. } => write!(f, "{destination} did not answer lately and is left alone"),
            Self::Refused(e) => write!(f, "{} {}: {}", e.status, e.errcode, e.message),
            Self::Unreachable { destination, reason } => write!(f, "{destination}: {reason}"),
            Self::NoProxy(reason) => write!(f, "no process that speaks to other servers answers: {reason}"),
        }
    }
}

/// What a client is told if the handler has nothing better: the other server's answer, or 502.
impl From<FedError> for Error {
    fn from(e: FedError) -> Self {
        match e {
            // Another server's failure is not ours.
            FedError::Refused(e) if e.status >= 500 => Error::client(502, e.errcode, e.message),
            FedError::Refused(e) => Error::Client(Box::new(e)),
            FedError::Denied(server) => Error::forbidden(format!("Federation with {server} is not allowed")),
            FedError::BackingOff { destination, .. } | FedError::Unreachable { destination, .. } => {
                Error::client(502, "M_UNKNOWN", format!("Could not reach {destination}"))
            }
            FedError::NoProxy(_) => {
                Error::client(502, "M_UNKNOWN", "The process that speaks to other servers does not answer")
            }
        }
    }
}

/// One request. Constructors are for the common case; change fields for others.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub method: Method,
    pub destination: &'a str,
    /// Path with query, percent-encoded.
    pub path: &'a str,
    pub body: Option<&'a Value>,
    /// For one attempt.
    pub timeout: Option<Duration>,
    /// Attempts after the first one, if the server can't be reached or fails. None: as configured for short retries.
    pub retries: Option<u64>,
    /// Wait long between attempts (`max_long_retry_delay`), as for transactions that nobody waits for.
    pub patient: bool,
    /// Try even if the server did not answer lately; and a failure is not held against it.
    pub ignore_backoff: bool,
    /// A 404 also means that the server is gone.
    pub backoff_on_404: bool,
}

impl<'a> Call<'a> {
    fn new(method: Method, destination: &'a str, path: &'a str, body: Option<&'a Value>) -> Self {
        Self {
            method,
            destination,
            path,
            body,
            timeout: None,
            retries: None,
            patient: false,
            ignore_backoff: false,
            backoff_on_404: false,
        }
    }

    pub fn get(destination: &'a str, path: &'a str) -> Self {
        Self::new(Method::GET, destination, path, None)
    }

    pub fn post(destination: &'a str, path: &'a str, body: &'a Value) -> Self {
        Self::new(Method::POST, destination, path, Some(body))
    }

    pub fn put(destination: &'a str, path: &'a str, body: &'a Value) -> Self {
        Self::new(Method::PUT, destination, path, Some(body))
    }

    pub fn delete(destination: &'a str, path: &'a str) -> Self {
        Self::new(Method::DELETE, destination, path, None)
    }

    /// One attempt, of at most so long.
    pub fn once(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self.retries = Some(0);
        self
    }
}

impl Fed {
    /// A signed request; the answer's JSON.
    pub async fn call(&self, call: Call<'_>) -> Result<Value, FedError> {
        let destination = call.destination.to_owned();
        let body = self.call_bytes(call).await?;
        serde_json::from_slice(&body)
            .map_err(|e| FedError::Unreachable { destination, reason: format!("the answer is no JSON: {e}") })
    }

    /// As [`Fed::call`], the answer's body as it is.
    pub fn call_bytes<'a>(&'a self, call: Call<'a>) -> Boxed<'a, Result<Bytes, FedError>> {
        Box::pin(async move {
            let destination = call.destination;
            let config = &self.0.cx.config.federation;
            if !config.allows(destination) || destination == self.0.signer.server_name {
                return Err(FedError::Denied(destination.to_owned()));
            }
            let limiter = self.limiter(&call).await?;
            let retries =
                call.retries.unwrap_or(if call.patient { config.max_long_retries } else { config.max_short_retries });
            let mut attempt = 0;
            let outcome = loop {
                let outcome = self.attempt(&call).await;
                let again = match &outcome {
                    Err(FedError::Unreachable { .. } | FedError::NoProxy(_)) => true,
                    Err(FedError::Refused(e)) => e.status == 429 || e.status >= 500,
                    _ => false,
                };
                if !again || attempt >= retries {
                    break outcome;
                }
                tokio::time::sleep(pause(attempt, call.patient, config)).await;
                attempt += 1;
            };
            limiter.note(outcome.as_ref().err()).await;
            outcome
        })
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Bytes, FedError> {
        let default = Duration::from_millis(self.0.cx.config.federation.client_timeout_ms);
        match tokio::time::timeout(call.timeout.unwrap_or(default), self.ask(call)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unreachable(call, "no answer in time".into())),
        }
    }

    async fn ask(&self, call: &Call<'_>) -> Result<Bytes, FedError> {
        let request = self.request(call).map_err(|e| unreachable(call, e.to_string()))?;
        let answer = self.exchange(call.destination, request).await?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        Err(FedError::Refused(refusal(answer.status().as_u16(), answer.body())))
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>> {
        let method = call.method.as_str();
        let authorization = self.0.signer.authorization(method, call.destination, call.path, call.body)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&authorization)?);
        if call.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = call.body.map(Value::to_string).unwrap_or_default();
        exchange::request(call.method.clone(), call.destination, call.path, headers, body.into())
    }
}

fn unreachable(call: &Call<'_>, reason: String) -> FedError {
    FedError::Unreachable { destination: call.destination.to_owned(), reason }
}

/// The error in an answer; M_UNKNOWN if it is none of Matrix.
fn refusal(status: u16, body: &[u8]) -> ClientError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str, default: &str| body[key].as_str().unwrap_or(default).to_owned();
    let extra = body.as_object().into_iter().flatten().filter(|(k, _)| *k != "errcode" && *k != "error");
    ClientError {
        status,
        errcode: text("errcode", "M_UNKNOWN").into(),
        message: text("error", "The other server refused").into(),
        extra: extra.map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

/// How long to wait after an attempt: short ones from half a second on, doubling; long ones from four on, fourfold.
fn pause(attempt: u64, patient: bool, config: &config::federation::Federation) -> Duration {
    let exponent = attempt.min(16) as u32;
    let ms = match patient {
        true => 4_000u64.saturating_mul(4u64.saturating_pow(exponent)).min(config.max_long_retry_delay_ms),
        false => 500u64.saturating_mul(2u64.saturating_pow(exponent)).min(config.max_short_retry_delay_ms),
    };
    Duration::from_millis(ms).mul_f64(rand::random_range(0.8..1.4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_says_stays_what_it_is() {
        let e = refusal(403, br#"{"errcode":"M_FORBIDDEN","error":"no","room_version":"9"}"#);
        assert_eq!((e.status, &*e.errcode, &*e.message), (403, "M_FORBIDDEN", "no"));
        assert_eq!(e.extra.get("room_version"), Some(&Value::from("9")));
        assert_eq!(refusal(502, b"<html>").errcode, "M_UNKNOWN");
        let told: Error = FedError::Refused(e).into();
        assert_eq!((told.status(), told.errcode()), (403, Some("M_FORBIDDEN")));
        let broken: Error = FedError::Refused(refusal(500, b"{}")).into();
        assert_eq!(broken.status(), 502);
    }

    #[test]
    fn endpoints_that_are_not_there_are_told_from_refusals() {
        let refused = |status, body: &[u8]| FedError::Refused(refusal(status, body));
        assert!(refused(404, br#"{"errcode":"M_UNRECOGNIZED"}"#).is_unrecognized());
        assert!(refused(404, b"not found").is_unrecognized());
        assert!(!refused(404, br#"{"errcode":"M_NOT_FOUND"}"#).is_unrecognized());
        assert!(!refused(400, br#"{"errcode":"M_UNKNOWN"}"#).is_unrecognized());
    }
}
