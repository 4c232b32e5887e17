//! Accounts: table `users`.

use crate::{Store, Tx, transaction};
use ruma::UserId;
use std::sync::Arc;
use types::{Boxed, Error, Result};

/// A row of `users`, without the password hash.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub user_id: String,
    pub is_guest: bool,
    pub is_admin: bool,
    pub deactivated: bool,
    pub shadow_banned: bool,
    /// False while an administrator has yet to approve the account (MSC3866).
    pub approved: bool,
    pub locked: bool,
    pub suspended: bool,
    /// Application service the account belongs to.
    pub appservice_id: Option<String>,
    /// `bot`, `support` or what an administrator configured.
    pub user_type: Option<String>,
    pub consent_version: Option<String>,
    /// Milliseconds.
    pub consent_ts: Option<i64>,
    pub consent_server_notice_sent: Option<String>,
    /// Seconds, as the table has it.
    pub creation_ts: i64,
}

const SELECT_USER: &str = "
    SELECT name, is_guest, admin, deactivated, COALESCE(shadow_banned, FALSE), COALESCE(approved, TRUE),
           COALESCE(locked, FALSE), suspended, appservice_id, user_type, consent_version, consent_ts,
           consent_server_notice_sent, COALESCE(creation_ts, 0)
    FROM users WHERE name = $1";

fn parse(row: &tokio_postgres::Row) -> User {
    User {
        user_id: row.get(0),
        is_guest: row.get::<_, i16>(1) != 0,
        is_admin: row.get::<_, i16>(2) != 0,
        deactivated: row.get::<_, i16>(3) != 0,
        shadow_banned: row.get(4),
        approved: row.get(5),
        locked: row.get(6),
        suspended: row.get(7),
        appservice_id: row.get(8),
        user_type: row.get(9),
        consent_version: row.get(10),
        consent_ts: row.get(11),
        consent_server_notice_sent: row.get(12),
        creation_ts: row.get(13),
    }
}

/// A flag of an account that an administrator (or the user, for `Deactivated`) changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserFlag {
    Admin,
    Deactivated,
    Locked,
    Suspended,
    Approved,
    ShadowBanned,
}

impl UserFlag {
    fn statement(self) -> &'static str {
        match self {
            UserFlag::Admin => "UPDATE users SET admin = $2::boolean::int WHERE name = $1",
            UserFlag::Deactivated => "UPDATE users SET deactivated = $2::boolean::int WHERE name = $1",
            UserFlag::Locked => "UPDATE users SET locked = $2 WHERE name = $1",
            UserFlag::Suspended => "UPDATE users SET suspended = $2 WHERE name = $1",
            UserFlag::Approved => "UPDATE users SET approved = $2 WHERE name = $1",
            UserFlag::ShadowBanned => "UPDATE users SET shadow_banned = $2 WHERE name = $1",
        }
    }

    /// Caches that Synapse derives from the flag besides `get_user_by_id`.
    fn caches(self) -> &'static [&'static str] {
        match self {
            UserFlag::Admin => &["is_server_admin"],
            UserFlag::Deactivated => &["get_user_deactivated_status", "is_guest"],
            UserFlag::Locked => &["get_user_locked_status"],
            UserFlag::Suspended => &["get_user_suspended_status"],
            UserFlag::Approved => &["is_user_approved"],
            UserFlag::ShadowBanned => &[],
        }
    }
}

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub user_id: ruma::OwnedUserId,
    /// None: no login by password.
    pub password_hash: Option<String>,
    /// Turns an existing guest account into this one.
    pub was_guest: bool,
    pub make_guest: bool,
    pub appservice_id: Option<String>,
    /// Also makes the profile.
    pub displayname: Option<String>,
    pub admin: bool,
    pub user_type: Option<String>,
    pub shadow_banned: bool,
    pub approved: bool,
    /// `stats.enabled`: the new user gets a row of statistics.
    pub stats: bool,
    /// Seconds.
    pub now_s: i64,
}

fn taken() -> Error {
    Error::client(400, "M_USER_IN_USE", "User ID already taken.")
}

impl Store {
    /// An account, if it exists.
    pub fn user<'a>(&'a self, user_id: &'a str) -> Boxed<'a, Result<Option<Arc<User>>>> {
        Box::pin(async move {
            let load = async {
                let row = self.db.query_opt(SELECT_USER, &[&user_id]).await?;
                Ok(row.as_ref().map(parse).map(Arc::new))
            };
            self.accounts.users.get_or_load(user_id, load).await
        })
    }

    /// True for administrators of this server.
    pub async fn is_admin(&self, user_id: &str) -> Result<bool> {
        Ok(self.user(user_id).await?.is_some_and(|u| u.is_admin))
    }

