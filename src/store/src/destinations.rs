//! Other servers and how they were reached last: table `destinations`.

use crate::server_keys::ServerKeyCache;
use crate::{Cache, Registry, Store, transaction};
use types::{Boxed, Result};

/// A server that did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Since when. Milliseconds.
    pub failure_ms: Option<i64>,
    /// The last attempt. Milliseconds.
    pub last_ms: i64,
    /// For how long after it no other is made. Milliseconds.
    pub interval_ms: i64,
}

/// Caches of what is known of other servers.
pub(crate) struct FederationCaches {
    pub server_keys: ServerKeyCache,
    pub retries: Cache<String, Option<Retry>>,
}

impl FederationCaches {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            server_keys: registry.cache("_get_server_keys_json", 10_000),
            retries: registry.cache("get_destination_retry_timings", 10_000),
        }
    }
}

impl Store {
    /// How a server failed last; None if it answered, or was never tried.
    pub fn destination_retry<'a>(&'a self, destination: &'a str) -> Boxed<'a, Result<Option<Retry>>> {
        Box::pin(async move {
            let load = async {
                let sql = "SELECT failure_ts, retry_last_ts, retry_interval FROM destinations
                           WHERE destination = $1 AND retry_last_ts > 0 AND retry_interval > 0";
                let row = self.db.query_opt(sql, &[&destination]).await?;
                Ok(row.map(|r| Retry { failure_ms: r.get(0), last_ms: r.get(1), interval_ms: r.get(2) }))
            };
            self.federation.retries.get_or_load(&destination.to_owned(), load).await
        })
    }

    /// Notes a failure, or (None) that the server answers again. Of two processes' failures the longer one stays.
    pub fn set_destination_retry<'a>(&'a self, destination: &'a str, retry: Option<Retry>) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let retry = retry.unwrap_or(Retry { failure_ms: None, last_ms: 0, interval_ms: 0 });
            transaction!(self, "set_destination_retry_timings", |tx| {
                tx.run(
                    "INSERT INTO destinations (destination, failure_ts, retry_last_ts, retry_interval)
                     VALUES ($1, $2, $3, $4)
                     ON CONFLICT (destination) DO UPDATE SET failure_ts = EXCLUDED.failure_ts,
                         retry_last_ts = EXCLUDED.retry_last_ts, retry_interval = EXCLUDED.retry_interval
                     WHERE EXCLUDED.retry_interval = 0 OR EXCLUDED.retry_last_ts = 0
                        OR destinations.retry_interval IS NULL OR destinations.retry_interval < EXCLUDED.retry_interval",
                    &[&destination, &retry.failure_ms, &retry.last_ms, &retry.interval_ms],
                )
                .await?;
                tx.forget(self, &self.federation.retries, destination.to_owned()).await
            })
        })
    }
}
