//! Servers that are closed, by configuration or because too many users are active.

use crate::Accounts;
use types::{Error, Result};

impl Accounts {
    /// 403 M_RESOURCE_LIMIT_EXCEEDED if the server is disabled or has as many active users as it may have.
    /// `user_id` None: somebody who has no account yet.
    pub async fn check_blocking(&self, user_id: Option<&str>) -> Result<()> {
        let config = &self.cx.config;
        if let Some(user_id) = user_id {
            let notices = config.server_notices.as_ref().map(|n| self.qualify(&n.system_mxid_localpart));
            if notices.as_deref() == Some(user_id) {
                return Ok(());
            }
        }
        let user = match user_id {
            Some(user_id) if config.server.hs_disabled || config.server.mau.limit_usage => {
                self.cx.store.user(user_id).await?
            }
            _ => None,
        };
        if user.as_ref().is_some_and(|u| u.user_type.as_deref() == Some("support")) {
            return Ok(());
        }
        if config.server.hs_disabled {
            return Err(self.blocked(config.server.hs_disabled_message.clone(), "hs_disabled"));
        }
        if !config.server.mau.limit_usage {
            return Ok(());
        }
        if let Some(user) = &user {
            let mau = &config.server.mau;
            let days = match &user.appservice_id {
                Some(id) => mau.appservice_trial_days.iter().find(|(a, _)| a == id).map_or(mau.trial_days, |(_, d)| *d),
                None => mau.trial_days,
            };
            let on_trial = self.cx.now_ms() - user.creation_ts * 1000 < days as i64 * 86_400_000;
            if on_trial || self.cx.store.is_monthly_active(&user.user_id).await? {
                return Ok(());
            }
        }
        if self.cx.store.count_monthly_active().await? >= config.server.mau.max_value as i64 {
            return Err(self.blocked("Monthly Active User Limit Exceeded".into(), "monthly_active_user"));
        }
        Ok(())
    }

    fn blocked(&self, message: String, limit: &'static str) -> Error {
        let contact = self.cx.config.server.admin_contact.clone();
        Error::client(403, "M_RESOURCE_LIMIT_EXCEEDED", message)
            .with("admin_contact", contact)
            .with("limit_type", limit)
    }
}
