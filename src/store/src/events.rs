//! Reading events: `event_json`, `events`, `rejections`, `redactions`.

use crate::{Params, Store};
use ruma::{EventId, OwnedEventId, RoomVersionId};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::Arc;
use types::canonical::{self, Json};
use types::{Boxed, InternalMetadata, Pdu, Result, room_version};

/// Events by id.
pub type Events = HashMap<OwnedEventId, Arc<Pdu>>;

const SELECT_EVENTS: &str = "
    SELECT e.event_id, e.stream_ordering, e.instance_name, e.outlier, e.rejection_reason,
           ej.internal_metadata, ej.json, r.room_version, ej.format_version
    FROM events e JOIN event_json ej USING (event_id) LEFT JOIN rooms r ON r.room_id = e.room_id
    WHERE e.event_id = ANY($1)";

const SELECT_REDACTIONS: &str = "SELECT event_id, redacts FROM redactions WHERE redacts = ANY($1)";

impl Store {
    /// Events by id, redacted where a redaction applies. Unknown ids are left out; rejected events and
    /// outliers are in (look at [`Pdu::rejected`], [`Pdu::outlier`]).
    pub async fn events<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<Events> {
        let mut found = Events::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids.iter().map(AsRef::as_ref) {
            match self.event_cache.get(id.as_str()) {
                Some(e) => {
                    found.insert(id.to_owned(), e);
                }
                None => missing.push(id.as_str()),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        missing.sort_unstable();
        missing.dedup();
        let stamps: HashMap<&str, _> = missing.iter().map(|id| (*id, self.event_cache.stamp(*id))).collect();
        for event in self.load_events(&missing).await? {
            if let Some(stamp) = stamps.get(event.event_id.as_str()) {
                self.event_cache.put_since(*stamp, event.event_id.to_string(), event.clone());
            }
            found.insert(event.event_id.clone(), event);
        }
        Ok(found)
    }

    /// One event by id, as [`Store::events`].
    pub async fn event(&self, id: &EventId) -> Result<Option<Arc<Pdu>>> {
        Ok(self.events(&[id]).await?.remove(id))
    }

    /// Events in the order of `ids`; unknown ones are left out.
    pub async fn events_in_order<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<Vec<Arc<Pdu>>> {
        let found = self.events(ids).await?;
        Ok(ids.iter().filter_map(|id| found.get(id.as_ref()).cloned()).collect())
    }

    /// Stored JSON of events (federation format). Never redacted: only for what may be seen whole.
    pub async fn raw_events<I: AsRef<EventId>>(&self, ids: &[I]) -> Result<HashMap<OwnedEventId, Box<RawValue>>> {
        let wanted: Vec<&str> = ids.iter().map(|i| i.as_ref().as_str()).collect();
        let sql = "SELECT event_id, json FROM event_json WHERE event_id = ANY($1)";
        let rows = self.db.query(sql, &[&wanted]).await?;
        rows.iter().map(|r| Ok((r.get::<_, &str>(0).try_into()?, RawValue::from_string(r.get(1))?))).collect()
    }

    /// Puts an event that was just persisted into the cache.
    pub fn remember_event(&self, event: Arc<Pdu>) {
        self.event_cache.put(event.event_id.to_string(), event);
    }

    /// Drops what is derived from one event.
    pub(crate) fn forget_event(&self, id: &str) {
        self.event_cache.forget(id);
    }

    fn load_events<'a>(&'a self, ids: &'a [&'a str]) -> Boxed<'a, Result<Vec<Arc<Pdu>>>> {
        Box::pin(async move {
            let params: Params<'_> = &[&ids];
            let (rows, redactions) =
                futures::try_join!(self.db.query(SELECT_EVENTS, params), self.db.query(SELECT_REDACTIONS, params))?;
            let mut events = Vec::with_capacity(rows.len());
            for row in &rows {
                events.push(parse_row(row)?);
            }
            if !redactions.is_empty() {
                let by: Vec<&str> = redactions.iter().map(|r| r.get(0)).collect();
                let by: Vec<Pdu> =
                    self.db.query(SELECT_EVENTS, &[&by]).await?.iter().map(parse_row).collect::<Result<_>>()?;
                let by: HashMap<String, Arc<Pdu>> =
                    by.into_iter().map(|e| (e.event_id.to_string(), Arc::new(e))).collect();
                for event in &mut events {
                    let mine = redactions.iter().filter(|r| r.get::<_, &str>(1) == event.event_id.as_str());
                    let because =
                        mine.filter_map(|r| by.get(r.get::<_, &str>(0))).find(|r| redaction_applies(r, event));
                    if let Some(because) = because.cloned() {
                        redact(event, because)?;
                    }
                }
            }
            Ok(events.into_iter().map(Arc::new).collect())
        })
    }
}

