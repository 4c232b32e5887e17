//! Connections and transactions. Everything that talks to PostgreSQL goes through here.

use crate::IdGuard;
use crate::backend::Backend;
use crate::connect::Server;
use dashmap::DashMap;
use slog::{Logger, info, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use types::{Boxed, Error, Result};

/// Parameters of one statement.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// One connection with its prepared statements.
pub struct Conn {
    client: Client,
    backend: Backend,
    statements: DashMap<String, Statement>,
    /// Set when a transaction was abandoned half way: the connection must not be used again.
    dirty: AtomicBool,
}

/// At most this many statements stay prepared on a connection.
const MAX_STATEMENTS: usize = 600;

impl Conn {
    async fn statement(&self, sql: &str) -> Result<Statement> {
        if let Some(s) = self.statements.get(sql) {
            return Ok(s.clone());
        }
        let s = self.client.prepare(sql).await?;
        if self.statements.len() < MAX_STATEMENTS {
            self.statements.insert(sql.to_owned(), s.clone());
        }
        Ok(s)
    }

    pub fn query<'a>(&'a self, sql: &'a str, params: Params<'a>) -> Boxed<'a, Result<Vec<Row>>> {
        Box::pin(async move {
            let s = self.statement(sql).await?;
            self.client.query(&s, params).await.map_err(blame)
        })
    }

    /// Prepares a statement ahead of its first use.
    pub fn prepare<'a>(&'a self, sql: &'a str) -> Boxed<'a, Result<()>> {
        Box::pin(async move { self.statement(sql).await.map(|_| ()) })
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The connection cannot be used any more.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub fn execute<'a>(&'a self, sql: &'a str, params: Params<'a>) -> Boxed<'a, Result<u64>> {
        Box::pin(async move {
            let s = self.statement(sql).await?;
            self.client.execute(&s, params).await.map_err(blame)
        })
    }

    /// Several statements at once, without parameters or results.
    pub fn batch<'a>(&'a self, sql: &'a str) -> Boxed<'a, Result<()>> {
        Box::pin(async move { Ok(self.client.batch_execute(sql).await?) })
    }
}

/// PostgreSQL's texts cannot hold NUL: whoever sent it is at fault. Everything else is internal.
fn blame(e: tokio_postgres::Error) -> Error {
    if e.code() == Some(&SqlState::CHARACTER_NOT_IN_REPERTOIRE) {
        return Error::invalid_param("A text holds a character that cannot be stored (U+0000)");
    }
    e.into()
}

/// Makes connections, and says in the log when that begins to fail and when it works again.
#[derive(Clone)]
pub struct Manager {
    server: Server,
    away: Arc<AtomicBool>,
    log: Logger,
}

impl Manager {
    pub fn new(server: Server, log: Logger) -> Self {
        Self { server, away: Arc::default(), log }
    }

    /// Opens a connection outside the pool.
    pub fn open(&self) -> Boxed<'_, Result<Conn>> {
        Box::pin(async move {
            let opened = self.server.connect().await;
            let was_away = self.away.swap(opened.is_err(), Ordering::Relaxed);
            match &opened {
                Err(e) if !was_away => warn!(self.log, "PostgreSQL cannot be reached; waiting for it"; "reason" => %e),
                Ok(_) if was_away => info!(self.log, "PostgreSQL can be reached again"),
                _ => {}
            }
            let (client, backend) = opened?;
            Ok(Conn { client, backend, statements: DashMap::new(), dirty: AtomicBool::new(false) })
        })
    }
}

/// bb8 wants a `std::error::Error`.
#[derive(Debug)]
pub struct ConnectError(String);

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectError {}

impl bb8::ManageConnection for Manager {
    type Connection = Conn;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Conn, ConnectError> {
        self.open().await.map_err(|e| ConnectError(e.to_string()))
    }

    async fn is_valid(&self, conn: &mut Conn) -> Result<(), ConnectError> {
        if self.has_broken(conn) { Err(ConnectError("connection lost".into())) } else { Ok(()) }
    }

    fn has_broken(&self, conn: &mut Conn) -> bool {
        conn.client.is_closed() || conn.dirty.load(Ordering::Relaxed)
    }
}

pub type PooledConn = bb8::PooledConnection<'static, Manager>;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: bb8::Pool<Manager>,
    manager: Manager,
}

impl Db {
    /// `max` connections at most (Synapse's `cp_max`). Does not connect yet.
    pub fn new(server: Server, max: u32, log: Logger) -> Self {
        let manager = Manager::new(server, log);
        let pool = bb8::Pool::builder()
            .max_size(max.max(1))
            .min_idle(Some(1.min(max)))
            .connection_timeout(Duration::from_secs(10))
            .idle_timeout(Some(Duration::from_secs(300)))
            .build_unchecked(manager.clone());
        Self { pool, manager }
    }

