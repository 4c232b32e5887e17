//! Asking several servers in turn.

use crate::Rooms;
use futures::future::BoxFuture;
use ruma::OwnedServerName;
use std::time::Duration;
use types::{Error, Result};

/// One server may take this long; making and accepting a join can be slow in large rooms.
const PATIENCE: Duration = Duration::from_secs(120);

impl Rooms {
    /// The answer of the first server that gives one. A server that cannot be reached or fails is passed over,
    /// and so is one whose refusal has a code of `go_on`; any other refusal is the outcome. 502 when no server
    /// is left.
    pub(crate) async fn first_answer<'a, T>(
        &self,
        what: &str,
        servers: &[OwnedServerName],
        go_on: &[&str],
        ask: impl Fn(OwnedServerName) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let own = &self.cx.config.server.name;
        if servers.is_empty() {
            let text = format!("Failed to {what} via any server: No servers specified.");
            return Err(Error::client(502, "M_UNKNOWN", text));
        }
        for server in servers.iter().filter(|s| *s != own) {
            let answer = tokio::time::timeout(PATIENCE, ask(server.clone())).await;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) => e,
                Err(_) => Error::client(504, "M_UNKNOWN", "no answer in time"),
            };
            if error.status() < 500 && !error.errcode().is_some_and(|code| go_on.contains(&code)) {
                return Err(error);
            }
            slog::info!(self.cx.log, "another server could not help"; "wanted" => what, "server" => %server, "error" => %error);
        }
        Err(Error::client(502, "M_UNKNOWN", format!("Failed to {what} via any server")))
    }
}
