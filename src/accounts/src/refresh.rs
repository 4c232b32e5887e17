//! Exchanging a refresh token.

use crate::{Accounts, Session};
use ruma::OwnedUserId;
use store::tokens::{NewRefresh, NewTokens};
use types::{Error, Result, credentials};

fn earliest(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    [a, b].into_iter().flatten().min()
}

impl Accounts {
    /// New tokens for a refresh token, which can be repeated until one of the new ones is used. Only the main process may.
    pub async fn refresh(&self, token: &str) -> Result<Session> {
        self.check_gives_tokens()?;
        if !credentials::refresh_token_is_wellformed(token) {
            return Err(Error::unknown_token("invalid refresh token"));
        }
        let old = self.cx.store.refresh_token(token).await?;
        let old = old.ok_or_else(|| Error::unknown_token("refresh token does not exist"))?;
        if old.next_used || old.next_refreshed {
            return Err(Error::forbidden("refresh token isn't valid anymore"));
        }
        let now_ms = self.cx.now_ms();
        if old.expiry_ts.is_some_and(|t| t < now_ms) {
            return Err(Error::forbidden("The supplied refresh token has expired"));
        }
        let end = old.ultimate_session_expiry_ts;
        if end.is_some_and(|t| t < now_ms) {
            return Err(Error::forbidden("The session has expired and can no longer be refreshed"));
        }
        let user_id = OwnedUserId::try_from(old.user_id.as_str())?;
        self.check_blocking(Some(user_id.as_str())).await?;
        let s = &self.cx.config.sessions;
        let after = |lifetime: Option<u64>| lifetime.map(|l| now_ms.saturating_add(l as i64));
        let new = NewTokens {
            user_id: old.user_id.clone(),
            device_id: Some(old.device_id.clone()),
            access_token: credentials::access_token(user_id.localpart()),
            valid_until_ms: earliest(after(s.refreshable_access_token_lifetime_ms), end),
            puppets: None,
            refresh: Some(NewRefresh {
                token: credentials::refresh_token(user_id.localpart()),
                expiry_ts: earliest(after(s.refresh_token_lifetime_ms), end),
                ultimate_session_expiry_ts: end,
                replaces: Some(old.id),
            }),
            now_ms,
        };
        self.cx.store.add_tokens(&new, None).await?;
        Ok(Session {
            device_id: old.device_id,
            access_token: new.access_token,
            valid_until_ms: new.valid_until_ms,
            refresh_token: new.refresh.map(|r| r.token),
        })
    }
}