    /// A connection of our own, outside the pool (the committer keeps one).
    pub fn dedicated(&self) -> Boxed<'_, Result<Conn>> {
        Box::pin(async move { self.manager.open().await })
    }

    /// Waits up to ten seconds; after that the request is answered 503.
    pub fn conn(&self) -> Boxed<'_, Result<PooledConn>> {
        Box::pin(async move {
            // Why (a time-out, or the server's words about user and host) is nothing for clients.
            self.pool.get_owned().await.map_err(|_| Error::unavailable(AWAY))
        })
    }

    /// One reading statement (its own transaction). Repeated if the connection was lost: where PostgreSQL restarted,
    /// every connection of the pool is.
    pub fn query<'a>(&'a self, sql: &'a str, params: Params<'a>) -> Boxed<'a, Result<Vec<Row>>> {
        Box::pin(async move {
            let mut attempt = 0;
            loop {
                match self.conn().await?.query(sql, params).await {
                    Err(e) if should_retry(&e, attempt, false) => back_off(&mut attempt).await,
                    other => return other.map_err(away),
                }
            }
        })
    }

    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// One writing statement (its own transaction); repeated after serialisation failures.
    pub fn execute<'a>(&'a self, sql: &'a str, params: Params<'a>) -> Boxed<'a, Result<u64>> {
        Box::pin(async move {
            let mut attempt = 0;
            loop {
                match self.conn().await?.execute(sql, params).await {
                    Err(e) if should_retry(&e, attempt, true) => back_off(&mut attempt).await,
                    other => return other.map_err(away),
                }
            }
        })
    }

    /// Ends the backend of a lost connection and waits until it is gone: what it did not commit by then it never
    /// will, while a lost connection alone stops no statement and no COMMIT. An error means that it may live on.
    pub(crate) async fn end(&self, backend: &Backend) -> Result<()> {
        const ASK: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2";
        let ended = async {
            while !self.query(ASK, &[&backend.pid, &backend.since]).await?.is_empty() {
                tokio::time::sleep(ENDING_PAUSE).await;
            }
            Ok(())
        };
        tokio::time::timeout(ENDING, ended).await.unwrap_or_else(|_| Err(Error::unavailable(AWAY)))
    }

    /// Begins a transaction. Use [`transaction!`](crate::transaction), which retries.
    pub fn begin<'a>(&'a self, name: &'static str) -> Boxed<'a, Result<Tx>> {
        Box::pin(async move {
            let conn = self.conn().await?;
            conn.dirty.store(true, Ordering::Relaxed);
            conn.client.batch_execute("BEGIN").await?;
            Ok(Tx { conn, db: self.clone(), name, ids: Vec::new() })
        })
    }
}

const MAX_ATTEMPTS: u32 = 8;
const AWAY: &str = "The database is not reachable at the moment";
/// Between two attempts to learn the outcome of a COMMIT that nobody waits for.
const DOUBT_PAUSE: Duration = Duration::from_millis(500);
/// How long a backend may take to end, and the pause between two looks.
const ENDING: Duration = Duration::from_secs(5);
const ENDING_PAUSE: Duration = Duration::from_millis(20);

