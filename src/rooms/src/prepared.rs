//! Events made elsewhere: by another process (HTTP replication `send_events`) or by another server (`remote`).

use ruma::{OwnedEventId, RoomVersionId};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use types::{Error, EventFormat, InternalMetadata, Pdu, Result, canonical};

/// An event as its maker hands it over. Its state groups are stored already.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) pdu: Arc<Pdu>,
    pub(crate) json: String,
    /// State group after the event; None for outliers.
    pub(crate) group: Option<i64>,
    /// State group before it.
    pub(crate) before: Option<i64>,
    pub(crate) source: Source,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A process of this server made it.
    Ours,
    /// Another server. `staged`: whom it notifies was found out already.
    Remote { staged: bool },
}

impl Prepared {
    /// The event becomes part of the room as its members see it.
    pub(crate) fn is_placed(&self) -> bool {
        self.is_accepted() && !self.pdu.meta.soft_failed
    }

    /// Its place is known, and the rules allow it.
    pub(crate) fn is_accepted(&self) -> bool {
        !self.pdu.outlier && self.pdu.rejected.is_none()
    }
}

/// One element of the body's `events`.
#[derive(Deserialize)]
pub(crate) struct Wire {
    event: Value,
    room_version: RoomVersionId,
    internal_metadata: InternalMetadata,
    #[serde(default)]
    outlier: bool,
    rejected_reason: Option<String>,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    state_group: Option<i64>,
    state_group_before_event: Option<i64>,
    rejected: Option<String>,
}

impl Wire {
    pub(crate) fn into_prepared(self, source: Source) -> Result<Prepared> {
        let bad = |what: &str| Error::bad_json(format!("events: {what}"));
        let rejected = self.rejected_reason.or(self.context.rejected);
        if source == Source::Ours && (self.outlier || rejected.is_some()) {
            return Err(bad("outliers and rejected events are not taken this way"));
        }
        if self.context.state_group.is_none() && !self.outlier {
            return Err(bad("context.state_group is missing"));
        }
        let json = self.event.to_string();
        let event_id = id_of(&self.event, &json, &self.room_version)?;
        let mut pdu = Pdu::parse(&json, &event_id, &self.room_version)?;
        pdu.meta = self.internal_metadata;
        (pdu.outlier, pdu.rejected) = (self.outlier, rejected);
        let (group, before) = (self.context.state_group, self.context.state_group_before_event);
        Ok(Prepared { pdu: Arc::new(pdu), json, group, before, source })
    }
}

fn id_of(event: &Value, json: &str, version: &RoomVersionId) -> Result<OwnedEventId> {
    if EventFormat::of(version) == EventFormat::V1 {
        let id = event.get("event_id").and_then(Value::as_str);
        return Ok(id.ok_or_else(|| Error::bad_json("events: event_id is missing"))?.try_into()?);
    }
    let hash = rules::hash::reference_hash(&canonical::parse(json)?, &rules::build::rules_of(version)?)?;
    Ok(format!("${hash}").try_into()?)
}

pub(crate) fn with_unsigned(json: &str, unsigned: &Map<String, Value>) -> Result<String> {
    let mut object: Map<String, Value> = serde_json::from_str(json)?;
    object.insert("unsigned".into(), Value::Object(unsigned.clone()));
    Ok(serde_json::to_string(&object)?)
}
