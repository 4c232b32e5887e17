//! Whether a database may be used, and making one.

use crate::Settings;
use crate::db::{Conn, Manager, is_lost};
use slog::{Logger, info, warn};
use std::time::Duration;
use types::{Error, Result};

/// The schema of Synapse 1.163.2.
pub const VERSION: i32 = 94;
/// Oldest schema version whose code may use a database we made.
const COMPAT_VERSION: i32 = 84;

/// PostgreSQL 14, as `server_version_num` counts.
const OLDEST_POSTGRES: i32 = 140_000;

const FILES: [&str; 7] = [
    include_str!("schema/v94/1_sequences.sql"),
    include_str!("schema/v94/2_tables_a_l.sql"),
    include_str!("schema/v94/3_tables_m_z.sql"),
    include_str!("schema/v94/4_indexes.sql"),
    include_str!("schema/v94/5_references.sql"),
    include_str!("schema/v94/6_triggers.sql"),
    include_str!("schema/v94/7_rows.sql"),
];

/// Pause between two looks for a PostgreSQL that is not there.
const PAUSE: Duration = Duration::from_secs(1);

/// Checks the database; makes its schema if it is empty and `create` (main only). Waits while PostgreSQL is away.
pub async fn prepare(settings: &Settings, create: bool, log: &Logger) -> Result<()> {
    let conn = connect(settings, log).await?;
    check_server(&conn, settings.allow_unsafe_locale).await?;
    if !exists(&conn).await? {
        if !create {
            return Err(Error::internal(
                "The database is empty. The main process makes the tables: start it before the workers",
            ));
        }
        make(&conn).await?;
        info!(log, "made the tables of a new database"; "schema_version" => VERSION);
        return Ok(());
    }
    check_version(&conn).await?;
    if create {
        check_domain(&conn, settings.server_name.as_str()).await?;
        conn.execute(
            "INSERT INTO schema_compat_version (lock, compat_version) VALUES ('X', $1) ON CONFLICT DO NOTHING",
            &[&COMPAT_VERSION],
        )
        .await?;
    }
    let pending = conn.query("SELECT update_name FROM background_updates", &[]).await?;
    if !pending.is_empty() {
        let names: Vec<&str> = pending.iter().map(|r| r.get(0)).collect();
        warn!(log, "Synapse has left background updates unfinished: some indexes are missing until it has run them";
            "updates" => names.join(", "));
    }
    Ok(())
}