    /// (user id, password hash) of the accounts whose id is this but for case.
    pub async fn users_ignoring_case(&self, user_id: &str) -> Result<Vec<(String, Option<String>)>> {
        let rows =
            self.db.query("SELECT name, password_hash FROM users WHERE lower(name) = lower($1)", &[&user_id]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// Makes an account with its profile. 400 M_USER_IN_USE if the name is taken.
    pub async fn register_user(&self, new: &NewUser) -> Result<()> {
        let id = new.user_id.as_str();
        let result = transaction!(self, "register_user", |tx| {
            let sql = if new.was_guest { UPGRADE_GUEST } else { INSERT_USER };
            let n = tx
                .run(
                    sql,
                    &[
                        &id,
                        &new.password_hash,
                        &new.now_s,
                        &i16::from(new.make_guest),
                        &new.appservice_id,
                        &i16::from(new.admin),
                        &new.user_type,
                        &new.shadow_banned,
                        &new.approved,
                    ],
                )
                .await?;
            if n == 0 {
                return Err(taken());
            }
            self.register_profile(tx, new).await?;
            tx.forget(self, &self.accounts.users, id.to_owned()).await
        });
        result.map_err(|e: Error| if crate::db::is_constraint(&e) { taken() } else { e })
    }

    async fn register_profile(&self, tx: &mut Tx, new: &NewUser) -> Result<()> {
        let id = new.user_id.as_str();
        if let Some(name) = &new.displayname {
            tx.run(
                "INSERT INTO profiles (full_user_id, user_id, displayname) VALUES ($1, $2, $3)",
                &[&id, &new.user_id.localpart(), name],
            )
            .await?;
        }
        if new.stats {
            tx.run(
                "INSERT INTO user_stats_current (user_id, joined_rooms, completed_delta_stream_id)
                 SELECT $1, 0, COALESCE(MAX(stream_id), 1) FROM current_state_delta_stream
                 ON CONFLICT (user_id) DO UPDATE SET completed_delta_stream_id = EXCLUDED.completed_delta_stream_id",
                &[&id],
            )
            .await?;
        }
        Ok(())
    }

    /// The next number for a generated localpart.
    pub async fn next_user_number(&self) -> Result<i64> {
        let row = self.db.query_opt("SELECT nextval('user_id_seq')", &[]).await?;
        row.map(|r| r.get(0)).ok_or_else(|| Error::internal("user_id_seq gave no number"))
    }

    /// Sets a flag. False if there is no such account.
    pub async fn set_user_flag(&self, user_id: &str, flag: UserFlag, value: bool) -> Result<bool> {
        transaction!(self, "set_user_flag", |tx| {
            let n = tx.run(flag.statement(), &[&user_id, &value]).await?;
            let mut forget = vec![("get_user_by_id".to_owned(), Some(vec![user_id.to_owned()]))];
            forget.extend(flag.caches().iter().map(|c| ((*c).to_owned(), Some(vec![user_id.to_owned()]))));
            if flag == UserFlag::ShadowBanned {
                let tokens = tx.query("SELECT token FROM access_tokens WHERE user_id = $1", &[&user_id]).await?;
                let name = self.accounts.tokens.name();
                forget.extend(tokens.iter().map(|t| (name.to_owned(), Some(vec![t.get::<_, String>(0)]))));
            }
            tx.forget_many(self, forget).await?;
            Ok(n > 0)
        })
    }

    /// Sets or removes the password.
    pub async fn set_password_hash(&self, user_id: &str, hash: Option<&str>) -> Result<()> {
        transaction!(self, "user_set_password_hash", |tx| {
            tx.run("UPDATE users SET password_hash = $2 WHERE name = $1", &[&user_id, &hash]).await?;
            tx.forget(self, &self.accounts.users, user_id.to_owned()).await
        })
    }

    /// Sets the kind of user.
    pub async fn set_user_type(&self, user_id: &str, kind: Option<&str>) -> Result<()> {
        transaction!(self, "set_user_type", |tx| {
            tx.run("UPDATE users SET user_type = $2 WHERE name = $1", &[&user_id, &kind]).await?;
            tx.forget(self, &self.accounts.users, user_id.to_owned()).await
        })
    }

    /// Notes that a user accepted a version of the policy. `now_ms`: when.
    pub async fn set_consent_version(&self, user_id: &str, version: &str, now_ms: i64) -> Result<()> {
        transaction!(self, "user_set_consent_version", |tx| {
            let sql = "UPDATE users SET consent_version = $2, consent_ts = $3 WHERE name = $1";
            tx.run(sql, &[&user_id, &version, &now_ms]).await?;
            tx.forget(self, &self.accounts.users, user_id.to_owned()).await
        })
    }

    /// Accounts that are neither bots nor support.
    pub async fn count_real_users(&self) -> Result<i64> {
        let sql = "SELECT COUNT(*) FROM users WHERE user_type IS NULL OR user_type NOT IN ('bot', 'support')";
        Ok(self.db.query_opt(sql, &[]).await?.map_or(0, |r| r.get(0)))
    }

    /// (messages a second, burst) an administrator set for a user; 0 a second: no limit at all.
    pub async fn ratelimit_override(&self, user_id: &str) -> Result<Option<(i64, i64)>> {
        let load = async {
            let sql = "SELECT messages_per_second, burst_count FROM ratelimit_override WHERE user_id = $1";
            let row = self.db.query_opt(sql, &[&user_id]).await?;
            Ok(row.map(|r| (r.get::<_, Option<i64>>(0).unwrap_or(0), r.get::<_, Option<i64>>(1).unwrap_or(0))))
        };
        self.accounts.limits.get_or_load(user_id, load).await
    }

    /// When a user was last seen (milliseconds).
    pub async fn last_seen(&self, user_id: &str) -> Result<Option<i64>> {
        let sql = "SELECT MAX(last_seen) FROM user_ips WHERE user_id = $1";
        Ok(self.db.query_opt(sql, &[&user_id]).await?.and_then(|r| r.get(0)))
    }

    /// Whether a password is set.
    pub async fn has_password(&self, user_id: &UserId) -> Result<bool> {
        let sql = "SELECT 1 FROM users WHERE name = $1 AND password_hash IS NOT NULL AND password_hash <> ''";
        Ok(self.db.query_opt(sql, &[&user_id.as_str()]).await?.is_some())
    }
}

const INSERT_USER: &str = "
    INSERT INTO users (name, password_hash, creation_ts, is_guest, appservice_id, admin, user_type, shadow_banned, approved)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const UPGRADE_GUEST: &str = "
    UPDATE users SET password_hash = $2, upgrade_ts = $3, is_guest = $4, appservice_id = $5, admin = $6,
                     user_type = $7, shadow_banned = $8, approved = $9
    WHERE name = $1 AND is_guest = 1";
