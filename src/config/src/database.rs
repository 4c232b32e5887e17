//! `database` / `databases`: how to reach PostgreSQL.

use std::path::PathBuf;

use crate::read::Section;
use crate::secret::Secret;
use crate::yaml::Value;

/// The PostgreSQL database and the pool of connections to it.
#[derive(Clone, Debug)]
pub struct Database {
    /// Host name, address, or the folder of the unix socket (starts with `/`). `None`: the default socket folder.
    pub host: Option<String>,
    /// Numeric address that goes before `host` (libpq's `hostaddr`).
    pub hostaddr: Option<String>,
    /// Port, 5432 by default.
    pub port: u16,
    /// Role; `None`: the name of the system user.
    pub user: Option<String>,
    /// Password; `None`: peer or trust authentication, or `passfile`.
    pub password: Option<Secret>,
    /// A libpq password file.
    pub passfile: Option<PathBuf>,
    /// Name of the database; `None`: the role's name.
    pub dbname: Option<String>,
    /// TLS towards the server.
    pub sslmode: SslMode,
    /// PEM file of CA certificates; `system`: those of the operating system. `None`: libpq's `~/.postgresql/root.crt`.
    pub sslrootcert: Option<PathBuf>,
    /// PEM file of our certificate. `None`: `~/.postgresql/postgresql.crt` if it exists.
    pub sslcert: Option<PathBuf>,
    /// PEM file of its key. `None`: `~/.postgresql/postgresql.key`.
    pub sslkey: Option<PathBuf>,
    /// `application_name`.
    pub application_name: Option<String>,
    /// `options` of the connection, such as `-c search_path=x`.
    pub options: Option<String>,
    /// Seconds to wait for a connection.
    pub connect_timeout_s: u64,
    /// TCP keep-alive idle time in seconds.
    pub keepalives_idle_s: Option<u64>,
    /// Milliseconds after which what was sent counts as lost if nobody has acknowledged it; 0: as the system has it.
    pub tcp_user_timeout_ms: Option<u64>,
    /// Fewest connections of the pool.
    pub cp_min: u32,
    /// Most connections of the pool.
    pub cp_max: u32,
    /// Milliseconds after which a statement is given up; `None`: never.
    pub statement_timeout_ms: Option<u64>,
    /// Milliseconds after which an idle transaction is given up; `None`: never.
    pub idle_in_transaction_timeout_ms: Option<u64>,
    /// Whether a commit waits for the disk.
    pub synchronous_commit: bool,
    /// Start even if the database's locale isn't C.
    pub allow_unsafe_locale: bool,
    /// Close a connection after this many transactions; 0: never.
    pub txn_limit: u64,
}

/// libpq's `sslmode`. Says nothing for unix sockets, which never speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Without TLS if the server lets us in that way, else with.
    Allow,
    /// TLS if the server offers it, else without.
    Prefer,
    /// TLS; the certificate is only checked if there are CA certificates.
    Require,
    /// TLS with a certificate of a known CA.
    VerifyCa,
    /// TLS with a certificate for the host's name.
    VerifyFull,
}

const SSL_MODES: &[(&str, SslMode)] = &[
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// Keys of `args` that are understood or that can be ignored without harm.
const KNOWN_ARGS: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "database",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
    "options",
    "connect_timeout",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "keepalives",
    "cp_min",
    "cp_max",
    "cp_reconnect",
    "cp_noisy",
    "cp_good_sql",
    "cp_name",
    "client_encoding",
    "target_session_attrs",
    "tcp_user_timeout",
];

pub(crate) fn read(root: &Section<'_>) -> Option<Database> {
    let several = root.some("databases").filter(|n| n.value.truthy());
    let single = root.some("database").filter(|n| n.value.truthy());
    if several.is_some() && single.is_some() {
        root.error("databases", "database and databases are both set; allowed: one of them");
        return None;
    }
    if root.some("database_path").is_some_and(|n| n.value.truthy()) && single.is_none() {
        root.error("database_path", "SQLite is not supported; allowed: a PostgreSQL database under the key database");
        return None;
    }
    if several.is_some() {
        return read_several(root);
    }
    if single.is_none() {
        root.error("database", "missing; allowed: name: psycopg2 and args with the connection to PostgreSQL");
        return None;
    }
    read_one(&root.child("database"))
}