async fn connect(settings: &Settings, log: &Logger) -> Result<Conn> {
    let manager = Manager::new(settings.server.clone(), log.clone());
    loop {
        match manager.open().await {
            Err(e) if is_lost(&e) => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
}

/// Version, encoding and locale: a sort order other than C's would corrupt indexes when the C library changes.
async fn check_server(conn: &Conn, allow_unsafe_locale: bool) -> Result<()> {
    let rows = conn
        .query(
            "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
                    datcollate::text, datctype::text
             FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await?;
    let row = rows.first().ok_or_else(|| Error::internal("PostgreSQL does not know its own database"))?;
    let (version, encoding): (i32, &str) = (row.get(0), row.get(1));
    if version < OLDEST_POSTGRES {
        return Err(Error::internal(format!("PostgreSQL {} is too old; 14 or newer is needed", version / 10_000)));
    }
    if encoding != "UTF8" {
        return Err(Error::internal(format!(
            "The database has the encoding {encoding}; it must be UTF8 (createdb --encoding=UTF8 --locale=C --template=template0)"
        )));
    }
    for (what, found) in [("LC_COLLATE", row.get::<_, &str>(2)), ("LC_CTYPE", row.get::<_, &str>(3))] {
        if found != "C" && !allow_unsafe_locale {
            return Err(Error::internal(format!(
                "The database has {what} {found}; it must be C (createdb --encoding=UTF8 --locale=C --template=template0), \
                 unless database.allow_unsafe_locale is true"
            )));
        }
    }
    Ok(())
}

async fn exists(conn: &Conn) -> Result<bool> {
    let rows = conn.query("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?;
    Ok(rows.first().is_some_and(|r| r.get(0)))
}

/// All or nothing; tables that are there already make it fail and leave everything as it was.
async fn make(conn: &Conn) -> Result<()> {
    let sql = format!("BEGIN ISOLATION LEVEL READ COMMITTED;\n{}\nCOMMIT", FILES.concat());
    let made = conn.batch(&sql).await;
    if made.is_err() {
        let _ = conn.batch("ROLLBACK").await;
    }
    made.map_err(|e| Error::internal(format!("The tables of the database could not be made: {}", detail(&e))))
}

/// PostgreSQL's own words rather than "db error".
fn detail(e: &Error) -> String {
    if let Error::Internal(e) = e
        && let Some(db) = e.downcast_ref::<tokio_postgres::Error>().and_then(|e| e.as_db_error())
    {
        return db.message().to_owned();
    }
    e.to_string()
}

async fn check_version(conn: &Conn) -> Result<()> {
    let one = |rows: Vec<tokio_postgres::Row>| rows.first().map(|r| r.get::<_, i32>(0));
    let version = one(conn.query("SELECT version FROM schema_version", &[]).await?).ok_or_else(|| {
        Error::internal("Table schema_version is empty: the database is damaged or was not made completely")
    })?;
    if version != VERSION {
        let advice = if version < VERSION {
            "Let Synapse 1.163.2 upgrade it first"
        } else {
            "It was upgraded by a newer Synapse"
        };
        return Err(Error::internal(format!(
            "The database has schema version {version}; only {VERSION} (Synapse 1.163.2) can be used. {advice}. Nothing was changed"
        )));
    }
    let compat = one(conn.query("SELECT compat_version FROM schema_compat_version", &[]).await?);
    if let Some(compat) = compat.filter(|c| *c > VERSION) {
        return Err(Error::internal(format!(
            "The database may only be used by programs that know schema version {compat}; this one knows {VERSION}. Nothing was changed"
        )));
    }
    check_deltas(conn).await
}

/// The last version's changes must all have been made.
async fn check_deltas(conn: &Conn) -> Result<()> {
    let rows = conn.query("SELECT file FROM applied_schema_deltas WHERE version = $1", &[&VERSION]).await?;
    let applied: Vec<&str> = rows.iter().map(|r| r.get(0)).collect();
    let missing: Vec<&str> = deltas_of(VERSION).filter(|f| !applied.contains(f)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::internal(format!(
        "The upgrade of the database to schema version {VERSION} is not finished (missing: {}). \
         Let Synapse 1.163.2 finish it. Nothing was changed",
        missing.join(", ")
    )))
}

/// Files recorded for a version, as the rows of a new database have them.
fn deltas_of(version: i32) -> impl Iterator<Item = &'static str> {
    let start = format!("({version}, '");
    FILES[6].lines().filter_map(move |l| l.trim().strip_prefix(&start)?.split('\'').next())
}

/// A database of another server must not be taken over.
async fn check_domain(conn: &Conn, server_name: &str) -> Result<()> {
    let rows = conn
        .query(
            "SELECT name FROM users WHERE right(name, length($1::text) + 1) <> ':' || $1::text LIMIT 1",
            &[&server_name],
        )
        .await?;
    match rows.first().map(|r| r.get::<_, &str>(0)) {
        None => Ok(()),
        Some(user) => Err(Error::internal(format!(
            "The database has users of another server ({user}), but server_name is {server_name}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delta_of_the_version_is_known() {
        let files: Vec<&str> = deltas_of(VERSION).collect();
        assert!(!files.is_empty() && files.iter().all(|f| f.starts_with("94/")), "{files:?}");
        assert!(deltas_of(93).count() > 0);
    }
}
