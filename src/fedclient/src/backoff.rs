//! Leaving servers alone that do not answer, as told by table `destinations`, which all processes share.

use crate::{Call, Fed, FedError};
use replication::Command;
use slog::{info, warn};
use store::destinations::Retry;
use types::Boxed;

/// What is known of a destination when a request begins.
pub(crate) struct Limiter<'a> {
    fed: &'a Fed,
    destination: String,
    retry: Option<Retry>,
    keep: bool,
    on_404: bool,
}

impl Fed {
    pub(crate) async fn limiter(&self, call: &Call<'_>) -> Result<Limiter<'_>, FedError> {
        let destination = call.destination.to_owned();
        let retry = match self.0.cx.store.destination_retry(call.destination).await {
            Ok(retry) => retry,
            Err(e) => {
                warn!(self.0.cx.log, "unknown whether a server answers"; "server" => &destination, "error" => %e);
                None
            }
        };
        let until_ms = retry.map_or(0, |r| r.last_ms.saturating_add(r.interval_ms));
        if !call.ignore_backoff && until_ms > self.0.cx.now_ms() {
            return Err(FedError::BackingOff { destination, until_ms });
        }
        Ok(Limiter { fed: self, destination, retry, keep: call.ignore_backoff, on_404: call.backoff_on_404 })
    }

    /// A server gave a sign of life: it may be spoken to at once.
    pub fn mark_up<'a>(&'a self, server: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move {
            let store = &self.0.cx.store;
            match store.destination_retry(server).await {
                Ok(None) => return,
                Ok(Some(_)) => {}
                Err(e) => {
                    return warn!(self.0.cx.log, "unknown whether a server answers"; "server" => server, "error" => %e);
                }
            }
            if let Err(e) = store.set_destination_retry(server, None).await {
                return warn!(self.0.cx.log, "not noted that a server is up"; "server" => server, "error" => %e);
            }
            info!(self.0.cx.log, "server is up again"; "server" => server);
            // Nobody here may be interested.
            let _ = self.0.up.send(server.to_owned());
            self.0.cx.bus.send(Command::RemoteServerUp { server: server.to_owned() });
        })
    }

    /// How long a server is left alone still, in milliseconds since the epoch; None if it may be spoken to.
    pub async fn backing_off_until(&self, server: &str) -> types::Result<Option<i64>> {
        let retry = self.0.cx.store.destination_retry(server).await?;
        let until = retry.map(|r| r.last_ms.saturating_add(r.interval_ms));
        Ok(until.filter(|until| *until > self.0.cx.now_ms()))
    }
}

impl Limiter<'_> {
    /// Notes how the request went. A refusal says nothing about whether the server is well, but for 401 and 429:
    /// it will not take requests for a while.
    pub async fn note(self, error: Option<&FedError>) {
        let failed = match error {
            None => return self.fed.mark_up(&self.destination).await,
            Some(FedError::Refused(e)) => matches!(e.status, 401 | 429 | 500..) || (e.status == 404 && self.on_404),
            Some(FedError::Unreachable { .. }) => true,
            Some(FedError::Denied(_) | FedError::BackingOff { .. } | FedError::NoProxy(_)) => false,
        };
        if !failed || self.keep {
            return;
        }
        let cx = &self.fed.0.cx;
        let retry = longer(self.retry, &cx.config.federation, cx.now_ms());
        info!(cx.log, "server is left alone"; "server" => &self.destination, "ms" => retry.interval_ms,
              "reason" => error.map(ToString::to_string));
        if let Err(e) = cx.store.set_destination_retry(&self.destination, Some(retry)).await {
            warn!(cx.log, "not noted that a server is down"; "server" => &self.destination, "error" => %e);
        }
    }
}

fn longer(before: Option<Retry>, config: &config::federation::Federation, now_ms: i64) -> Retry {
    let interval = match before {
        Some(r) => {
            let grown =
                r.interval_ms as f64 * config.destination_retry_multiplier as f64 * rand::random_range(0.8..1.4);
            (grown as u64).min(config.destination_max_retry_interval_ms)
        }
        None => config.destination_min_retry_interval_ms,
    };
    let failure_ms = before.and_then(|r| r.failure_ms).or(Some(now_ms));
    Retry { failure_ms, last_ms: now_ms, interval_ms: i64::try_from(interval).unwrap_or(i64::MAX) }
}