/// Sleeps 5 ms · 2^attempt with ±50 % jitter and counts the attempt.
pub async fn back_off(attempt: &mut u32) {
    let base = 5u64 << (*attempt).min(7);
    let ms = base / 2 + rand::random_range(0..=base);
    *attempt += 1;
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn pg_error(e: &Error) -> Option<&tokio_postgres::Error> {
    match e {
        Error::Internal(e) => e.downcast_ref::<tokio_postgres::Error>(),
        Error::Client(_) => None,
    }
}

/// The server went away under us.
pub fn is_lost(e: &Error) -> bool {
    pg_error(e).is_some_and(|e| {
        e.is_closed()
            || e.code().is_some_and(|c| c.code().starts_with("57P") || c.code().starts_with("08"))
            || std::error::Error::source(e).and_then(|s| s.downcast_ref::<std::io::Error>()).is_some_and(|e| {
                // Invalid data is TLS talking: a certificate does not get better by waiting.
                e.kind() != std::io::ErrorKind::InvalidData
            })
    })
}

/// What a client is told of a lost connection: 503. Other errors stay as they are.
#[doc(hidden)]
pub fn away(e: Error) -> Error {
    if is_lost(&e) { Error::unavailable(AWAY) } else { e }
}

/// PostgreSQL cannot be reached: the connection was lost, or none was to be had.
pub fn is_away(e: &Error) -> bool {
    is_lost(e) || e.status() == 503
}

/// Serialisation failure or deadlock: another try may succeed.
pub fn is_serialisation(e: &Error) -> bool {
    pg_error(e).and_then(|e| e.code()).is_some_and(|c| c.code() == "40001" || c.code() == "40P01")
}

/// Name of the constraint that was violated.
pub fn constraint_of(e: &Error) -> Option<&str> {
    pg_error(e)?.as_db_error()?.constraint()
}

/// A unique or foreign-key constraint was violated.
pub fn is_constraint(e: &Error) -> bool {
    pg_error(e).and_then(|e| e.code()).is_some_and(|c| c.code().starts_with("23"))
}

/// Whether [`transaction!`](crate::transaction) should run the body again. `committing`: the failure
/// hit COMMIT, so with a lost connection nobody knows the outcome and it must not be repeated.
#[doc(hidden)]
pub fn should_retry(e: &Error, attempt: u32, committing: bool) -> bool {
    attempt < MAX_ATTEMPTS && (is_serialisation(e) || (!committing && is_lost(e)))
}

/// An open transaction. Dropped without commit, the connection is thrown away (and so rolled back).
pub struct Tx {
    conn: PooledConn,
    db: Db,
    /// For logs and `synapse_storage_transaction_time`.
    pub name: &'static str,
    ids: Vec<IdGuard>,
}

impl Tx {
    pub fn query<'a>(&'a self, sql: &'a str, params: Params<'a>) -> Boxed<'a, Result<Vec<Row>>> {
        self.conn.query(sql, params)
    }

    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    pub async fn run(&self, sql: &str, params: Params<'_>) -> Result<u64> {
        self.conn.execute(sql, params).await
    }

    /// The connection, for statements shared with the committer.
    pub(crate) fn conn(&self) -> &Conn {
        &self.conn
    }

    /// Keeps stream ids in flight until this transaction ends.
    pub(crate) fn hold(&mut self, ids: IdGuard) {
        self.ids.push(ids);
    }

    pub(crate) fn held(&mut self) -> &mut Vec<IdGuard> {
        &mut self.ids
    }

    #[doc(hidden)]
    pub fn commit(self) -> Boxed<'static, Result<()>> {
        Box::pin(async move {
            if let Err(e) = self.conn.client.batch_execute("COMMIT").await {
                let e = e.into();
                if is_lost(&e) && !self.ids.is_empty() {
                    tokio::spawn(self.announce_anyway());
                }
                return Err(e);
            }
            self.conn.dirty.store(false, Ordering::Relaxed);
            drop(self.conn);
            self.ids.into_iter().for_each(IdGuard::committed);
            Ok(())
        })
    }

    /// Nobody knows whether COMMIT happened. What is announced is looked up by who hears of it, so it does no harm
    /// to announce too much, once the outcome does not change any more.
    async fn announce_anyway(self) {
        let backend = self.conn.backend().clone();
        drop(self.conn);
        while self.db.end(&backend).await.is_err() {
            tokio::time::sleep(DOUBT_PAUSE).await;
        }
        self.ids.into_iter().for_each(IdGuard::committed);
    }

    #[doc(hidden)]
    pub fn rollback(self) -> Boxed<'static, ()> {
        Box::pin(async move {
            if self.conn.client.batch_execute("ROLLBACK").await.is_ok() {
                self.conn.dirty.store(false, Ordering::Relaxed);
            }
        })
    }
}

/// Runs a body in a transaction, again after serialisation failures or a lost connection.
///
/// `transaction!(db, "add_tag", |tx| { tx.run("INSERT …", &[…]).await?; Ok(value) })`
///
/// The body may run several times; it rolls back when it returns an error. `return` leaves the body only.
#[macro_export]
macro_rules! transaction {
    ($db:expr, $name:literal, |$tx:ident| $body:block) => {{
        let mut attempt = 0u32;
        loop {
            let mut owned = match $db.begin($name).await {
                Ok(tx) => tx,
                Err(e) if $crate::db::should_retry(&e, attempt, false) => {
                    $crate::db::back_off(&mut attempt).await;
                    continue;
                }
                Err(e) => break Err($crate::db::away(e)),
            };
            let outcome: ::types::Result<_> = async {
                #[allow(unused_mut)]
                let mut $tx = &mut owned;
                $body
            }
            .await;
            match outcome {
                Ok(value) => match owned.commit().await {
                    Ok(()) => break Ok(value),
                    Err(e) if $crate::db::should_retry(&e, attempt, true) => $crate::db::back_off(&mut attempt).await,
                    Err(e) => break Err($crate::db::away(e)),
                },
                Err(e) => {
                    owned.rollback().await;
                    if $crate::db::should_retry(&e, attempt, false) {
                        $crate::db::back_off(&mut attempt).await;
                        continue;
                    }
                    break Err($crate::db::away(e));
                }
            }
        }
    }};
}
