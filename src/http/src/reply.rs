//! What handlers answer.

use bytes::Bytes;
use httpcrate::header::{CONTENT_TYPE, HeaderName};
use httpcrate::{HeaderValue, StatusCode};
use serde::Serialize;
use types::{Error, Result};

/// A complete response.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json<T: Serialize + ?Sized>(body: &T) -> Result<Self> {
        Self::json_with(StatusCode::OK, body)
    }

    pub fn json_with<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Result<Self> {
        Ok(Self::bytes(status, "application/json", serde_json::to_vec(body)?.into()))
    }

    /// 200 `{}`.
    pub fn empty() -> Self {
        Self::bytes(StatusCode::OK, "application/json", Bytes::from_static(b"{}"))
    }

    pub fn bytes(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        Self { status, headers: vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))], body }
    }

    pub fn redirect(location: &str) -> Result<Self> {
        let location = HeaderValue::from_str(location)?;
        Ok(Self {
            status: StatusCode::FOUND,
            headers: vec![(httpcrate::header::LOCATION, location)],
            body: Bytes::new(),
        })
    }

    /// The response to an error; internal ones say nothing about their cause.
    pub fn error(e: &Error) -> Self {
        let (status, body) = match e {
            Error::Client(c) => (c.status, c.body()),
            Error::Internal(_) => (500, serde_json::json!({"errcode": "M_UNKNOWN", "error": "Internal server error"})),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::bytes(status, "application/json", body.to_string().into())
    }
}

/// Anything a handler may return.
pub trait IntoReply {
    fn into_reply(self) -> Result<Reply>;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Result<Reply> {
        Ok(self)
    }
}

/// `{}`.
impl IntoReply for () {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::empty())
    }
}

impl IntoReply for serde_json::Value {
    fn into_reply(self) -> Result<Reply> {
        Reply::json(&self)
    }
}

impl IntoReply for Box<serde_json::value::RawValue> {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::bytes(StatusCode::OK, "application/json", String::from(Box::<str>::from(self)).into()))
    }
}

/// A typed JSON body.
pub struct Json<T>(pub T);

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Result<Reply> {
        Reply::json(&self.0)
    }
}
