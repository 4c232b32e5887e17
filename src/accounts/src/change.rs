//! Changing passwords, ending accounts.

use crate::Accounts;
use ruma::UserId;
use slog::info;
use types::{Error, Requester, Result};

impl Accounts {
    /// Sets a new password. `logout`: all sessions end but that of `who`.
    pub async fn set_password(
        &self,
        user_id: &UserId,
        hash: &str,
        logout: bool,
        who: Option<&Requester>,
    ) -> Result<()> {
        let auth = &self.cx.config.auth;
        if !auth.password_login || !auth.localdb_enabled {
            return Err(Error::forbidden("Password change disabled"));
        }
        self.cx.store.set_password_hash(user_id.as_str(), Some(hash)).await?;
        info!(self.cx.log, "password changed"; "user" => %user_id, "logout" => logout);
        if logout {
            self.devices.delete_all_devices(user_id.as_str(), who.and_then(|w| w.device_id.as_deref())).await?;
            self.drop_all_tokens(user_id, who.and_then(|w| w.access_token_id)).await?;
        }
        Ok(())
    }

    /// Ends an account: sessions, password, addresses, pushers, account data and key backups go, the rooms are left.
    /// `erase`: the profile goes too, and the user's events are no longer shown to those who join later.
    /// `id_server`: asked to forget the user's addresses instead of those that were asked to bind them. False if an
    /// identity server could not forget one. 400 if one was not reached: nothing is done then.
    pub async fn deactivate(&self, user_id: &UserId, erase: bool, id_server: Option<&str>) -> Result<bool> {
        let store = &self.cx.store;
        let unbound = self.unbind_all(user_id.as_str(), id_server).await;
        let unbound = unbound.map_err(|_| Error::bad_request("Failed to remove threepid from ID server"))?;
        store.delete_threepids(user_id.as_str(), None).await?;
        self.devices.delete_all_devices(user_id.as_str(), None).await?;
        self.drop_all_tokens(user_id, None).await?;
        store.set_password_hash(user_id.as_str(), None).await?;
        let pushers = store.pushers_of(user_id.as_str()).await?;
        let pushers: Vec<_> =
            pushers.into_iter().map(|p| store::devices::PusherKey { app_id: p.app_id, pushkey: p.pushkey }).collect();
        self.drop_pushers(user_id.as_str(), &pushers).await?;
        store.deactivate_user(user_id.as_str(), erase).await?;
        info!(self.cx.log, "account deactivated"; "user" => %user_id, "erase" => erase);
        self.reject_invites(user_id).await;
        self.ask_to_part(user_id).await;
        Ok(unbound)
    }

    /// Makes a deactivated account usable again; it has no password until one is set.
    pub async fn reactivate(&self, user_id: &UserId) -> Result<()> {
        self.cx.store.reactivate_user(user_id).await?;
        self.show_in_directory(user_id).await
    }
}
