//! Table `registration_tokens`.

use crate::Store;
use serde::Serialize;
use types::Result;

/// A token that lets people register.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegistrationToken {
    pub token: String,
    /// None: any number of times.
    pub uses_allowed: Option<i32>,
    /// Registrations under way.
    pub pending: i32,
    pub completed: i32,
    /// Milliseconds; None: never.
    pub expiry_time: Option<i64>,
}

impl RegistrationToken {
    /// Whether another registration may begin with it.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        let expired = self.expiry_time.is_some_and(|t| t != 0 && t < now_ms);
        let used_up = self.uses_allowed.is_some_and(|n| n != 0 && self.pending + self.completed >= n);
        !expired && !used_up
    }
}

const SELECT: &str = "SELECT token, uses_allowed, pending, completed, expiry_time FROM registration_tokens";

fn parse(r: &tokio_postgres::Row) -> RegistrationToken {
    RegistrationToken {
        token: r.get(0),
        uses_allowed: r.get(1),
        pending: r.get(2),
        completed: r.get(3),
        expiry_time: r.get(4),
    }
}

impl Store {
    pub async fn registration_token(&self, token: &str) -> Result<Option<RegistrationToken>> {
        let sql = format!("{SELECT} WHERE token = $1");
        Ok(self.db.query_opt(&sql, &[&token]).await?.as_ref().map(parse))
    }

    pub async fn registration_tokens(&self) -> Result<Vec<RegistrationToken>> {
        Ok(self.db.query(SELECT, &[]).await?.iter().map(parse).collect())
    }

    /// Adds a token. False if it exists.
    pub async fn add_registration_token(&self, token: &str, uses: Option<i32>, expiry: Option<i64>) -> Result<bool> {
        let sql = "INSERT INTO registration_tokens (token, uses_allowed, pending, completed, expiry_time)
                   VALUES ($1, $2, 0, 0, $3) ON CONFLICT (token) DO NOTHING";
        Ok(self.db.execute(sql, &[&token, &uses, &expiry]).await? > 0)
    }

    /// Changes a token. False if there is none.
    pub async fn set_registration_token(&self, token: &RegistrationToken) -> Result<bool> {
        let sql = "UPDATE registration_tokens SET uses_allowed = $2, expiry_time = $3 WHERE token = $1";
        Ok(self.db.execute(sql, &[&token.token, &token.uses_allowed, &token.expiry_time]).await? > 0)
    }

    /// Deletes a token. False if there is none.
    pub async fn delete_registration_token(&self, token: &str) -> Result<bool> {
        Ok(self.db.execute("DELETE FROM registration_tokens WHERE token = $1", &[&token]).await? > 0)
    }

    /// A registration with the token begins.
    pub async fn hold_registration_token(&self, token: &str) -> Result<()> {
        let sql = "UPDATE registration_tokens SET pending = pending + 1 WHERE token = $1";
        self.db.execute(sql, &[&token]).await.map(|_| ())
    }

    /// A registration with the token is complete.
    pub async fn use_registration_token(&self, token: &str) -> Result<()> {
        let sql = "UPDATE registration_tokens SET pending = pending - 1, completed = completed + 1 WHERE token = $1";
        self.db.execute(sql, &[&token]).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_run_out() {
        let mut t =
            RegistrationToken { token: "t".into(), uses_allowed: Some(2), pending: 1, completed: 0, expiry_time: None };
        assert!(t.is_valid(0));
        t.completed = 1;
        assert!(!t.is_valid(0));
        t.uses_allowed = None;
        assert!(t.is_valid(0));
        t.expiry_time = Some(10);
        assert!(!t.is_valid(11));
    }
}