fn parse_row(row: &tokio_postgres::Row) -> Result<Pdu> {
    let event_id: OwnedEventId = row.get::<_, &str>(0).try_into()?;
    let version = match row.get::<_, Option<&str>>(7) {
        Some(v) => RoomVersionId::try_from(v)?,
        // Out-of-band events of rooms we know nothing else of: the format tells enough.
        None if row.get::<_, Option<i32>>(8).unwrap_or(1) == 1 => RoomVersionId::V1,
        None => RoomVersionId::V10,
    };
    let mut pdu = Pdu::parse(row.get(6), &event_id, &version)?;
    pdu.meta = serde_json::from_str::<InternalMetadata>(row.get(5))?;
    pdu.stream_ordering = row.get(1);
    pdu.instance_name = row.get(2);
    pdu.outlier = row.get(3);
    pdu.rejected = row.get(4);
    Ok(pdu)
}

/// Whether a stored redaction is to be honoured: same room, accepted, and (v3+) by the sender's own
/// server unless its power was checked when it came in.
fn redaction_applies(redaction: &Pdu, event: &Pdu) -> bool {
    let unchecked = redaction.meta.recheck_redaction;
    redaction.room_id == event.room_id
        && redaction.rejected.is_none()
        && event.kind != "m.room.create"
        && (!unchecked || redaction.sender.server_name() == event.sender.server_name())
}

/// A copy with its content pruned: what is left of an event of an erased user.
pub fn pruned(event: &Pdu) -> Result<Pdu> {
    let mut event = event.clone();
    prune(&mut event)?;
    Ok(event)
}

/// Prunes an event's content and notes why.
pub fn redact(event: &mut Pdu, because: Arc<Pdu>) -> Result<()> {
    prune(event)?;
    event.redacted_because = Some(because);
    Ok(())
}

/// Stored JSON of an event with what a redaction leaves of it.
pub(crate) fn pruned_json(json: &str, version: &RoomVersionId) -> Result<String> {
    let rules = room_version::rules(version).unwrap_or(ruma::room_version_rules::RoomVersionRules::V1);
    let mut event = canonical::parse(json)?;
    let unsigned = event.remove("unsigned");
    let mut event = canonical::redacted(&event, &rules.redaction)?;
    if let Some(Json::Object(mut unsigned)) = unsigned {
        unsigned.retain(|k, _| k == "age_ts" || k == "replaces_state");
        event.insert("unsigned".into(), Json::Object(unsigned));
    }
    Ok(canonical::text(&event))
}

fn prune(event: &mut Pdu) -> Result<()> {
    let rules = room_version::rules(&event.room_version).unwrap_or(ruma::room_version_rules::RoomVersionRules::V1);
    let content = canonical::parse(event.content.get())?;
    let content = canonical::redacted_content(&content, &event.kind, &rules.redaction);
    event.content = RawValue::from_string(canonical::text(&content))?;
    event.unsigned.retain(|k, _| k == "replaces_state");
    if !rules.redaction.content_field_redacts {
        event.redacts = None;
    }
    Ok(())
}
