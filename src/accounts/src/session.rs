//! Sessions: a device and its tokens.

use crate::authenticate::GUEST_DEVICE;
use crate::{Accounts, macaroon};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use slog::info;
use store::tokens::{AddedTokens, NewDevice, NewRefresh, NewTokens};
use types::{Error, Result, credentials};

/// Longest name of a device, in characters.
const MAX_DEVICE_NAME: usize = 100;

/// A session to be opened. The names are those of Synapse's replication request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewSession {
    /// None: one is made up.
    pub device_id: Option<String>,
    /// Name of the device if it is new.
    pub initial_display_name: Option<String>,
    pub is_guest: bool,
    /// A user of an application service: not counted as active.
    #[serde(default)]
    pub is_appservice_ghost: bool,
    #[serde(default)]
    pub should_issue_refresh_token: bool,
    #[serde(default)]
    pub auth_provider_id: Option<String>,
    #[serde(default)]
    pub auth_provider_session_id: Option<String>,
}

/// A session that was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    pub device_id: String,
    pub access_token: String,
    /// Milliseconds; None: for ever.
    pub valid_until_ms: Option<i64>,
    pub refresh_token: Option<String>,
}

/// `now` plus the shortest of some lifetimes; None if there is none.
fn expiry(now_ms: i64, lifetimes: &[Option<u64>]) -> Option<i64> {
    lifetimes.iter().flatten().min().map(|l| now_ms.saturating_add(i64::try_from(*l).unwrap_or(i64::MAX)))
}

impl Accounts {
    /// Opens a session, in the main process: it alone gives out tokens.
    pub async fn open_session(&self, user_id: &UserId, new: NewSession) -> Result<Session> {
        if self.cx.duties.is_main {
            return self.open_session_here(user_id, new).await;
        }
        let serde_json::Value::Object(payload) = serde_json::to_value(&new)? else {
            return Err(Error::internal("a session is not an object"));
        };
        let user = user_id.as_str();
        let answer = self.cx.peers.call(types::MASTER, "device_check_registered", &[user], true, payload).await?;
        Ok(serde_json::from_value(answer)?)
    }

    /// Opens a session in this process, which must be the main process.
    pub async fn open_session_here(&self, user_id: &UserId, new: NewSession) -> Result<Session> {
        check_device_name(new.initial_display_name.as_deref())?;
        if new.is_guest {
            return self.open_guest_session(user_id, new).await;
        }
        if !new.is_appservice_ghost || self.cx.config.operations.track_appservice_user_ips {
            self.check_blocking(Some(user_id.as_str())).await?;
        }
        let mut tokens = self.tokens_for(user_id, new.should_issue_refresh_token);
        let provider = new.auth_provider_id.zip(new.auth_provider_session_id);
        let device = NewDevice { display_name: new.initial_display_name, provider };
        let device_id = new.device_id.clone().unwrap_or_else(credentials::device_id);
        tokens.device_id = Some(device_id.clone());
        let AddedTokens { new_device, .. } = self.cx.store.add_tokens(&tokens, Some(&device)).await?;
        info!(self.cx.log, "session opened"; "user" => %user_id, "device" => &device_id, "new_device" => new_device);
        if new_device {
            self.device_is_new(user_id, device_id.clone()).await?;
        }
        Ok(Session {
            device_id,
            access_token: tokens.access_token,
            valid_until_ms: tokens.valid_until_ms,
            refresh_token: tokens.refresh.map(|r| r.token),
        })
    }

    fn tokens_for(&self, user_id: &UserId, refreshable: bool) -> NewTokens {
        let s = &self.cx.config.sessions;
        let now_ms = self.cx.now_ms();
        let session = s.session_lifetime_ms;
        let refresh = refreshable.then(|| NewRefresh {
            token: credentials::refresh_token(user_id.localpart()),
            expiry_ts: s.refresh_token_lifetime_ms.and_then(|l| expiry(now_ms, &[Some(l), session])),
            ultimate_session_expiry_ts: expiry(now_ms, &[session]),
            replaces: None,
        });
        let lifetime = if refreshable {
            s.refreshable_access_token_lifetime_ms
        } else {
            s.nonrefreshable_access_token_lifetime_ms
        };
        NewTokens {
            user_id: user_id.to_string(),
            device_id: None,
            access_token: credentials::access_token(user_id.localpart()),
            valid_until_ms: expiry(now_ms, &[lifetime, session]),
            puppets: None,
            refresh,
            now_ms,
        }
    }

    async fn open_guest_session(&self, user_id: &UserId, new: NewSession) -> Result<Session> {
        let device_id = new.device_id.unwrap_or_else(|| GUEST_DEVICE.to_owned());
        let name = new.initial_display_name.as_deref();
        if self.cx.store.store_device(user_id.as_str(), &device_id, name, None).await? {
            self.device_is_new(user_id, device_id.clone()).await?;
        }
        let key = self.cx.config.keys.macaroon.expose();
        let access_token = macaroon::guest_token(self.server_name(), key, user_id.as_str())
            .ok_or_else(|| Error::internal("macaroon_secret_key cannot be used"))?;
        Ok(Session { device_id, access_token, valid_until_ms: None, refresh_token: None })
    }

    async fn device_is_new(&self, user_id: &UserId, device_id: String) -> Result<()> {
        if self.cx.config.registration.dont_notify_new_devices_for.iter().any(|u| u == user_id.as_str()) {
            return Ok(());
        }
        self.devices.notify_device_update(user_id.as_str(), &[device_id]).await
    }

    /// 503 outside the main process: it numbers the tokens, and two who did so would collide.
    pub(crate) fn check_gives_tokens(&self) -> Result<()> {
        if self.cx.duties.is_main {
            return Ok(());
        }
        Err(Error::unavailable("Only the main process gives out tokens"))
    }

    /// A token with which an administrator acts as `puppet`. `valid_until_ms`: milliseconds.
    pub async fn mint_token(&self, admin: &UserId, puppet: &UserId, valid_until_ms: Option<i64>) -> Result<String> {
        self.check_gives_tokens()?;
        self.check_blocking(Some(admin.as_str())).await?;
        let tokens = NewTokens {
            user_id: admin.to_string(),
            device_id: None,
            access_token: credentials::access_token(puppet.localpart()),
            valid_until_ms,
            puppets: Some(puppet.to_string()),
            refresh: None,
            now_ms: self.cx.now_ms(),
        };
        self.cx.store.add_tokens(&tokens, None).await?;
        Ok(tokens.access_token)
    }
}

/// 400 M_TOO_LARGE for names longer than 100 characters.
pub fn check_device_name(name: Option<&str>) -> Result<()> {
    if name.is_some_and(|n| n.chars().count() > MAX_DEVICE_NAME) {
        let message = format!("Device display name is too long (max {MAX_DEVICE_NAME})");
        return Err(Error::client(400, "M_TOO_LARGE", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_lifetime_counts() {
        assert_eq!(expiry(10, &[None, Some(5), Some(3)]), Some(13));
        assert_eq!(expiry(10, &[None]), None);
        assert_eq!(expiry(10, &[Some(u64::MAX)]), Some(i64::MAX));
    }

    #[test]
    fn device_names_are_counted_in_characters() {
        assert!(check_device_name(Some(&"ä".repeat(100))).is_ok());
        assert!(check_device_name(Some(&"a".repeat(101))).is_err());
    }
}
