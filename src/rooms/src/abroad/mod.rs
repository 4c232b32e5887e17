//! What our users do in rooms that other servers are in and this one is not, and what it takes of other
//! servers' word: joining, knocking, declining invites, inviting their users (spec: Server-Server API).

mod backfill;
mod change;
mod elsewhere;
mod invite;
mod join;
mod knock;
mod leave;
mod listing;
mod servers;
mod verify;

use crate::Rooms;
use fedclient::{FedError, escape};
use futures::FutureExt;
use rules::proposal::{Proposal, accept};
use rules::{Built, build::rules_of};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Map, Value};
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;
use types::{Error, EventFormat, Result, room_version};

/// A path below `/_matrix/federation/`; `args` become its last segments.
pub(crate) fn path(endpoint: &str, args: &[&str]) -> String {
    let mut path = format!("/_matrix/federation/{endpoint}");
    for arg in args {
        path.push('/');
        path.push_str(&escape(arg));
    }
    path
}

/// Adds a parameter to a path.
pub(crate) fn with_param(mut path: String, name: &str, value: &str) -> String {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(name);
    path.push('=');
    path.push_str(&escape(value));
    path
}

/// What an unanswered or refused request means where other servers may be asked: those we may not speak to are like
/// those that do not answer.
pub(crate) fn unanswered(e: FedError) -> Error {
    match e {
        FedError::Denied(_) => Error::client(502, "M_UNKNOWN", e.to_string()),
        other => other.into(),
    }
}

/// 502: another server may do better.
pub(crate) fn bad_answer(server: &ServerName, what: &str) -> Error {
    Error::client(502, "M_UNKNOWN", format!("{server} gave an unusable answer: {what}"))
}

/// One change of membership at a time in a room abroad.
#[derive(Default)]
pub(crate) struct Turns(dashmap::DashMap<OwnedRoomId, Weak<Mutex<()>>>);

impl Turns {
    pub fn of(&self, room_id: &RoomId) -> Arc<Mutex<()>> {
        // Those nobody waits for are of no use any more.
        self.0.retain(|_, turn| turn.strong_count() > 0);
        let mut entry = self.0.entry(room_id.to_owned()).or_default();
        if let Some(turn) = entry.upgrade() {
            return turn;
        }
        let turn = Arc::new(Mutex::new(()));
        *entry = Arc::downgrade(&turn);
        turn
    }
}

/// A membership event another server helped to make.
pub(crate) struct Proposed {
    pub server: OwnedServerName,
    pub version: RoomVersionId,
    pub built: Built,
}

/// A change of membership through other servers.
#[derive(Clone, Copy)]
pub(crate) struct Abroad<'a> {
    pub room_id: &'a RoomId,
    pub user_id: &'a UserId,
    /// `join`, `leave` or `knock`.
    pub membership: &'a str,
    pub servers: &'a [OwnedServerName],
    pub content: &'a Map<String, Value>,
}

impl Rooms {
    /// `make_join`, `make_leave` or `make_knock` at the first server that answers, and the event we make of it.
    pub(crate) async fn propose(&self, wanted: Abroad<'_>) -> Result<Proposed> {
        let endpoint = format!("make_{}", wanted.membership);
        let mut path = path(&format!("v1/{endpoint}"), &[wanted.room_id.as_str(), wanted.user_id.as_str()]);
        if wanted.membership != "leave" {
            for version in room_version::SUPPORTED {
                path = with_param(path, "ver", version.as_str());
            }
        }
        let go_on: &[&str] = match wanted.membership {
            "join" => &["M_NOT_FOUND", "M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN"],
            _ => &["M_NOT_FOUND"],
        };
        let path = &path;
        let ask = |server: OwnedServerName| {
            async move {
                let answer = self.fed.get(server.as_str(), path).await.map_err(unanswered)?;
                self.accept_proposal(&server, wanted, answer)
            }
            .boxed()
        };
        self.first_answer(&endpoint, wanted.servers, go_on, ask).await
    }

    fn accept_proposal(&self, server: &ServerName, wanted: Abroad<'_>, answer: Value) -> Result<Proposed> {
        let Value::Object(mut answer) = answer else { return Err(bad_answer(server, "it is not an object")) };
        // The oldest servers do not say it, and their rooms are of version 1 or 2, which look alike.
        let version = match answer.get("room_version") {
            None => RoomVersionId::V1,
            Some(Value::String(v)) => RoomVersionId::try_from(v.as_str()).map_err(|_| unsupported())?,
            Some(_) => return Err(unsupported()),
        };
        if !room_version::SUPPORTED.contains(&version) {
            return Err(unsupported());
        }
        if wanted.membership == "knock" && !rules_of(&version)?.authorization.knocking {
            return Err(Error::client(400, "M_FORBIDDEN", "This room version does not support knocking"));
        }
        let Some(Value::Object(template)) = answer.remove("event") else { return Err(bad_answer(server, "event")) };
        let chosen_id = (EventFormat::of(&version) == EventFormat::V1).then(|| self.new_event_id()).transpose()?;
        let proposal = Proposal {
            version: &version,
            room_id: wanted.room_id,
            user_id: wanted.user_id,
            membership: wanted.membership,
            template,
            content: wanted.content.clone(),
            origin_server_ts: self.cx.now_ms(),
            chosen_id,
        };
        let built = accept(proposal, &self.writing.signer)?;
        Ok(Proposed { server: server.to_owned(), version, built })
    }
}

fn unsupported() -> Error {
    Error::client(400, "M_UNSUPPORTED_ROOM_VERSION", "Homeserver does not support this room version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_escaped_in_paths() {
        let join = path("v1/make_join", &["!r/1:a.b", "@u:s:80"]);
        assert_eq!(join, "/_matrix/federation/v1/make_join/%21r%2F1%3Aa.b/%40u%3As%3A80");
        let two = with_param(with_param(join, "ver", "1"), "ver", "a&b");
        assert!(two.ends_with("?ver=1&ver=a%26b"));
    }

    #[test]
    fn turns_are_kept_while_somebody_has_them() {
        let turns = Turns::default();
        let room = ruma::room_id!("!r:a");
        let first = turns.of(room);
        assert!(Arc::ptr_eq(&first, &turns.of(room)));
        drop(first);
        turns.of(ruma::room_id!("!other:a"));
        assert!(!turns.0.contains_key(room));
    }
}
