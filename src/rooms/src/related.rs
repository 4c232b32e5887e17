//! What a relation must refer to.

use crate::head::Head;
use crate::{Rooms, Template};
use rules::relations::{ANNOTATION, THREAD};
use ruma::EventId;
use serde_json::{Map, Value};
use types::{Error, Result};

/// Bytes of an annotation's key.
const MAX_KEY: usize = 500;

impl Rooms {
    /// Checks `m.relates_to` of an event to be sent; anything malformed is no relation and passes.
    pub(crate) async fn check_relation(&self, head: &Head, t: &Template, content: &Map<String, Value>) -> Result<()> {
        let Some(relates) = content.get("m.relates_to") else { return Ok(()) };
        let text = |key: &str| relates.get(key).and_then(Value::as_str);
        let (Some(rel_type), Some(parent)) = (text("rel_type"), text("event_id")) else { return Ok(()) };
        let store = &self.cx.store;
        let event = match <&EventId>::try_from(parent) {
            Ok(id) => store.event(id).await?,
            Err(_) => None,
        };
        match event {
            Some(e) if e.room_id != head.room_id => {
                return Err(Error::bad_request("Relations must be in the same room"));
            }
            Some(_) => {}
            None if store.is_target_of_relation(parent).await? => {}
            None => return Err(Error::bad_request("Can't send relation to unknown event")),
        }
        if rel_type == ANNOTATION {
            let key = text("key").ok_or_else(|| Error::bad_request("Missing aggregation key"))?;
            if key.chars().count() > MAX_KEY {
                return Err(Error::bad_request("Aggregation key is too long"));
            }
            if store.has_annotated(parent, &t.kind, key, t.sender.as_str()).await? {
                return Err(Error::client(400, "M_DUPLICATE_ANNOTATION", "Can't send same reaction twice"));
            }
        } else if rel_type == THREAD && store.has_relation(parent).await? {
            return Err(Error::bad_request("Cannot start threads from an event with a relation"));
        }
        Ok(())
    }
}
