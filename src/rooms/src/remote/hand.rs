//! Handing judged events to the process that owns the room (HTTP replication `fed_send_events`).

use crate::ask::What;
use crate::prepared::{Prepared, Source, Wire};
use crate::{Rooms, Sent};
use config::StreamGroup;
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Map, Value, json};
use types::{Boxed, Error, EventFormat, Result};

/// Name of Synapse's endpoint.
const ENDPOINT: &str = "fed_send_events";
/// In the body: the owner finds out whom the events notify.
const NOTIFY: &str = "plexus_notify";
/// Events in one request at most.
const AT_ONCE: usize = 200;

impl Rooms {
    /// Lets the room's owner store events; they are committed on return. The answer tells the writer and the stream
    /// position of the last one.
    pub(crate) fn hand_remote<'a>(
        &'a self,
        room_id: &'a RoomId,
        events: Vec<Prepared>,
        backfilled: bool,
    ) -> Boxed<'a, Result<Sent>> {
        Box::pin(async move {
            let last = events.last().ok_or_else(|| Error::internal("no event to be stored"))?.pdu.event_id.clone();
            let mut sent =
                Sent { event_id: last, room_id: room_id.to_owned(), stream_ordering: 0, instance: String::new() };
            for part in events.chunks(AT_ONCE) {
                (sent.stream_ordering, sent.instance) = if self.is_mine(room_id) {
                    (self.store_remote(room_id, part, backfilled).await?, self.cx.instance.to_string())
                } else {
                    self.hand_elsewhere(room_id, part, backfilled).await?
                };
            }
            Ok(sent)
        })
    }

    async fn store_remote(&self, room_id: &RoomId, events: &[Prepared], backfilled: bool) -> Result<i64> {
        let what = || match backfilled {
            true => What::Backfill(events.to_vec()),
            false => What::Take(events.to_vec()),
        };
        let sent = self.ask(room_id, what).await?;
        Ok(sent.iter().map(|s| s.stream_ordering).max().unwrap_or_default())
    }

    async fn hand_elsewhere(&self, room_id: &RoomId, events: &[Prepared], backfilled: bool) -> Result<(i64, String)> {
        let owner = self.cx.owner(StreamGroup::Events, room_id.as_str()).to_owned();
        if !self.cx.peers.is_plexus(&owner).await {
            self.stage_notifications(room_id, events, backfilled).await?;
        }
        let wire: Vec<Value> = events.iter().map(wire).collect::<Result<_>>()?;
        let body = json!({"room_id": room_id, "backfilled": backfilled, "events": wire, NOTIFY: true});
        let body = body.as_object().cloned().unwrap_or_default();
        let answer = self.cx.peers.call(&owner, ENDPOINT, &[], true, body).await?;
        Ok((answer.get("max_stream_id").and_then(Value::as_i64).unwrap_or_default(), owner))
    }

    /// A Synapse process does not find out itself whom events notify.
    async fn stage_notifications(&self, room_id: &RoomId, events: &[Prepared], backfilled: bool) -> Result<()> {
        let placed: Vec<&Prepared> = events.iter().filter(|p| p.is_placed()).collect();
        if backfilled || placed.is_empty() {
            return Ok(());
        }
        let mut head = self.load(room_id).await?;
        if head.tips.is_empty() {
            return Ok(());
        }
        for p in placed {
            let (actions, thread) = self.notifications(&mut head, &p.pdu, rules::relation(&p.pdu).as_ref()).await?;
            self.cx.store.stage_push(&p.pdu.event_id, &actions, &thread, self.cx.now_ms()).await?;
        }
        Ok(())
    }

    /// Serves `fed_send_events`.
    pub async fn persist_federated(&self, mut body: Map<String, Value>) -> Result<Map<String, Value>> {
        let bad = |field: &str, e: serde_json::Error| Error::bad_json(format!("{field}: {e}"));
        let room_id: OwnedRoomId =
            serde_json::from_value(body.remove("room_id").unwrap_or_default()).map_err(|e| bad("room_id", e))?;
        let backfilled = body.get("backfilled").and_then(Value::as_bool).unwrap_or(false);
        let staged = !body.get(NOTIFY).and_then(Value::as_bool).unwrap_or(false);
        let wire: Vec<Wire> =
            serde_json::from_value(body.remove("events").unwrap_or_default()).map_err(|e| bad("events", e))?;
        let source = Source::Remote { staged };
        let events: Vec<Prepared> = wire.into_iter().map(|w| w.into_prepared(source)).collect::<Result<_>>()?;
        if events.iter().any(|p| p.pdu.room_id != room_id) {
            return Err(Error::bad_json("events: must be of one room"));
        }
        if !self.is_mine(&room_id) {
            return Err(Error::bad_request(format!("{room_id} is written by another process")));
        }
        let at = if events.is_empty() { 0 } else { self.store_remote(&room_id, &events, backfilled).await? };
        Ok(Map::from_iter([("max_stream_id".to_owned(), at.into())]))
    }
}

/// An event as `fed_send_events` wants it.
fn wire(p: &Prepared) -> Result<Value> {
    let pdu = &p.pdu;
    let change = pdu.state_key.as_ref().filter(|_| p.is_placed()).map(|key| json!([[pdu.kind, key, pdu.event_id]]));
    let deltas = match (&change, p.before, p.group) {
        (Some(change), Some(before), Some(group)) => json!([[before, group, change]]),
        _ => json!([]),
    };
    Ok(json!({
        "event": serde_json::from_str::<Value>(&p.json)?,
        "room_version": pdu.room_version,
        "event_format_version": EventFormat::of(&pdu.room_version) as i32,
        "internal_metadata": pdu.meta,
        "outlier": pdu.outlier,
        "rejected_reason": pdu.rejected,
        "context": {
            "state_group": p.group,
            "state_group_before_event": p.before,
            "rejected": pdu.rejected,
            "state_group_deltas": deltas,
            "state_delta_due_to_event": change,
            "app_service_id": null,
            "partial_state": false,
        },
    }))
}
