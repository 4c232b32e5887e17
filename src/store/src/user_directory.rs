//! Searching the user directory: tables `user_directory*`, `users_in_public_rooms`, `users_who_share_private_rooms`.

use crate::Store;
use serde::Serialize;
use types::Result;

/// A user as the directory shows them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DirectoryUser {
    pub user_id: String,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

/// A search. The three queries are in PostgreSQL's `tsquery` syntax.
#[derive(Clone, Debug)]
pub struct DirectorySearch<'a> {
    pub searcher: &'a str,
    /// Words or prefixes: what matches at all.
    pub full: String,
    /// Whole words: what ranks high.
    pub exact: String,
    /// Prefixes.
    pub prefix: String,
    /// Also users the searcher shares no room with.
    pub all_users: bool,
    pub local_only: bool,
    /// Ranks users of this server higher.
    pub prefer_local: bool,
    pub show_locked: bool,
    pub limit: i64,
}

impl Store {
    /// The best matches.
    pub async fn search_user_directory(&self, s: &DirectorySearch<'_>) -> Result<Vec<DirectoryUser>> {
        let visible = if s.all_users {
            "d.user_id <> $1"
        } else {
            "(EXISTS (SELECT 1 FROM users_in_public_rooms p WHERE p.user_id = d.user_id)
              OR EXISTS (SELECT 1 FROM users_who_share_private_rooms r WHERE r.user_id = $1 AND r.other_user_id = d.user_id))"
        };
        let join = if s.local_only { "JOIN" } else { "LEFT JOIN" };
        let sql = format!(
            "WITH t AS (SELECT user_id, vector FROM user_directory_search
                        WHERE vector @@ to_tsquery('simple', $2) LIMIT 10000)
             SELECT d.user_id, d.display_name, d.avatar_url
             FROM t JOIN user_directory d USING (user_id) {join} users u ON u.name = d.user_id
             WHERE {visible} AND ($3 OR u.locked IS NOT TRUE)
             ORDER BY 4.0
                 * (CASE WHEN d.display_name IS NOT NULL THEN 1.2 ELSE 1.0 END)
                 * (CASE WHEN d.avatar_url IS NOT NULL THEN 1.2 ELSE 1.0 END)
                 * (3 * ts_rank_cd('{{0.1, 0.1, 0.9, 1.0}}', t.vector, to_tsquery('simple', $4), 8)
                    + ts_rank_cd('{{0.1, 0.1, 0.9, 1.0}}', t.vector, to_tsquery('simple', $5), 8))
                 * (CASE WHEN $6 AND d.user_id LIKE $7 THEN 2.0 ELSE 1.0 END) DESC,
                 d.display_name IS NULL, d.avatar_url IS NULL
             LIMIT $8"
        );
        let ours = format!("%:{}", self.server_name);
        let rows = self
            .db
            .query(&sql, &[&s.searcher, &s.full, &s.show_locked, &s.exact, &s.prefix, &s.prefer_local, &ours, &s.limit])
            .await?;
        Ok(rows
            .iter()
            .map(|r| DirectoryUser { user_id: r.get(0), display_name: r.get(1), avatar_url: r.get(2) })
            .collect())
    }
}
