//! Stored filters: table `user_filters`. A filter never changes, so its id may be cached for ever.

use crate::{Store, transaction};
use ruma::{CanonicalJsonObject, UserId};
use serde_json::Value;
use std::sync::Arc;
use types::Result;

impl Store {
    /// A filter of a user, as it was given.
    pub async fn filter(&self, user_id: &UserId, filter_id: i64) -> Result<Option<Arc<Value>>> {
        let key = (user_id.to_string(), filter_id.to_string());
        if let Some(found) = self.accounts.filters.get(&key) {
            return Ok(Some(found));
        }
        let sql = "SELECT filter_json FROM user_filters WHERE full_user_id = $1 AND filter_id = $2";
        let Some(row) = self.db.query_opt(sql, &[&user_id.as_str(), &filter_id]).await? else { return Ok(None) };
        let filter: Arc<Value> = Arc::new(serde_json::from_slice(row.get(0))?);
        self.accounts.filters.put(key, filter.clone());
        Ok(Some(filter))
    }

    /// Stores a filter; the same filter has the same id.
    pub async fn add_filter(&self, user_id: &UserId, filter: &CanonicalJsonObject) -> Result<i64> {
        let json = serde_json::to_vec(filter)?;
        let (id, localpart) = (user_id.as_str(), user_id.localpart());
        let mut attempt = 0;
        loop {
            let added = transaction!(self, "add_user_filter", |tx| {
                let sql = "SELECT filter_id FROM user_filters WHERE full_user_id = $1 AND filter_json = $2";
                if let Some(row) = tx.query_opt(sql, &[&id, &json]).await? {
                    return Ok(row.get::<_, i64>(0));
                }
                let sql = "INSERT INTO user_filters (full_user_id, user_id, filter_id, filter_json)
                           SELECT $1, $2, COALESCE(MAX(filter_id) + 1, 0), $3 FROM user_filters WHERE full_user_id = $1
                           RETURNING filter_id";
                let row = tx.query_opt(sql, &[&id, &localpart, &json]).await?;
                row.map(|r| r.get(0)).ok_or_else(|| types::Error::internal("a filter got no id"))
            });
            match added {
                // Another request of the user got the id first.
                Err(e) if crate::db::is_constraint(&e) && attempt < 5 => attempt += 1,
                other => return other,
            }
        }
    }
}
