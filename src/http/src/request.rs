//! A request as handlers see it.

use bytes::Bytes;
use httpcrate::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use types::{Error, OwnedEventId, OwnedRoomId, OwnedUserId, Result};

/// A matched request. Path parameters are percent-decoded after matching.
#[derive(Clone, Debug)]
pub struct Rq {
    pub method: Method,
    /// Path as received, not decoded.
    pub path: String,
    /// Query string as received, without `?`.
    pub raw_query: String,
    /// Decoded path parameters by the names in the route.
    pub args: Vec<(String, String)>,
    /// Decoded query parameters in order; a name may repeat.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The client's address (`X-Forwarded-For` if the listener trusts it); None on unix sockets without it.
    pub ip: Option<IpAddr>,
    /// Appears in this request's log lines.
    pub id: u64,
    /// Name of the matched route.
    pub route: &'static str,
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// JSON of another shape than expected: M_MISSING_PARAM if a field is not there, else M_BAD_JSON.
pub fn misshapen(what: &str, e: &serde_json::Error) -> Error {
    let text = format!("{what}: {e}");
    if e.to_string().starts_with("missing field") { Error::missing_param(text) } else { Error::bad_json(text) }
}

impl Rq {
    /// A path parameter. A name the route does not have is a programming error, answered 500.
    pub fn arg(&self, name: &str) -> Result<&str> {
        let found = self.args.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str()).ok_or_else(|| Error::internal(format!("route has no parameter {name}")))
    }

    /// A path parameter that some of the route's paths lack.
    pub fn arg_opt(&self, name: &str) -> Option<&str> {
        self.args.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn id_arg<T: TryFrom<String>>(&self, name: &str, what: &str) -> Result<T> {
        let value = self.arg(name)?;
        T::try_from(value.to_owned()).map_err(|_| Error::invalid_param(format!("{name} is not {what}: {value:?}")))
    }

    /// Path parameter `room_id`.
    pub fn room_id(&self) -> Result<OwnedRoomId> {
        self.id_arg("room_id", "a room id")
    }

    /// Path parameter `user_id`.
    pub fn user_id(&self) -> Result<OwnedUserId> {
        self.id_arg("user_id", "a user id")
    }

    /// Path parameter `event_id`.
    pub fn event_id(&self) -> Result<OwnedEventId> {
        self.id_arg("event_id", "an event id")
    }

    /// First value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a repeatable query parameter.
    pub fn params(&self, name: &str) -> Vec<&str> {
        self.query.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// An integer query parameter; malformed is 400 M_INVALID_PARAM.
    pub fn int_param(&self, name: &str) -> Result<Option<i64>> {
        let parse =
            |v: &str| v.parse().map_err(|_| Error::invalid_param(format!("Query parameter {name} must be an integer")));
        self.param(name).map(parse).transpose()
    }

    /// A boolean query parameter (`true`/`false`); malformed is 400 M_INVALID_PARAM.
    pub fn bool_param(&self, name: &str) -> Result<Option<bool>> {
        match self.param(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Error::invalid_param(format!("Query parameter {name} must be true or false"))),
        }
    }

    /// The JSON body, always an object. Not UTF-8 or not JSON: M_NOT_JSON; another shape: M_BAD_JSON, a missing
    /// field: M_MISSING_PARAM, both naming the field.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let text = std::str::from_utf8(&self.body).map_err(|_| Error::not_json("Content not JSON."))?;
        let read = serde_json::from_str(text);
        // Structures may be read from arrays, too; requests may not.
        if !text.trim_start().starts_with('{') && (read.is_ok() || is_json(text)) {
            return Err(Error::bad_json("Content must be a JSON object."));
        }
        read.map_err(|e| match e.classify() {
            serde_json::error::Category::Data => misshapen("Body", &e),
            _ => Error::not_json(format!("Content not JSON: {e}")),
        })
    }

    /// The JSON body as an object; an empty body reads as `{}`.
    pub fn json_or_empty<T: DeserializeOwned>(&self) -> Result<T> {
        if self.body.is_empty() {
            return serde_json::from_str("{}").map_err(|e| misshapen("Body", &e));
        }
        self.json()
    }

    /// The access token, from the header or (deprecated) the query.
    pub fn access_token(&self) -> Option<&str> {
        let header = self.headers.get(httpcrate::header::AUTHORIZATION).and_then(|h| h.to_str().ok());
        match header {
            Some(h) => h.strip_prefix("Bearer ").map(str::trim),
            None => self.param("access_token"),
        }
    }

    pub fn user_agent(&self) -> &str {
        self.headers.get(httpcrate::header::USER_AGENT).and_then(|h| h.to_str().ok()).unwrap_or_default()
    }
}
