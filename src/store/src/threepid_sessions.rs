//! Verifying addresses: tables `threepid_validation_session` and `threepid_validation_token`.

use crate::{Store, transaction};
use types::{Error, Result};

/// Somebody is showing that an address is theirs, or has.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreepidSession {
    /// `sid`.
    pub id: String,
    /// `email` or `msisdn`.
    pub medium: String,
    pub address: String,
    pub last_send_attempt: i64,
    /// Milliseconds; None: not yet.
    pub validated_at: Option<i64>,
}

/// A token that was sent to an address.
#[derive(Clone, Debug)]
pub struct ThreepidToken {
    pub token: String,
    /// Where the browser goes afterwards.
    pub next_link: Option<String>,
    /// Milliseconds.
    pub expires: i64,
}

const COLUMNS: &str =
    "SELECT session_id, medium, address, last_send_attempt, validated_at FROM threepid_validation_session";

fn session(r: &tokio_postgres::Row) -> ThreepidSession {
    ThreepidSession {
        id: r.get(0),
        medium: r.get(1),
        address: r.get(2),
        last_send_attempt: r.get(3),
        validated_at: r.get(4),
    }
}

impl Store {
    /// A session for an address that isn't validated yet.
    pub async fn open_threepid_session(
        &self,
        medium: &str,
        address: &str,
        secret: &str,
    ) -> Result<Option<ThreepidSession>> {
        let sql = format!(
            "{COLUMNS} WHERE medium = $1 AND address = $2 AND client_secret = $3 AND validated_at IS NULL LIMIT 1"
        );
        Ok(self.db.query_opt(&sql, &[&medium, &address, &secret]).await?.as_ref().map(session))
    }

    /// A session that was validated.
    pub async fn validated_threepid_session(
        &self,
        medium: &str,
        id: &str,
        secret: &str,
    ) -> Result<Option<ThreepidSession>> {
        let sql = format!(
            "{COLUMNS} WHERE medium = $1 AND session_id = $2 AND client_secret = $3 AND validated_at IS NOT NULL"
        );
        Ok(self.db.query_opt(&sql, &[&medium, &id, &secret]).await?.as_ref().map(session))
    }

    /// Begins a session, or goes on with one, by a token that was sent to its address.
    pub async fn add_threepid_token(
        &self,
        session: &ThreepidSession,
        secret: &str,
        token: &ThreepidToken,
    ) -> Result<()> {
        transaction!(self, "start_or_continue_validation_session", |tx| {
            tx.run(
                "INSERT INTO threepid_validation_session (session_id, medium, address, client_secret, last_send_attempt)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (session_id) DO UPDATE SET last_send_attempt = EXCLUDED.last_send_attempt",
                &[&session.id, &session.medium, &session.address, &secret, &session.last_send_attempt],
            )
            .await?;
            tx.run(
                "INSERT INTO threepid_validation_token (session_id, token, next_link, expires) VALUES ($1, $2, $3, $4)",
                &[&session.id, &token.token, &token.next_link, &token.expires],
            )
            .await?;
            Ok(())
        })
    }

    /// Validates a session by the token that was sent. Returns where the browser goes next, if anywhere.
    /// 400 M_THREEPID_AUTH_FAILED says what doesn't fit. `tell_unknown`: also whether there is such a session.
    pub async fn validate_threepid(
        &self,
        id: &str,
        secret: &str,
        token: &str,
        now_ms: i64,
        tell_unknown: bool,
    ) -> Result<Option<String>> {
        let wrong = |message: &'static str| Err(Error::client(400, "M_THREEPID_AUTH_FAILED", message));
        transaction!(self, "validate_threepid_session_txn", |tx| {
            let sql =
                "SELECT client_secret, validated_at FROM threepid_validation_session WHERE session_id = $1 FOR UPDATE";
            let session = tx.query_opt(sql, &[&id]).await?;
            if session.is_none() && tell_unknown {
                return wrong("Unknown session_id");
            }
            let sql = "SELECT expires, next_link FROM threepid_validation_token WHERE session_id = $1 AND token = $2";
            let (Some(session), Some(found)) = (session, tx.query_opt(sql, &[&id, &token]).await?) else {
                return wrong("Validation token not found or has expired");
            };
            if session.get::<_, String>(0) != secret {
                return wrong("This client_secret does not match the provided session_id");
            }
            let next_link: Option<String> = found.get(1);
            if session.get::<_, Option<i64>>(1).is_some() {
                return Ok(next_link);
            }
            if found.get::<_, i64>(0) <= now_ms {
                return wrong("This token has expired. Please request a new one");
            }
            let sql = "UPDATE threepid_validation_session SET validated_at = $2 WHERE session_id = $1";
            tx.run(sql, &[&id, &now_ms]).await?;
            Ok(next_link)
        })
    }

    /// Deletes a session that has served its purpose.
    pub async fn delete_threepid_session(&self, id: &str) -> Result<()> {
        transaction!(self, "delete_threepid_session", |tx| {
            tx.run("DELETE FROM threepid_validation_token WHERE session_id = $1", &[&id]).await?;
            tx.run("DELETE FROM threepid_validation_session WHERE session_id = $1", &[&id]).await?;
            Ok(())
        })
    }

    /// Deletes tokens that expired.
    pub async fn delete_expired_threepid_tokens(&self, now_ms: i64) -> Result<()> {
        let sql = "DELETE FROM threepid_validation_token WHERE expires < $1";
        self.db.execute(sql, &[&now_ms]).await.map(|_| ())
    }
}
