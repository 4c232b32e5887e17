//! Addresses of users: table `user_threepids`, and at which identity servers they were bound:
//! `user_threepid_id_server`.

use crate::Store;
use serde::Serialize;
use types::Result;

/// An e-mail address or phone number of a user.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Threepid {
    /// `email` or `msisdn`.
    pub medium: String,
    pub address: String,
    /// Milliseconds.
    pub validated_at: i64,
    /// Milliseconds.
    pub added_at: i64,
}

impl Store {
    pub async fn threepids(&self, user_id: &str) -> Result<Vec<Threepid>> {
        let sql = "SELECT medium, address, validated_at, added_at FROM user_threepids WHERE user_id = $1";
        let rows = self.db.query(sql, &[&user_id]).await?;
        let parse = |r: &tokio_postgres::Row| Threepid {
            medium: r.get(0),
            address: r.get(1),
            validated_at: r.get(2),
            added_at: r.get(3),
        };
        Ok(rows.iter().map(parse).collect())
    }

    /// Whose address it is.
    pub async fn threepid_owner(&self, medium: &str, address: &str) -> Result<Option<String>> {
        let sql = "SELECT user_id FROM user_threepids WHERE medium = $1 AND address = $2";
        Ok(self.db.query_opt(sql, &[&medium, &address]).await?.map(|r| r.get(0)))
    }

    pub async fn add_threepid(&self, user_id: &str, t: &Threepid) -> Result<()> {
        let sql = "INSERT INTO user_threepids (user_id, medium, address, validated_at, added_at)
                   VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (medium, address) DO UPDATE SET user_id = EXCLUDED.user_id,
                       validated_at = EXCLUDED.validated_at, added_at = EXCLUDED.added_at";
        let params: crate::Params<'_> = &[&user_id, &t.medium, &t.address, &t.validated_at, &t.added_at];
        self.db.execute(sql, params).await.map(|_| ())
    }

    /// Removes one address, or all if `only` is None.
    pub async fn delete_threepids(&self, user_id: &str, only: Option<(&str, &str)>) -> Result<()> {
        let (medium, address) = only.unzip();
        let sql = "DELETE FROM user_threepids WHERE user_id = $1
                       AND ($2::text IS NULL OR (medium = $2 AND address = $3::text))";
        self.db.execute(sql, &[&user_id, &medium, &address]).await.map(|_| ())
    }

    /// Remembers that an identity server was asked to bind an address.
    pub async fn add_bound_threepid(&self, user_id: &str, medium: &str, address: &str, id_server: &str) -> Result<()> {
        let sql = "INSERT INTO user_threepid_id_server (user_id, medium, address, id_server) VALUES ($1, $2, $3, $4)
                   ON CONFLICT DO NOTHING";
        self.db.execute(sql, &[&user_id, &medium, &address, &id_server]).await.map(|_| ())
    }

    /// Forgets that an identity server was asked to bind an address.
    pub async fn delete_bound_threepid(
        &self,
        user_id: &str,
        medium: &str,
        address: &str,
        id_server: &str,
    ) -> Result<()> {
        let sql = "DELETE FROM user_threepid_id_server
                   WHERE user_id = $1 AND medium = $2 AND address = $3 AND id_server = $4";
        self.db.execute(sql, &[&user_id, &medium, &address, &id_server]).await.map(|_| ())
    }

    /// What identity servers were asked to bind for a user: medium, address, identity server.
    pub async fn bound_threepids(&self, user_id: &str) -> Result<Vec<(String, String, String)>> {
        let sql = "SELECT medium, address, id_server FROM user_threepid_id_server WHERE user_id = $1";
        let rows = self.db.query(sql, &[&user_id]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect())
    }
}
