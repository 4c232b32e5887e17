//! Query parameters that several chapters share.

use http::Rq;
use rooms::history::Paging;
use store::pages::Dir;
use types::filter::EventFilter;
use types::{Error, OwnedEventId, Result, StreamToken};

/// Most events one page may hold.
pub const MAX_LIMIT: i64 = 1000;

/// `dir`, with a default.
pub fn dir(rq: &Rq, default: Dir) -> Result<Dir> {
    match rq.param("dir") {
        None => Ok(default),
        Some("f") => Ok(Dir::Forwards),
        Some("b") => Ok(Dir::Backwards),
        Some(_) => Err(Error::invalid_param("Query parameter 'dir' must be one of ['f', 'b']")),
    }
}

/// `limit`, with a default; negative is refused.
pub fn limit(rq: &Rq, default: i64) -> Result<usize> {
    let limit = rq.int_param("limit")?.unwrap_or(default);
    if limit < 0 {
        return Err(Error::invalid_param("Query parameter 'limit' must be a positive integer."));
    }
    Ok(limit.min(MAX_LIMIT) as usize)
}

fn token(rq: &Rq, name: &str) -> Result<Option<StreamToken>> {
    match rq.param(name) {
        // `END` is what clients of old gave for "from the end".
        None | Some("" | "END") => Ok(None),
        Some(t) => {
            StreamToken::parse(t).map(Some).map_err(|_| Error::bad_request(format!("'{name}' parameter is invalid")))
        }
    }
}

/// `dir`, `from`, `to`, `limit`.
pub fn paging(rq: &Rq, default_limit: i64, default_dir: Dir) -> Result<Paging> {
    Ok(Paging {
        dir: dir(rq, default_dir)?,
        from: token(rq, "from")?,
        to: token(rq, "to")?,
        limit: limit(rq, default_limit)?,
    })
}

/// `filter`: a `RoomEventFilter` as JSON.
pub fn filter(rq: &Rq) -> Result<Option<EventFilter>> {
    let Some(json) = rq.param("filter") else { return Ok(None) };
    serde_json::from_str(json).map(Some).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => Error::bad_json(format!("filter: {e}")),
        _ => Error::not_json(format!("Query parameter 'filter' must be valid JSON: {e}")),
    })
}

/// Path parameter `event_id`; what is no event id names no event.
pub fn event_id(rq: &Rq, name: &str) -> Result<OwnedEventId> {
    let id = rq.arg(name)?;
    OwnedEventId::try_from(id).map_err(|_| Error::not_found("Event not found."))
}
