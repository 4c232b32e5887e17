//! Who users are at identity providers: table `user_external_ids`.

use crate::{Store, transaction};
use types::{Error, Result};

/// An identity at a provider.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExternalId {
    pub auth_provider: String,
    pub external_id: String,
}

impl Store {
    /// Identities of a user at identity providers.
    pub async fn external_ids(&self, user_id: &str) -> Result<Vec<ExternalId>> {
        let sql = "SELECT auth_provider, external_id FROM user_external_ids WHERE user_id = $1";
        let rows = self.db.query(sql, &[&user_id]).await?;
        Ok(rows.iter().map(|r| ExternalId { auth_provider: r.get(0), external_id: r.get(1) }).collect())
    }

    /// The user behind an identity.
    pub async fn user_by_external_id(&self, provider: &str, external_id: &str) -> Result<Option<String>> {
        let sql = "SELECT user_id FROM user_external_ids WHERE auth_provider = $1 AND external_id = $2";
        Ok(self.db.query_opt(sql, &[&provider, &external_id]).await?.map(|r| r.get(0)))
    }

    /// Ties an identity to a user. 400 if it is another user's already.
    pub async fn add_external_id(&self, provider: &str, external_id: &str, user_id: &str) -> Result<()> {
        transaction!(self, "record_user_external_id", |tx| {
            let sql = "INSERT INTO user_external_ids (auth_provider, external_id, user_id) VALUES ($1, $2, $3)
                       ON CONFLICT (auth_provider, external_id) DO NOTHING";
            if tx.run(sql, &[&provider, &external_id, &user_id]).await? == 0 {
                let sql = "SELECT user_id FROM user_external_ids WHERE auth_provider = $1 AND external_id = $2";
                let owner: Option<String> = tx.query_opt(sql, &[&provider, &external_id]).await?.map(|r| r.get(0));
                if owner.as_deref() != Some(user_id) {
                    return Err(Error::bad_request("external_id: belongs to another user"));
                }
            }
            tx.forget_named(self, "get_user_by_external_id", Some(vec![provider.to_owned(), external_id.to_owned()]))
                .await
        })
    }
}
