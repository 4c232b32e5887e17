//! Rendering the events of all rooms at once.

use super::Pass;
use super::rooms::Entry;
use crate::filter::only_fields;
use ::rooms::{Bundles, Render, Shape, Visible};
use serde_json::Value;
use serde_json::value::RawValue;
use types::Result;

impl Pass<'_> {
    /// For each entry in order its timeline, then its state.
    pub(super) async fn render(&self, entries: &[Entry], bundles: &Bundles) -> Result<Vec<Box<RawValue>>> {
        let mut events: Vec<Visible> = Vec::new();
        for entry in entries {
            events.extend(entry.timeline.iter().cloned());
            events.extend(entry.state.iter().cloned().map(Visible::unchecked));
        }
        let shape = if self.rq.filter.federation_format { Shape::Raw } else { Shape::V2WithoutRoomId };
        let how = Render::for_user(&self.rq.who).shape(shape);
        let rendered = self.sync.rooms.render(&events, bundles, how).await?;
        let fields = &self.rq.filter.event_fields;
        if fields.is_empty() {
            return Ok(rendered);
        }
        let picked = |e: Box<RawValue>| {
            let event: Value = serde_json::from_str(e.get())?;
            types::json::raw(&pick(&event, fields))
        };
        rendered.into_iter().map(picked).collect()
    }
}

/// The wanted fields, and what is bundled with the event, reduced in the same way.
fn pick(event: &Value, fields: &[String]) -> Value {
    let mut picked = only_fields(event, fields);
    if let Some(relations) = event.pointer("/unsigned/m.relations") {
        let mut relations = relations.clone();
        for path in ["/m.thread/latest_event", "/m.replace"] {
            if let Some(bundled) = relations.pointer_mut(path) {
                *bundled = only_fields(bundled, fields);
            }
        }
        picked["unsigned"]["m.relations"] = relations;
    }
    picked
}
