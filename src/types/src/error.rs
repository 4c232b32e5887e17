//! The one error type. Whatever reaches a client is an [`ClientError`]; everything else is internal,
//! is logged once at dispatch and answered `500 M_UNKNOWN`.

use serde_json::{Map, Value, json};
use std::borrow::Cow;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Deliberately no `std::error::Error`: that is what lets any library error become
/// [`Error::Internal`] through `?`. Errors that are the caller's fault must be mapped explicitly.
#[derive(Debug)]
pub enum Error {
    Client(Box<ClientError>),
    Internal(Box<dyn std::error::Error + Send + Sync + 'static>),
}

/// A standard error response (spec: Client-Server API, "Standard error response").
#[derive(Debug, Clone, PartialEq)]
pub struct ClientError {
    /// HTTP status.
    pub status: u16,
    pub errcode: Cow<'static, str>,
    /// Human-readable text; names the field at fault.
    pub message: Cow<'static, str>,
    /// Further top-level keys, e.g. `retry_after_ms`, `soft_logout`, `flows`.
    pub extra: Map<String, Value>,
}

impl ClientError {
    /// The JSON body of the response. An empty errcode is left out (UI auth's 401).
    pub fn body(&self) -> Value {
        let mut body = self.extra.clone();
        if !self.errcode.is_empty() {
            body.insert("errcode".into(), json!(self.errcode));
            body.insert("error".into(), json!(self.message));
        }
        Value::Object(body)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(e: E) -> Self {
        Error::Internal(Box::new(e))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Client(c) => write!(f, "{} {}: {}", c.status, c.errcode, c.message),
            Error::Internal(e) => {
                write!(f, "{e}")?;
                let mut source = e.source();
                while let Some(s) = source {
                    write!(f, ": {s}")?;
                    source = s.source();
                }
                Ok(())
            }
        }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $status:literal $code:literal;)*) => {
        $($(#[$doc])* pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::client($status, $code, message)
        })*
    };
}

impl Error {
    pub fn client(status: u16, errcode: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Error::Client(Box::new(ClientError {
            status,
            errcode: errcode.into(),
            message: message.into(),
            extra: Map::new(),
        }))
    }

    /// An internal error made from words.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::Internal(message.into().into())
    }

    constructors! {
        forbidden = 403 "M_FORBIDDEN";
        not_found = 404 "M_NOT_FOUND";
        /// The body is JSON but not of the right shape.
        bad_json = 400 "M_BAD_JSON";
        /// The body is no JSON at all.
        not_json = 400 "M_NOT_JSON";
        missing_param = 400 "M_MISSING_PARAM";
        invalid_param = 400 "M_INVALID_PARAM";
        /// 400 without a more telling code.
        bad_request = 400 "M_UNKNOWN";
        missing_token = 401 "M_MISSING_TOKEN";
        unknown_token = 401 "M_UNKNOWN_TOKEN";
        unrecognized = 404 "M_UNRECOGNIZED";
        too_large = 413 "M_TOO_LARGE";
        /// PostgreSQL or another process cannot be reached just now.
        unavailable = 503 "M_UNKNOWN";
    }

    /// 429 with the time to wait, in milliseconds.
    pub fn limit_exceeded(retry_after_ms: i64) -> Self {
        Self::client(429, "M_LIMIT_EXCEEDED", "Too Many Requests").with("retry_after_ms", retry_after_ms)
    }

    /// Adds a top-level key to a client error's body; leaves internal errors alone.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        if let Error::Client(c) = &mut self {
            c.extra.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The Matrix error code, if this error is meant for a client.
    pub fn errcode(&self) -> Option<&str> {
        match self {
            Error::Client(c) => Some(&c.errcode),
            Error::Internal(_) => None,
        }
    }

    /// The HTTP status a client gets.
    pub fn status(&self) -> u16 {
        match self {
            Error::Client(c) => c.status,
            Error::Internal(_) => 500,
        }
    }
}
