//! Which process of PostgreSQL serves a connection.

use tokio_postgres::SimpleQueryMessage;

/// The process of PostgreSQL behind a connection.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub pid: i32,
    /// When it began, in seconds since 1970: process ids are used again.
    pub since: String,
}

impl Backend {
    pub const WHICH: &str =
        "SELECT pid, extract(epoch FROM backend_start) FROM pg_stat_activity WHERE pid = pg_backend_pid()";

    /// Reads the answer to [`Self::WHICH`] among those to a session's first statements.
    pub fn of(answers: &[SimpleQueryMessage]) -> Option<Self> {
        let row = answers.iter().find_map(|m| if let SimpleQueryMessage::Row(r) = m { Some(r) } else { None })?;
        Some(Self { pid: row.get(0)?.parse().ok()?, since: row.get(1)?.to_owned() })
    }
}
