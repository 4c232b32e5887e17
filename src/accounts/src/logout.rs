//! Ending sessions.

use crate::Accounts;
use ruma::UserId;
use store::devices::PusherKey;
use types::{Error, Result};

impl Accounts {
    /// Deletes one token that belongs to no device, and the pushers set with it.
    pub async fn drop_token(&self, token: &str) -> Result<()> {
        let found = self.cx.store.access_token(token).await?;
        let found = found.ok_or_else(|| Error::unknown_token("Unrecognised access token"))?;
        self.cx.store.delete_access_token(token).await?;
        let pushers = self.cx.store.pushers_of_tokens(&found.owner, &[found.id]).await?;
        self.drop_pushers(&found.owner, &pushers).await
    }

    /// Deletes all tokens of a user but one access token, and the pushers set with them.
    pub async fn drop_all_tokens(&self, user_id: &UserId, except: Option<i64>) -> Result<()> {
        let ids = self.cx.store.delete_user_tokens(user_id.as_str(), except).await?;
        let pushers = self.cx.store.pushers_of_tokens(user_id.as_str(), &ids).await?;
        self.drop_pushers(user_id.as_str(), &pushers).await
    }

    /// Deletes pushers, in the main process, which alone writes them.
    pub async fn drop_pushers(&self, user_id: &str, pushers: &[PusherKey]) -> Result<()> {
        if pushers.is_empty() || self.cx.duties.is_main {
            return self.cx.store.delete_pushers(user_id, pushers).await;
        }
        for p in pushers {
            let payload = serde_json::json!({"app_id": p.app_id, "pushkey": p.pushkey});
            let serde_json::Value::Object(payload) = payload else { continue };
            self.cx.peers.call(types::MASTER, "remove_pusher", &[user_id], false, payload).await?;
        }
        Ok(())
    }
}
