//! One transaction to one server.

use crate::Sender;
use crate::queue::{Edu, QueuedEvent};
use fedclient::{Call, escape};
use ruma::EventId;
use serde_json::{Value, json};
use slog::debug;
use std::sync::atomic::{AtomicU64, Ordering};
use types::Result;

/// Events in a transaction (spec: "Transactions").
const MAX_EVENTS: usize = 50;
/// Ephemeral data in a transaction.
const MAX_EDUS: usize = 100;

/// What goes out together, and what is done when it was taken.
#[derive(Default)]
struct Transaction {
    events: Vec<QueuedEvent>,
    /// Nothing after these is known to have been sent, but for what `events` has.
    from_tables: bool,
    edus: Vec<Edu>,
    to_device_upto: Option<i64>,
    device_lists_upto: Option<i64>,
}

impl Sender {
    /// Sends one transaction, if there is anything to send. An error: it was not taken.
    pub(crate) async fn transmit(&self, destination: &str) -> Result<()> {
        let transaction = self.next(destination).await?;
        if transaction.events.is_empty() && transaction.edus.is_empty() {
            return self.taken(destination, transaction).await;
        }
        match self.put(destination, &transaction).await {
            Ok(()) => self.taken(destination, transaction).await,
            Err(e) => {
                self.missed(destination, &transaction).await?;
                Err(e)
            }
        }
    }

    async fn next(&self, destination: &str) -> Result<Transaction> {
        let mut t = Transaction::default();
        let (behind, first, to_device, device_lists) = match self.queues.get(destination) {
            Some(q) => {
                (q.behind, q.events.front().map_or(i64::MAX, |e| e.stream_ordering), q.to_device, q.device_lists)
            }
            None => return Ok(t),
        };
        if behind {
            t.events = self.missed_before(destination, first).await?;
            t.from_tables = !t.events.is_empty();
        }
        if to_device {
            self.add_to_device(destination, &mut t).await?;
        }
        if device_lists {
            let left = MAX_EDUS.saturating_sub(t.edus.len());
            let (edus, upto) = self.device_edus(destination, left).await?;
            t.edus.extend(edus);
            t.device_lists_upto = upto;
        }
        let Some(mut queue) = self.queues.get_mut(destination) else { return Ok(t) };
        if t.events.is_empty() {
            queue.behind = false;
            let n = queue.events.len().min(MAX_EVENTS);
            t.events = queue.events.drain(..n).collect();
        }
        queue.to_device &= t.to_device_upto.is_some();
        queue.device_lists &= t.device_lists_upto.is_some();
        while t.edus.len() < MAX_EDUS {
            let Some((_, edu)) = queue.edus.pop_first() else { break };
            t.edus.push(edu);
        }
        Ok(t)
    }

    /// Events the server has missed. A server that never took any has missed none: it is new.
    async fn missed_before(&self, destination: &str, first: i64) -> Result<Vec<QueuedEvent>> {
        let Some(last) = self.cx.store.last_delivered(destination).await? else { return Ok(Vec::new()) };
        let missed = self.cx.store.missed_events(destination, last, first, MAX_EVENTS as i64).await?;
        Ok(missed.into_iter().map(|(stream_ordering, event_id)| QueuedEvent { stream_ordering, event_id }).collect())
    }

    async fn add_to_device(&self, destination: &str, t: &mut Transaction) -> Result<()> {
        let messages = self.cx.store.outbound_to_device(destination, MAX_EDUS as i64 / 2).await?;
        t.to_device_upto = messages.last().map(|(id, _)| *id);
        for (_, content) in messages {
            t.edus.push(Edu { kind: "m.direct_to_device".into(), content: serde_json::from_str(&content)? });
        }
        Ok(())
    }

    async fn put(&self, destination: &str, t: &Transaction) -> Result<()> {
        let now = self.cx.now_ms();
        let me = self.cx.config.server.name.as_str();
        let edus: Vec<Value> = t
            .edus
            .iter()
            .map(|e| json!({"edu_type": e.kind, "origin": me, "destination": destination, "content": e.content}))
            .collect();
        let pdus = self.pdus(&t.events, now).await?;
        let body = json!({"origin": me, "origin_server_ts": now, "pdus": pdus, "edus": edus});
        let path = format!("/_matrix/federation/v1/send/{}", escape(&transaction_id(now)));
        let mut call = Call::put(destination, &path, &body);
        call.patient = true;
        call.backoff_on_404 = true;
        let answer = self.fed.call(call).await?;
        for (event_id, outcome) in answer["pdus"].as_object().into_iter().flatten() {
            if let Some(error) = outcome["error"].as_str() {
                debug!(self.cx.log, "a server did not take an event"; "server" => destination, "event" => event_id, "reason" => error);
            }
        }
        Ok(())
    }

    /// The events as other servers read them: of what was stored with them only their age.
    async fn pdus(&self, events: &[QueuedEvent], now_ms: i64) -> Result<Vec<Value>> {
        let ids: Vec<&EventId> = events.iter().map(|e| e.event_id.as_str().try_into()).collect::<Result<_, _>>()?;
        let found = self.cx.store.raw_events(&ids).await?;
        let mut pdus = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(raw) = found.get(id) else { continue };
            let mut event: Value = serde_json::from_str(raw.get())?;
            let age = event["unsigned"]["age_ts"].as_i64().map(|ts| json!({"age": now_ms - ts}));
            event["unsigned"] = age.unwrap_or_else(|| json!({}));
            pdus.push(event);
        }
        Ok(pdus)
    }

    async fn taken(&self, destination: &str, t: Transaction) -> Result<()> {
        let store = &self.cx.store;
        if let Some(last) = t.events.last() {
            store.set_last_delivered(destination, last.stream_ordering).await?;
        }
        if let Some(upto) = t.to_device_upto {
            store.delete_outbound_to_device(destination, upto).await?;
        }
        if let Some(upto) = t.device_lists_upto {
            store.delete_outbound_device_pokes(destination, upto).await?;
        }
        Ok(())
    }

    /// A server that never took an event, and did not take this one, has missed it from now on.
    async fn missed(&self, destination: &str, t: &Transaction) -> Result<()> {
        let store = &self.cx.store;
        match t.events.first() {
            Some(first) if !t.from_tables && store.last_delivered(destination).await?.is_none() => {
                store.set_last_delivered(destination, first.stream_ordering - 1).await
            }
            _ => Ok(()),
        }
    }
}

/// Never the same again for this server: the time, and a count within the process.
fn transaction_id(now_ms: i64) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{now_ms}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
