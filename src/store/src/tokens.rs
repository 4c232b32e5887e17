//! Access, refresh and login tokens, and the devices they belong to at login.

use crate::{Store, Tx, transaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::sync::OnceCell;
use types::{Error, Result};

/// What an access token stands for.
#[derive(Debug)]
pub struct AccessToken {
    pub id: i64,
    /// Who acts: the puppet for tokens that administrators minted.
    pub user_id: String,
    /// Who owns the token.
    pub owner: String,
    pub is_guest: bool,
    pub shadow_banned: bool,
    pub device_id: Option<String>,
    /// Milliseconds; None: for ever.
    pub valid_until_ms: Option<i64>,
    /// Whether the token was used before: from then on the refresh token it came from is worth nothing.
    used: AtomicBool,
}

/// What is known of a refresh token.
#[derive(Debug)]
pub struct RefreshToken {
    pub id: i64,
    pub user_id: String,
    pub device_id: String,
    /// The token this one was exchanged for has been exchanged itself.
    pub next_refreshed: bool,
    /// The access token this one was exchanged for has been used.
    pub next_used: bool,
    /// Milliseconds.
    pub expiry_ts: Option<i64>,
    /// Milliseconds.
    pub ultimate_session_expiry_ts: Option<i64>,
}

/// Tokens of a session to be written.
#[derive(Clone, Debug)]
pub struct NewTokens {
    pub user_id: String,
    /// None: a token without a device (minted by an administrator).
    pub device_id: Option<String>,
    pub access_token: String,
    pub valid_until_ms: Option<i64>,
    pub puppets: Option<String>,
    pub refresh: Option<NewRefresh>,
    pub now_ms: i64,
}

/// The device of a login.
#[derive(Clone, Debug, Default)]
pub struct NewDevice {
    /// Used only if the device is new.
    pub display_name: Option<String>,
    /// Identity provider and the session there.
    pub provider: Option<(String, String)>,
}

/// What [`Store::add_tokens`] made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddedTokens {
    pub access_id: i64,
    /// The device did not exist before.
    pub new_device: bool,
}

/// The refresh token that goes with an access token.
#[derive(Clone, Debug)]
pub struct NewRefresh {
    pub token: String,
    pub expiry_ts: Option<i64>,
    pub ultimate_session_expiry_ts: Option<i64>,
    /// The refresh token that is exchanged.
    pub replaces: Option<i64>,
}

/// Whose login token it was.
#[derive(Debug)]
pub struct LoginToken {
    pub user_id: String,
    pub auth_provider_id: Option<String>,
    pub auth_provider_session_id: Option<String>,
}

/// Ids of tokens count upwards in the one process that writes them (the main process), as in Synapse.
#[derive(Default)]
pub(crate) struct TokenIds {
    access: OnceCell<AtomicI64>,
    refresh: OnceCell<AtomicI64>,
}

