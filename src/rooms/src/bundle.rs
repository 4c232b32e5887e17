//! Bundled aggregations: what relates to an event, told along with it (spec: "Aggregations of child events").

use crate::{Rooms, Visible};
use ruma::{OwnedEventId, UserId};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use types::{Pdu, Result};

/// A thread seen from its root.
#[derive(Clone, Debug)]
pub struct Thread {
    pub latest: Arc<Pdu>,
    pub count: i64,
    /// The requester wrote in it.
    pub participated: bool,
}

/// What is bundled with one event.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    pub references: Vec<OwnedEventId>,
    pub replace: Option<Arc<Pdu>>,
    pub thread: Option<Thread>,
}

/// Bundles by event id. Holds entries for the latest events of threads, too.
pub type Bundles = HashMap<OwnedEventId, Bundle>;

/// `m.relates_to` as far as it says what kind of relation this is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Relation {
    pub rel_type: String,
    pub event_id: String,
    pub key: Option<String>,
}

/// The relation an event declares, if it is well-formed.
pub fn relation_of(event: &Pdu) -> Option<Relation> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Option<serde_json::Value>,
    }
    let content: Content = event.content_as().ok()?;
    serde_json::from_value(content.relates_to?).ok()
}

impl Rooms {
    /// Bundled aggregations of these events for one requester. Two statements if nothing relates to them
    /// (one of them cached), five at most.
    pub async fn bundle(&self, user_id: &UserId, events: &[Visible]) -> Result<Bundles> {
        let mut by_id: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::new();
        let mut threadable: Vec<OwnedEventId> = Vec::new();
        for event in events.iter().map(|v| &v.event).filter(|e| !e.is_state()) {
            match relation_of(event) {
                // Edits and reactions have nothing bundled.
                Some(r) if matches!(r.rel_type.as_str(), "m.annotation" | "m.replace") => continue,
                Some(_) => {}
                None => threadable.push(event.event_id.clone()),
            }
            by_id.insert(event.event_id.clone(), event.clone());
        }
        if by_id.is_empty() {
            return Ok(Bundles::new());
        }
        let ids: Vec<&str> = by_id.keys().map(|i| i.as_str()).collect();
        let related = self.cx.store.related_to_any(&ids).await?;
        if related.is_empty() {
            return Ok(Bundles::new());
        }
        let ignored = self.cx.store.ignored_by(user_id.as_str()).await?;
        let of_type =
            |t: &str| -> HashSet<&OwnedEventId> { related.iter().filter(|(_, r)| r == t).map(|(id, _)| id).collect() };
        let roots = of_type("m.thread");
        let roots: Vec<&str> = threadable.iter().filter(|id| roots.contains(id)).map(|i| i.as_str()).collect();
        let mut bundles = Bundles::new();
        self.bundle_threads(user_id, &roots, &ignored, &mut by_id, &mut bundles).await?;
        self.bundle_references_and_edits(&by_id, &ignored, &mut bundles).await?;
        Ok(bundles)
    }

    async fn bundle_threads(
        &self,
        user_id: &UserId,
        roots: &[&str],
        ignored: &HashSet<String>,
        by_id: &mut HashMap<OwnedEventId, Arc<Pdu>>,
        bundles: &mut Bundles,
    ) -> Result<()> {
        if roots.is_empty() {
            return Ok(());
        }
        let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
        let summaries = self.cx.store.thread_summaries(roots, &ignored, user_id.as_str()).await?;
        let latest: Vec<&OwnedEventId> = summaries.values().map(|(s, _)| &s.latest).collect();
        let latest = self.cx.store.events(&latest).await?;
        for (root, (summary, wrote)) in summaries {
            let Some(event) = latest.get(&summary.latest).filter(|e| e.rejected.is_none()) else { continue };
            let participated = wrote || by_id.get(&root).is_some_and(|e| e.sender == *user_id);
            let thread = Thread { latest: event.clone(), count: summary.count, participated };
            bundles.entry(root).or_default().thread = Some(thread);
            by_id.insert(event.event_id.clone(), event.clone());
        }
        Ok(())
    }

    async fn bundle_references_and_edits(
        &self,
        by_id: &HashMap<OwnedEventId, Arc<Pdu>>,
        ignored: &HashSet<String>,
        bundles: &mut Bundles,
    ) -> Result<()> {
        let all: Vec<&str> = by_id.keys().map(|i| i.as_str()).collect();
        let editable = by_id.values().filter(|e| e.redacted_because.is_none());
        let editable: Vec<&str> = editable.map(|e| e.event_id.as_str()).collect();
        let store = &self.cx.store;
        let (references, edits) = futures::try_join!(store.references_to(&all), store.applicable_edits(&editable))?;
        for (parent, children) in references {
            let heard = children.into_iter().filter(|(_, sender)| !ignored.contains(sender));
            let ids: Vec<OwnedEventId> = heard.map(|(id, _)| id).collect();
            if !ids.is_empty() {
                bundles.entry(parent).or_default().references = ids;
            }
        }
        let wanted: Vec<&OwnedEventId> = edits.values().collect();
        let found = store.events(&wanted).await?;
        for (original, edit) in &edits {
            if let Some(edit) = found.get(edit).filter(|e| e.rejected.is_none()) {
                bundles.entry(original.clone()).or_default().replace = Some(edit.clone());
            }
        }
        Ok(())
    }
}
