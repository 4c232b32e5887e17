//! `ignored_users`: whom a user does not want to hear.

use crate::Store;
use std::collections::HashSet;
use std::sync::Arc;
use types::Result;

impl Store {
    /// The users somebody ignores.
    pub async fn ignored_by(&self, user_id: &str) -> Result<Arc<HashSet<String>>> {
        self.room_caches
            .ignored
            .get_or_load(user_id, async {
                let sql = "SELECT ignored_user_id FROM ignored_users WHERE ignorer_user_id = $1";
                let rows = self.db.query(sql, &[&user_id]).await?;
                Ok(Arc::new(rows.iter().map(|r| r.get(0)).collect()))
            })
            .await
    }
}
