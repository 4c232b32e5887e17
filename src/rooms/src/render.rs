//! Events as clients get them.

use crate::bundle::{Bundle, Bundles};
use crate::visibility::replaced;
use crate::{Rooms, Visible};
use ruma::OwnedEventId;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use types::event::ClientFormat;
use types::{Pdu, Requester, Result};

/// Shape of rendered events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    /// As most room endpoints of Synapse answer: v2 plus `user_id`, `age`, … at the top level.
    #[default]
    V1,
    V2,
    /// `/sync`.
    V2WithoutRoomId,
    /// The federation format (`/messages?raw`, filter `event_format: federation`).
    Raw,
}

/// Whom events are rendered for, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Render<'a> {
    pub who: Option<&'a Requester>,
    pub shape: Shape,
    /// Keep `invite_room_state` and `knock_room_state`.
    pub with_stripped_state: bool,
}

impl<'a> Render<'a> {
    pub fn for_user(who: &'a Requester) -> Self {
        Self { who: Some(who), ..Self::default() }
    }

    pub fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    fn format(&self, now_ms: i64) -> ClientFormat<'a> {
        ClientFormat {
            now_ms,
            with_room_id: self.shape != Shape::V2WithoutRoomId,
            device_id: self.who.and_then(|w| w.device_id.as_deref()),
            token_id: self.who.and_then(|w| w.access_token_id),
            user_id: self.who.map(|w| w.user_id.as_str()),
            with_stripped_state: self.with_stripped_state,
            legacy: self.shape == Shape::V1,
        }
    }
}

/// Earlier versions of state events, by the id of the event that replaced them.
type Previous = HashMap<OwnedEventId, Arc<Pdu>>;

impl Rooms {
    /// Renders events with their bundled aggregations and previous contents; one statement at most.
    pub async fn render(&self, events: &[Visible], bundles: &Bundles, how: Render<'_>) -> Result<Vec<Box<RawValue>>> {
        let previous = self.previous_of(events.iter().map(|v| &v.event)).await?;
        let raw = if how.shape == Shape::Raw { self.raw_of(events).await? } else { HashMap::new() };
        let format = how.format(self.cx.now_ms());
        let render = |v: &Visible| match raw.get(&v.event.event_id) {
            Some(json) => raw_with_unsigned(json, &v.event.event_id, &render_one(v, bundles, &previous, &format)?),
            None => render_one(v, bundles, &previous, &format),
        };
        events.iter().map(render).collect()
    }

    /// Renders one event.
    pub async fn render_event(&self, event: &Visible, bundles: &Bundles, how: Render<'_>) -> Result<Box<RawValue>> {
        let mut rendered = self.render(std::slice::from_ref(event), bundles, how).await?;
        rendered.pop().ok_or_else(|| types::Error::internal("an event was not rendered"))
    }

    /// Renders state events: no aggregations, no previous contents.
    pub fn render_state(&self, events: &[Arc<Pdu>], how: Render<'_>) -> Result<Vec<Box<RawValue>>> {
        let format = how.format(self.cx.now_ms());
        events.iter().map(|e| e.to_client(&format, Map::new())).collect()
    }

    /// Federation format of the events that are shown as they were sent; redacted ones are not.
    async fn raw_of(&self, events: &[Visible]) -> Result<HashMap<OwnedEventId, Box<RawValue>>> {
        let whole = events.iter().filter(|v| v.event.redacted_because.is_none());
        let ids: Vec<&OwnedEventId> = whole.map(|v| &v.event.event_id).collect();
        self.cx.store.raw_events(&ids).await
    }

    async fn previous_of(&self, events: impl Iterator<Item = &Arc<Pdu>>) -> Result<Previous> {
        let pairs: Vec<(OwnedEventId, OwnedEventId)> =
            events.filter(|e| e.is_state()).filter_map(|e| Some((e.event_id.clone(), replaced(e)?))).collect();
        let ids: Vec<&OwnedEventId> = pairs.iter().map(|(_, old)| old).collect();
        let found = self.cx.store.events(&ids).await?;
        Ok(pairs.into_iter().filter_map(|(new, old)| Some((new, found.get(&old)?.clone()))).collect())
    }
}

/// The federation format with what only clients get: the event's id and `unsigned` as seen by the requester.
fn raw_with_unsigned(json: &RawValue, event_id: &OwnedEventId, client: &RawValue) -> Result<Box<RawValue>> {
    let mut event: Map<String, Value> = serde_json::from_str(json.get())?;
    let mut client: Map<String, Value> = serde_json::from_str(client.get())?;
    event.insert("event_id".into(), event_id.as_str().into());
    if let Some(unsigned) = client.remove("unsigned") {
        event.insert("unsigned".into(), unsigned);
    }
    types::json::raw(&event)
}

fn render_one(v: &Visible, bundles: &Bundles, previous: &Previous, format: &ClientFormat<'_>) -> Result<Box<RawValue>> {
    let mut extra = Map::new();
    if let Some(old) = previous.get(&v.event.event_id) {
        extra.insert("prev_content".into(), serde_json::from_str(old.content.get())?);
        extra.insert("prev_sender".into(), old.sender.as_str().into());
    }
    if let Some(membership) = &v.membership {
        extra.insert("membership".into(), membership.as_str().into());
    }
    if let Some(bundle) = bundles.get(&v.event.event_id) {
        let relations = relations(bundle, bundles, format)?;
        if !relations.is_empty() {
            extra.insert("m.relations".into(), Value::Object(relations));
        }
    }
    v.event.to_client(format, extra)
}

fn relations(bundle: &Bundle, bundles: &Bundles, format: &ClientFormat<'_>) -> Result<Map<String, Value>> {
    let mut relations = Map::new();
    if !bundle.references.is_empty() {
        let chunk: Vec<Value> = bundle.references.iter().map(|id| json!({"event_id": id})).collect();
        relations.insert("m.reference".into(), json!({"chunk": chunk}));
    }
    if let Some(edit) = &bundle.replace {
        let edit = edit.to_client(format, Map::new())?;
        relations.insert("m.replace".into(), serde_json::from_str(edit.get())?);
    }
    if let Some(thread) = &bundle.thread {
        let mut extra = Map::new();
        if let Some(inner) = bundles.get(&thread.latest.event_id).filter(|b| b.thread.is_none()) {
            let inner = self::relations(inner, bundles, format)?;
            if !inner.is_empty() {
                extra.insert("m.relations".into(), Value::Object(inner));
            }
        }
        let latest = thread.latest.to_client(format, extra)?;
        let latest: Value = serde_json::from_str(latest.get())?;
        relations.insert(
            "m.thread".into(),
            json!({
                "latest_event": latest,
                "count": thread.count,
                "current_user_participated": thread.participated,
            }),
        );
    }
    Ok(relations)
}
