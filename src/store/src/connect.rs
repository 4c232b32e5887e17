//! From `database` in the configuration to a connection.

use crate::Settings;
use crate::backend::Backend;
use crate::tls::Ways;
use config::{Config, Database};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Client;
use types::{Boxed, Error, Result};

impl Settings {
    /// What the configuration says about the store of this process.
    pub fn of(config: &Config) -> Result<Self> {
        Ok(Self {
            server_name: config.server.name.clone(),
            instance: config.workers.instance_name.clone(),
            server: Server::of(&config.database)?,
            max_connections: config.database.cp_max,
            allow_unsafe_locale: config.database.allow_unsafe_locale,
            caches: config.caches.clone(),
            search: config.server.enable_search,
            ephemeral: config.server.enable_ephemeral_messages,
        })
    }
}

/// Folder libpq looks for the server's socket in when no host is given (Debian's packages).
const SOCKET_FOLDER: &str = "/var/run/postgresql";

/// A connection is lost when what was sent is not acknowledged (by the server's machine) for this long.
const UNANSWERED: Duration = Duration::from_secs(20);
/// When nothing was sent for this long, the server's machine is asked whether it is there, and again that often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A PostgreSQL server and how it is spoken to.
#[derive(Clone)]
pub struct Server {
    config: Arc<tokio_postgres::Config>,
    ways: Ways,
    /// Statements run on each new connection.
    session: Arc<str>,
}

impl Server {
    fn of(d: &Database) -> Result<Self> {
        Ok(Self { config: Arc::new(postgres(d)?), ways: Ways::of(d)?, session: session(d).into() })
    }

    /// A new connection, ready to be used.
    pub(crate) fn connect(&self) -> Boxed<'_, Result<(Client, Backend)>> {
        Box::pin(async move {
            let client = self.ways.connect(&self.config).await?;
            let answers = client.simple_query(&self.session).await?;
            let backend = Backend::of(&answers);
            Ok((client, backend.ok_or_else(|| Error::internal("PostgreSQL does not know its own connection"))?))
        })
    }
}

fn postgres(d: &Database) -> Result<tokio_postgres::Config> {
    let mut pg = tokio_postgres::Config::new();
    // The host is also the name the server's certificate is asked for.
    let host = d.host.as_deref().or(d.hostaddr.as_deref()).unwrap_or(SOCKET_FOLDER);
    if host.starts_with('/') {
        pg.host_path(host);
    } else {
        pg.host(host);
    }
    if let Some(address) = &d.hostaddr {
        pg.hostaddr(
            address
                .parse()
                .map_err(|_| Error::internal(format!("database.args.hostaddr: {address:?} is no IP address")))?,
        );
    }
    pg.port(d.port).connect_timeout(Duration::from_secs(d.connect_timeout_s));
    if let Some(user) = &d.user {
        pg.user(user);
    }
    if let Some(name) = &d.dbname {
        pg.dbname(name);
    }
    match (&d.password, &d.passfile) {
        (Some(password), _) => {
            pg.password(password.expose());
        }
        (None, Some(file)) => {
            if let Some(password) = from_passfile(file, host, d)? {
                pg.password(password);
            }
        }
        (None, None) => {}
    }
    pg.application_name(d.application_name.as_deref().unwrap_or("plexus"));
    if let Some(options) = &d.options {
        pg.options(options);
    }
    // Without these a server that the network has swallowed is waited for a quarter of an hour, or for ever.
    pg.tcp_user_timeout(d.tcp_user_timeout_ms.map_or(UNANSWERED, Duration::from_millis));
    pg.keepalives_interval(KEEPALIVE_INTERVAL);
    pg.keepalives_idle(d.keepalives_idle_s.map_or(KEEPALIVE_IDLE, Duration::from_secs));
    Ok(pg)
}

/// Finds the password in a libpq password file: `host:port:database:user:password`, `*` matches anything.
fn from_passfile(file: &Path, host: &str, d: &Database) -> Result<Option<String>> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::internal(format!("database.args.passfile: {}: {e}", file.display())))?;
    let port = d.port.to_string();
    let user = d.user.as_deref().unwrap_or_default();
    let wanted = [host, &port, d.dbname.as_deref().unwrap_or(user), user];
    Ok(text.lines().filter(|l| !l.starts_with('#')).find_map(|line| passfile_line(line, &wanted)))
}

fn passfile_line(line: &str, wanted: &[&str; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => fields.last_mut()?.extend(chars.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            c => fields.last_mut()?.push(c),
        }
    }
    let matches = fields.len() == 5 && fields.iter().zip(wanted).all(|(f, w)| f == "*" || f == w);
    matches.then(|| fields.pop()).flatten()
}

/// Statements run on each new connection. All transactions are REPEATABLE READ, as Synapse's are.
fn session(d: &Database) -> String {
    let mut sql = String::from("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    let mut set = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(sql, "; SET {name} = {value}");
    };
    set("bytea_output", &"'escape'");
    set("client_encoding", &"'UTF8'");
    set("statement_timeout", &d.statement_timeout_ms.unwrap_or(0));
    set("idle_in_transaction_session_timeout", &d.idle_in_transaction_timeout_ms.unwrap_or(0));
    if !d.synchronous_commit {
        set("synchronous_commit", &"off");
    }
    sql + "; " + Backend::WHICH
}

#[cfg(test)]
mod tests {
    use super::passfile_line;

    #[test]
    fn password_files_match_by_field() {
        let wanted = ["db", "5432", "synapse", "me"];
        assert_eq!(passfile_line(r"db:5432:*:me:a\:b:c", &wanted).as_deref(), Some("a:b:c"));
        assert_eq!(passfile_line("other:5432:*:me:x", &wanted), None);
        assert_eq!(passfile_line("db:5432", &wanted), None);
    }
}
