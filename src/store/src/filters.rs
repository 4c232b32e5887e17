//! Storing filters: table `user_filters`. A filter never changes.

use crate::{Store, transaction};
use ruma::{CanonicalJsonObject, UserId};
use types::Result;

impl Store {
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
