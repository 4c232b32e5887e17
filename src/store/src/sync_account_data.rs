//! Account data and tags as `/sync` needs them: all, or what changed since.

use crate::Store;
use serde_json::{Map, Value};
use std::collections::HashMap;
use types::Result;

/// (type, content)
pub type TypedContent = (String, Value);

const TAGS: &str = "SELECT room_id, tag, content FROM room_tags WHERE user_id = $1";

const CHANGED_TAGS: &str = "
    SELECT r.room_id, t.tag, t.content FROM room_tags_revisions r
    LEFT JOIN room_tags t ON t.user_id = r.user_id AND t.room_id = r.room_id
    WHERE r.user_id = $1 AND r.stream_id > $2";

impl Store {
    /// Whether account data or tags of a user may have changed after a position.
    pub fn account_data_changed(&self, user_id: &str, since: i64) -> bool {
        self.changed.account_data.since(user_id, since)
    }

    /// Global account data changed after `since` (None: all).
    pub async fn global_account_data_since(&self, user_id: &str, since: Option<i64>) -> Result<Vec<TypedContent>> {
        if since.is_some_and(|s| !self.account_data_changed(user_id, s)) {
            return Ok(Vec::new());
        }
        let sql = "SELECT account_data_type, content FROM account_data WHERE user_id = $1 AND stream_id > $2";
        let rows = self.db.query(sql, &[&user_id, &since.unwrap_or(-1)]).await?;
        rows.iter().map(|r| Ok((r.get(0), serde_json::from_str(r.get(1))?))).collect()
    }

    /// Account data of rooms changed after `since` (None: all), by room.
    pub async fn room_account_data_since(
        &self,
        user_id: &str,
        since: Option<i64>,
    ) -> Result<HashMap<String, Vec<TypedContent>>> {
        let mut rooms: HashMap<String, Vec<TypedContent>> = HashMap::new();
        if since.is_some_and(|s| !self.account_data_changed(user_id, s)) {
            return Ok(rooms);
        }
        let sql = "SELECT room_id, account_data_type, content FROM room_account_data
                   WHERE user_id = $1 AND stream_id > $2";
        for row in &self.db.query(sql, &[&user_id, &since.unwrap_or(-1)]).await? {
            rooms.entry(row.get(0)).or_default().push((row.get(1), serde_json::from_str(row.get(2))?));
        }
        Ok(rooms)
    }

    /// All tags of the rooms whose tags changed after `since` (None: of all rooms), by room. A room without
    /// any tags left has an empty map.
    pub async fn tags_since(&self, user_id: &str, since: Option<i64>) -> Result<HashMap<String, Map<String, Value>>> {
        let mut rooms: HashMap<String, Map<String, Value>> = HashMap::new();
        let rows = match since {
            None => self.db.query(TAGS, &[&user_id]).await?,
            Some(s) if self.account_data_changed(user_id, s) => self.db.query(CHANGED_TAGS, &[&user_id, &s]).await?,
            Some(_) => Vec::new(),
        };
        for row in &rows {
            let tags = rooms.entry(row.get(0)).or_default();
            if let (Some(tag), Some(content)) = (row.get::<_, Option<String>>(1), row.get::<_, Option<&str>>(2)) {
                tags.insert(tag, serde_json::from_str(content)?);
            }
        }
        Ok(rooms)
    }
}

impl Store {
    /// The event of a user's `m.fully_read` marker in a room.
    pub async fn fully_read(&self, user_id: &str, room_id: &str) -> Result<Option<String>> {
        let sql = "SELECT content FROM room_account_data
                   WHERE user_id = $1 AND room_id = $2 AND account_data_type = 'm.fully_read'";
        let Some(row) = self.db.query_opt(sql, &[&user_id, &room_id]).await? else { return Ok(None) };
        let content: Value = serde_json::from_str(row.get(0))?;
        Ok(content.get("event_id").and_then(Value::as_str).map(str::to_owned))
    }

    /// A stored filter. Filters never change under their id.
    pub async fn stored_filter(&self, user_id: &str, filter_id: i64) -> Result<Option<Value>> {
        let sql = "SELECT filter_json FROM user_filters WHERE full_user_id = $1 AND filter_id = $2";
        let Some(row) = self.db.query_opt(sql, &[&user_id, &filter_id]).await? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(row.get::<_, &[u8]>(0))?))
    }

    /// Whether an experimental feature is switched on for one user.
    pub async fn has_feature(&self, user_id: &str, feature: &str) -> Result<bool> {
        let sql = "SELECT enabled FROM per_user_experimental_features WHERE user_id = $1 AND feature = $2";
        Ok(self.db.query_opt(sql, &[&user_id, &feature]).await?.is_some_and(|r| r.get(0)))
    }
}