/// Synapse can spread its stores over several databases; here they must be one and the same.
fn read_several(root: &Section<'_>) -> Option<Database> {
    let mut all: Vec<Database> =
        root.named_maps("databases").iter().filter_map(|(_, section)| read_one(section)).collect();
    let first = if all.is_empty() { return None } else { all.remove(0) };
    let place = |d: &Database| (d.host.clone(), d.hostaddr.clone(), d.port, d.dbname.clone());
    if all.iter().any(|other| place(other) != place(&first)) {
        root.error("databases", "several different databases; allowed: one database that holds all data stores");
    }
    Some(first)
}

fn read_one(section: &Section<'_>) -> Option<Database> {
    let engine = section.string_or("name", "sqlite3");
    if engine != "psycopg2" {
        let message = match engine.as_str() {
            "sqlite3" => "SQLite is not supported; allowed: psycopg2 (PostgreSQL). Synapse's synapse_port_db moves an SQLite database over".to_owned(),
            other => format!("found {other:?}; allowed: psycopg2 (PostgreSQL)"),
        };
        section.error("name", message);
        return None;
    }
    let args = section.child("args");
    for (key, _) in args.map.iter() {
        if !KNOWN_ARGS.contains(&key) {
            args.warn(key, "not understood; ignored");
        }
    }
    let cp_max = args.int("cp_max", 1, 10_000).unwrap_or(10) as u32;
    let cp_min = args.int("cp_min", 0, 10_000).unwrap_or(5).min(i64::from(cp_max)) as u32;
    let timeout = |key: &str, default: u64| match section.node(key) {
        None => Some(default),
        Some(_) => section.int(key, 0, i64::MAX).map(|ms| ms as u64).filter(|ms| *ms > 0),
    };
    Some(Database {
        host: args.nonempty("host"),
        hostaddr: args.nonempty("hostaddr"),
        port: port(&args),
        user: args.nonempty("user"),
        password: password(&args),
        passfile: args.file("passfile"),
        dbname: args.nonempty("dbname").or_else(|| args.nonempty("database")),
        sslmode: args.word("sslmode", SSL_MODES).unwrap_or(SslMode::Prefer),
        sslrootcert: args.file("sslrootcert"),
        sslcert: args.file("sslcert"),
        sslkey: args.file("sslkey"),
        application_name: args.nonempty("application_name"),
        options: args.nonempty("options"),
        connect_timeout_s: text_or_number(&args, "connect_timeout").unwrap_or(10).max(1),
        keepalives_idle_s: text_or_number(&args, "keepalives_idle"),
        tcp_user_timeout_ms: text_or_number(&args, "tcp_user_timeout"),
        cp_min,
        cp_max,
        statement_timeout_ms: timeout("statement_timeout", 600_000),
        idle_in_transaction_timeout_ms: timeout("idle_in_transaction_session_timeout", 1_800_000),
        synchronous_commit: section.flag("synchronous_commit", true),
        allow_unsafe_locale: section.flag("allow_unsafe_locale", false),
        txn_limit: section.count("txn_limit", 0),
    })
}

/// libpq takes numbers as text too.
fn text_or_number(args: &Section<'_>, key: &str) -> Option<u64> {
    match args.some(key).map(|n| &n.value) {
        Some(Value::Str(text)) if text.parse::<u64>().is_ok() => text.parse().ok(),
        _ => args.int(key, 0, i64::MAX).map(|n| n as u64),
    }
}

fn port(args: &Section<'_>) -> u16 {
    match args.some("port").map(|n| &n.value) {
        Some(Value::Str(text)) if text.is_empty() => 5432,
        Some(Value::Str(text)) if text.parse::<u16>().is_ok() => text.parse().unwrap_or(5432),
        _ => args.port("port").unwrap_or(5432),
    }
}

/// A password may look like a number.
fn password(args: &Section<'_>) -> Option<Secret> {
    match args.some("password").map(|n| &n.value) {
        Some(Value::Int(number)) => Some(Secret::new(number.to_string())),
        _ => args.nonempty("password").map(Secret::new),
    }
}
