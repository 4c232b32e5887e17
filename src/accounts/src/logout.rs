//! Ending sessions.

use crate::Accounts;
use ruma::UserId;
use slog::{info, warn};
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

    /// Deletes devices with all that belongs to them, and tells those who share rooms with the user.
    pub async fn drop_devices(&self, user_id: &UserId, device_ids: &[String]) -> Result<()> {
        if device_ids.is_empty() {
            return Ok(());
        }
        let store = &self.cx.store;
        let pushers = store.pushers_of_devices(user_id.as_str(), device_ids).await?;
        let more = store.delete_devices(user_id.as_str(), device_ids).await?;
        info!(self.cx.log, "devices deleted"; "user" => %user_id, "devices" => device_ids.len());
        if more {
            self.delete_messages_later(user_id, device_ids);
        }
        self.drop_pushers(user_id.as_str(), &pushers).await?;
        self.devices_changed(user_id, device_ids).await
    }

    fn delete_messages_later(&self, user_id: &UserId, device_ids: &[String]) {
        let (cx, user_id, device_ids) = (self.cx.clone(), user_id.to_owned(), device_ids.to_vec());
        tokio::spawn(async move {
            if let Err(e) = cx.store.delete_to_device_of(user_id.as_str(), &device_ids).await {
                warn!(cx.log, "messages of deleted devices remain"; "user" => %user_id, "error" => %e);
            }
        });
    }

    /// Deletes all devices of a user but one.
    pub async fn drop_all_devices(&self, user_id: &UserId, except: Option<&str>) -> Result<()> {
        let devices = self.cx.store.devices_of(user_id.as_str()).await?;
        let ids: Vec<String> =
            devices.into_iter().map(|d| d.device_id).filter(|id| Some(id.as_str()) != except).collect();
        self.drop_devices(user_id, &ids).await
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
