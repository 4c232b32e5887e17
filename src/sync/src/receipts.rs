//! Receipts and read markers.

use crate::Sync;
use config::StreamGroup;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use store::receipts::Receipt;
use types::{MultiToken, Result};

/// `m.receipt` of each room, from receipts in the order in which they came. Private receipts of others are
/// left out.
pub fn events_by_room(receipts: &[Receipt], user_id: &str) -> HashMap<String, Value> {
    let mut rooms: HashMap<&str, Map<String, Value>> = HashMap::new();
    for r in receipts {
        if r.receipt_type == "m.read.private" && r.user_id != user_id {
            continue;
        }
        let content = rooms.entry(&r.room_id).or_default();
        let by_type = content.entry(r.event_id.clone()).or_insert_with(|| json!({}));
        let Some(by_type) = by_type.as_object_mut() else { continue };
        let by_user = by_type.entry(r.receipt_type.clone()).or_insert_with(|| json!({}));
        let Some(by_user) = by_user.as_object_mut() else { continue };
        let mut data = r.data.clone();
        match &r.thread_id {
            // An unthreaded receipt for the same event says more than one for a thread.
            Some(_) if by_user.get(&r.user_id).is_some_and(|old| old.get("thread_id").is_none()) => continue,
            Some(thread) => {
                if let Some(data) = data.as_object_mut() {
                    data.insert("thread_id".into(), thread.as_str().into());
                }
            }
            None => {}
        }
        by_user.insert(r.user_id.clone(), data);
    }
    let event = |(room, content): (&str, Map<String, Value>)| {
        (room.to_owned(), json!({"type": "m.receipt", "content": content}))
    };
    rooms.into_iter().map(event).collect()
}

impl Sync {
    /// `m.receipt` of the rooms with receipts after `since` (None: all), up to `to`.
    pub async fn receipts_since(
        &self,
        user_id: &str,
        room_ids: &[&str],
        since: Option<&MultiToken>,
        to: &MultiToken,
    ) -> Result<HashMap<String, Value>> {
        let start = MultiToken::default();
        let from = since.unwrap_or(&start);
        let changed = &self.cx.store.changed.receipts;
        let rooms: Vec<&str> =
            room_ids.iter().filter(|r| since.is_none_or(|s| changed.since(r, s.stream))).copied().collect();
        if rooms.is_empty() || from == to {
            return Ok(HashMap::new());
        }
        Ok(events_by_room(&self.cx.store.receipts_in(&rooms, from, to).await?, user_id))
    }

    /// Stores a receipt of a local user. True if it was news, as far as this process knows.
    pub async fn add_receipt(
        &self,
        room_id: &str,
        receipt_type: &str,
        user_id: &str,
        event_id: &str,
        thread_id: Option<&str>,
    ) -> Result<bool> {
        let receipt = Receipt {
            room_id: room_id.to_owned(),
            receipt_type: receipt_type.to_owned(),
            user_id: user_id.to_owned(),
            event_id: event_id.to_owned(),
            thread_id: thread_id.map(str::to_owned),
            data: json!({"ts": self.cx.now_ms()}),
        };
        if !self.cx.duties.writes(StreamGroup::Receipts) {
            self.hand_receipt(&receipt).await?;
            return Ok(true);
        }
        Ok(self.cx.store.add_receipt(&receipt).await?.is_some())
    }

    /// A writer that is no Plexus process takes receipts as it takes those of remote users.
    async fn hand_receipt(&self, r: &Receipt) -> Result<()> {
        let mut data = r.data.clone();
        if let Some(thread) = &r.thread_id {
            data["thread_id"] = thread.as_str().into();
        }
        let mut content = json!({});
        content[&r.room_id] = json!({});
        content[&r.room_id][&r.receipt_type] = json!({});
        content[&r.room_id][&r.receipt_type][&r.user_id] = json!({"event_ids": [r.event_id], "data": data});
        // The same writer requests are handed on to if it is Plexus.
        self.hand_edu(self.cx.owner(StreamGroup::Receipts, ""), "m.receipt", content).await
    }

    /// Whether a new fully-read marker is after the old one; an unknown old one never stands in the way.
    pub async fn is_marker_ahead(&self, new: &str, old: Option<&str>) -> Result<bool> {
        let Some(old) = old else { return Ok(true) };
        Ok(self.cx.store.is_event_after(new, old).await?.unwrap_or(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(kind: &str, user: &str, thread: Option<&str>, ts: i64) -> Receipt {
        Receipt {
            room_id: "!r:a".into(),
            receipt_type: kind.into(),
            user_id: user.into(),
            event_id: "$e".into(),
            thread_id: thread.map(str::to_owned),
            data: json!({"ts": ts}),
        }
    }

    #[test]
    fn private_receipts_are_for_their_owner() {
        let all = [receipt("m.read.private", "@a:a", None, 1), receipt("m.read", "@b:a", Some("main"), 2)];
        let for_b = events_by_room(&all, "@b:a");
        assert_eq!(for_b["!r:a"]["content"], json!({"$e": {"m.read": {"@b:a": {"ts": 2, "thread_id": "main"}}}}));
        assert!(events_by_room(&all, "@a:a")["!r:a"]["content"]["$e"].get("m.read.private").is_some());
        assert!(events_by_room(&all[..1], "@b:a").is_empty());
    }

    #[test]
    fn an_unthreaded_receipt_wins() {
        let all = [receipt("m.read", "@b:a", None, 1), receipt("m.read", "@b:a", Some("$t"), 2)];
        assert_eq!(events_by_room(&all, "@a:a")["!r:a"]["content"]["$e"]["m.read"]["@b:a"], json!({"ts": 1}));
    }
}