impl TokenIds {
    async fn next(cell: &OnceCell<AtomicI64>, store: &Store, sql: &str) -> Result<i64> {
        let load = async {
            let row = store.db.query_opt(sql, &[]).await?;
            Ok::<_, Error>(AtomicI64::new(row.map_or(0, |r| r.get(0))))
        };
        Ok(cell.get_or_try_init(|| load).await?.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Store {
    /// An access token of the table; guests' tokens are not there.
    pub async fn access_token(&self, token: &str) -> Result<Option<Arc<AccessToken>>> {
        let cache = &self.accounts.tokens;
        if let Some(found) = cache.get(token) {
            return Ok(Some(found));
        }
        let stamp = cache.stamp(token);
        let row = self
            .db
            .query_opt(
                "SELECT users.name, users.is_guest, users.shadow_banned, t.id, t.device_id, t.valid_until_ms, t.user_id, t.used
                 FROM users JOIN access_tokens t ON users.name = COALESCE(t.puppets_user_id, t.user_id)
                 WHERE t.token = $1",
                &[&token],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let found = Arc::new(AccessToken {
            user_id: row.get(0),
            is_guest: row.get::<_, i16>(1) != 0,
            shadow_banned: row.get::<_, Option<bool>>(2).unwrap_or(false),
            id: row.get(3),
            device_id: row.get(4),
            valid_until_ms: row.get(5),
            owner: row.get(6),
            used: AtomicBool::new(row.get::<_, Option<bool>>(7).unwrap_or(false)),
        });
        cache.put_since(stamp, token.to_owned(), found.clone());
        Ok(Some(found))
    }

    /// Notes the first use of a token.
    pub async fn mark_access_token_used(&self, token: &AccessToken) -> Result<()> {
        if token.used.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.db.execute("UPDATE access_tokens SET used = TRUE WHERE id = $1", &[&token.id]).await?;
        token.used.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the tokens of a login or refresh, and at login the device. Only the main process may.
    /// 400 if the device of a refresh was deleted meanwhile.
    pub async fn add_tokens(&self, new: &NewTokens, device: Option<&NewDevice>) -> Result<AddedTokens> {
        let ids = &self.accounts.token_ids;
        let access_id = TokenIds::next(&ids.access, self, "SELECT COALESCE(MAX(id), 1) FROM access_tokens").await?;
        let refresh_id = match &new.refresh {
            Some(_) => {
                Some(TokenIds::next(&ids.refresh, self, "SELECT COALESCE(MAX(id), 1) FROM refresh_tokens").await?)
            }
            None => None,
        };
        transaction!(self, "add_access_token_to_user", |tx| {
            let new_device = match (&new.device_id, device) {
                (Some(id), Some(d)) => {
                    let provider = d.provider.as_ref().map(|(idp, session)| (idp.as_str(), session.as_str()));
                    tx.store_device(self, &new.user_id, id, d.display_name.as_deref(), provider).await?
                }
                (Some(id), None) => {
                    still_there(tx, &new.user_id, id).await?;
                    false
                }
                (None, _) => false,
            };
            if let (Some(id), Some(refresh)) = (refresh_id, &new.refresh) {
                add_refresh_token(tx, id, new, refresh).await?;
            }
            tx.run(
                "INSERT INTO access_tokens
                     (id, user_id, token, device_id, valid_until_ms, puppets_user_id, last_validated, refresh_token_id, used)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, FALSE)",
                &[
                    &access_id,
                    &new.user_id,
                    &new.access_token,
                    &new.device_id,
                    &new.valid_until_ms,
                    &new.puppets,
                    &new.now_ms,
                    &refresh_id,
                ],
            )
            .await?;
            if let (Some(next), Some(old)) = (refresh_id, new.refresh.as_ref().and_then(|r| r.replaces)) {
                replace_refresh_token(tx, old, next).await?;
            }
            Ok(AddedTokens { access_id, new_device })
        })
    }

    /// A refresh token and what became of the one it was exchanged for.
    pub async fn refresh_token(&self, token: &str) -> Result<Option<RefreshToken>> {
        let row = self
            .db
            .query_opt(
                "SELECT rt.id, rt.user_id, rt.device_id, nrt.next_token_id IS NOT NULL, COALESCE(at.used, FALSE),
                        rt.expiry_ts, rt.ultimate_session_expiry_ts
                 FROM refresh_tokens rt
                 LEFT JOIN refresh_tokens nrt ON rt.next_token_id = nrt.id
                 LEFT JOIN access_tokens at ON at.refresh_token_id = nrt.id
                 WHERE rt.token = $1",
                &[&token],
            )
            .await?;
        Ok(row.map(|r| RefreshToken {
            id: r.get(0),
            user_id: r.get(1),
            device_id: r.get(2),
            next_refreshed: r.get(3),
            next_used: r.get(4),
            expiry_ts: r.get(5),
            ultimate_session_expiry_ts: r.get(6),
        }))
    }

    /// Deletes one access token. False if there was none.
    pub async fn delete_access_token(&self, token: &str) -> Result<bool> {
        transaction!(self, "delete_access_token", |tx| {
            let n = tx.run("DELETE FROM access_tokens WHERE token = $1", &[&token]).await?;
            tx.forget(self, &self.accounts.tokens, token.to_owned()).await?;
            Ok(n > 0)
        })
    }

    /// Deletes all tokens of a user, but for one access token; returns the ids of the access tokens.
    pub async fn delete_user_tokens(&self, user_id: &str, except: Option<i64>) -> Result<Vec<i64>> {
        transaction!(self, "user_delete_access_tokens", |tx| {
            let rows = tx
                .query(
                    "DELETE FROM access_tokens WHERE user_id = $1 AND id IS DISTINCT FROM $2 RETURNING token, id",
                    &[&user_id, &except],
                )
                .await?;
            tx.run("DELETE FROM refresh_tokens WHERE user_id = $1", &[&user_id]).await?;
            self.forget_tokens(tx, &rows).await?;
            Ok(rows.iter().map(|r| r.get(1)).collect())
        })
    }

    /// Deletes all tokens of some devices; returns the ids of the access tokens.
    pub async fn delete_device_tokens(&self, user_id: &str, device_ids: &[String]) -> Result<Vec<i64>> {
        transaction!(self, "user_delete_access_tokens_for_devices", |tx| {
            let rows = tx
                .query(
                    "DELETE FROM access_tokens WHERE user_id = $1 AND device_id = ANY($2) RETURNING token, id",
                    &[&user_id, &device_ids],
                )
                .await?;
            let sql = "DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = ANY($2)";
            tx.run(sql, &[&user_id, &device_ids]).await?;
            self.forget_tokens(tx, &rows).await?;
            Ok(rows.iter().map(|r| r.get(1)).collect())
        })
    }

    async fn forget_tokens(&self, tx: &mut Tx, rows: &[tokio_postgres::Row]) -> Result<()> {
        let name = self.accounts.tokens.name();
        let entries = rows.iter().map(|r| (name.to_owned(), Some(vec![r.get::<_, String>(0)]))).collect();
        tx.forget_many(self, entries).await
    }

    /// When a token's owner last proved who they are (milliseconds; 0: unknown).
    pub async fn token_last_validated(&self, id: i64) -> Result<i64> {
        let row = self.db.query_opt("SELECT last_validated FROM access_tokens WHERE id = $1", &[&id]).await?;
        Ok(row.and_then(|r| r.get(0)).unwrap_or(0))
    }

    /// Notes that a token's owner has just proved who they are.
    pub async fn set_token_last_validated(&self, id: i64, now_ms: i64) -> Result<()> {
        self.db.execute("UPDATE access_tokens SET last_validated = $2 WHERE id = $1", &[&id, &now_ms]).await?;
        Ok(())
    }

    /// Keeps a login token.
    pub async fn add_login_token(
        &self,
        user_id: &str,
        token: &str,
        expiry_ts: i64,
        provider: Option<&str>,
    ) -> Result<()> {
        let sql = "INSERT INTO login_tokens (token, user_id, expiry_ts, auth_provider_id) VALUES ($1, $2, $3, $4)";
        self.db.execute(sql, &[&token, &user_id, &expiry_ts, &provider]).await?;
        Ok(())
    }

    /// Uses up a login token. None if it is unknown, was used or has expired.
    pub async fn consume_login_token(&self, token: &str, now_ms: i64) -> Result<Option<LoginToken>> {
        let row = self
            .db
            .query_opt(
                "UPDATE login_tokens SET used_ts = $2 WHERE token = $1 AND used_ts IS NULL
                 RETURNING user_id, expiry_ts, auth_provider_id, auth_provider_session_id",
                &[&token, &now_ms],
            )
            .await?;
        let Some(r) = row.filter(|r| now_ms <= r.get::<_, i64>(1)) else { return Ok(None) };
        Ok(Some(LoginToken { user_id: r.get(0), auth_provider_id: r.get(2), auth_provider_session_id: r.get(3) }))
    }

    /// Deletes login tokens that expired before a time in milliseconds.
    pub async fn delete_expired_login_tokens(&self, before_ms: i64) -> Result<u64> {
        self.db.execute("DELETE FROM login_tokens WHERE expiry_ts <= $1", &[&before_ms]).await
    }
}

async fn still_there(tx: &Tx, user_id: &str, device_id: &str) -> Result<()> {
    let sql = "SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2 FOR SHARE";
    match tx.query_opt(sql, &[&user_id, &device_id]).await? {
        Some(_) => Ok(()),
        None => Err(Error::bad_request("Login raced against device deletion")),
    }
}

async fn add_refresh_token(tx: &Tx, id: i64, new: &NewTokens, refresh: &NewRefresh) -> Result<()> {
    tx.run(
        "INSERT INTO refresh_tokens (id, user_id, device_id, token, expiry_ts, ultimate_session_expiry_ts)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[&id, &new.user_id, &new.device_id, &refresh.token, &refresh.expiry_ts, &refresh.ultimate_session_expiry_ts],
    )
    .await?;
    Ok(())
}

/// Links `old` to its successor. A successor it had before that nobody used goes, and so do `old`'s predecessors.
async fn replace_refresh_token(tx: &Tx, old: i64, next: i64) -> Result<()> {
    let row = tx.query_opt("SELECT next_token_id FROM refresh_tokens WHERE id = $1", &[&old]).await?;
    let before: Option<i64> = row.and_then(|r| r.get(0));
    tx.run("UPDATE refresh_tokens SET next_token_id = $2 WHERE id = $1", &[&old, &next]).await?;
    if let Some(before) = before {
        tx.run("DELETE FROM refresh_tokens WHERE id = $1", &[&before]).await?;
    }
    tx.run("DELETE FROM refresh_tokens WHERE next_token_id = $1", &[&old]).await?;
    Ok(())
}
