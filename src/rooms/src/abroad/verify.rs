//! Signatures and hashes of events other servers send.

use crate::Rooms;
use rules::Incoming;
use rules::build::rules_of;
use ruma::{RoomVersionId, ServerName};
use serde_json::Value;
use slog::info;
use types::{Boxed, Error, Result, canonical};

impl Rooms {
    /// Reads events and checks their signatures; those that are wrong or no events are left out. One whose content was
    /// changed is taken in its redacted form (spec: "Validating hashes and signatures on received events").
    pub(crate) fn verify_events<'a>(
        &'a self,
        version: &'a RoomVersionId,
        events: Vec<Value>,
        origin: &'a ServerName,
    ) -> Boxed<'a, Result<Vec<Incoming>>> {
        Box::pin(async move {
            let now = self.cx.now_ms();
            let left_out = |e: &Error| info!(self.cx.log, "an event is left out"; "origin" => %origin, "error" => %e);
            let mut read = Vec::with_capacity(events.len());
            for event in events {
                match rules::incoming::read(&event.to_string(), version, now) {
                    Ok(event) => read.push(event),
                    Err(e) => left_out(&e),
                }
            }
            let objects = read.iter().map(|e| e.object.clone()).collect();
            let checked = self.fed.verify_events(version, objects).await?;
            let judged = read.into_iter().zip(checked);
            Ok(judged.filter_map(|(event, checked)| checked.inspect_err(left_out).is_ok().then_some(event)).collect())
        })
    }

    /// 403 unless `server` signed an event.
    pub(crate) fn check_signed_by<'a>(
        &'a self,
        server: &'a ServerName,
        version: &'a RoomVersionId,
        json: &'a str,
    ) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let object = canonical::redacted(&canonical::parse(json)?, &rules_of(version)?.redaction)?;
            let event: Value = serde_json::from_str(&canonical::text(&object))?;
            let at = event.get("origin_server_ts").and_then(Value::as_i64).unwrap_or_default();
            let refused = |e: Error| Error::forbidden(format!("The event is not signed by {server}: {e}"));
            self.fed.verify_json(server.as_str(), &event, at).await.map_err(refused)
        })
    }
}
