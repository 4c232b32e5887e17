//! Table `open_id_tokens`: who somebody is, proven to third parties.

use crate::Store;
use types::Result;

impl Store {
    /// Keeps a token. `until_ms`: when it expires.
    pub async fn add_open_id_token(&self, token: &str, user_id: &str, until_ms: i64) -> Result<()> {
        let sql = "INSERT INTO open_id_tokens (token, ts_valid_until_ms, user_id) VALUES ($1, $2, $3)";
        self.db.execute(sql, &[&token, &until_ms, &user_id]).await.map(|_| ())
    }

    /// Whose token it is, if it has not expired.
    pub async fn open_id_user(&self, token: &str, now_ms: i64) -> Result<Option<String>> {
        let sql = "SELECT user_id FROM open_id_tokens WHERE token = $1 AND $2 <= ts_valid_until_ms";
        Ok(self.db.query_opt(sql, &[&token, &now_ms]).await?.map(|r| r.get(0)))
    }
}
