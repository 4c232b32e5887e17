//! What goes when an account ends.

use crate::{Store, transaction};
use types::Result;

/// Rows of a deactivated user: (table, column).
const GONE: &[(&str, &str)] = &[
    ("account_data", "user_id"),
    ("room_account_data", "user_id"),
    ("ignored_users", "ignorer_user_id"),
    ("push_rules", "user_name"),
    ("push_rules_enable", "user_name"),
    ("push_rules_stream", "user_id"),
    ("thread_subscriptions", "user_id"),
    ("e2e_room_keys", "user_id"),
    ("e2e_room_keys_versions", "user_id"),
    ("user_directory", "user_id"),
    ("user_directory_search", "user_id"),
    ("users_in_public_rooms", "user_id"),
    ("users_who_share_private_rooms", "user_id"),
    ("users_who_share_private_rooms", "other_user_id"),
];

/// Caches with entries of the user as (the first part of) their key.
const CACHES: &[&str] = &[
    "get_user_by_id",
    "get_user_deactivated_status",
    "is_guest",
    "get_account_data_for_room_and_type",
    "get_global_account_data_for_user",
    "get_room_account_data_for_user",
    "get_global_account_data_by_type_for_user",
    "get_account_data_for_room",
    "get_push_rules_for_user",
    "get_subscription_for_thread",
    "ignored_users",
];

impl Store {
    /// Marks an account as deactivated and deletes what the server keeps for its owner. The rooms are left later:
    /// see [`Store::next_to_part`]. `erase`: the profile goes too, and the user is marked as erased.
    pub async fn deactivate_user(&self, user_id: &str, erase: bool) -> Result<()> {
        transaction!(self, "deactivate_user", |tx| {
            for (table, column) in GONE {
                tx.run(&format!("DELETE FROM {table} WHERE {column} = $1"), &[&user_id]).await?;
            }
            let mut forget: Vec<(String, Option<Vec<String>>)> =
                CACHES.iter().map(|c| ((*c).to_owned(), Some(vec![user_id.to_owned()]))).collect();
            forget.push(("ignored_by".to_owned(), None));
            if erase {
                tx.run("DELETE FROM profiles WHERE full_user_id = $1", &[&user_id]).await?;
                let sql = "INSERT INTO erased_users (user_id) VALUES ($1) ON CONFLICT DO NOTHING";
                tx.run(sql, &[&user_id]).await?;
                forget.push(("is_user_erased".to_owned(), Some(vec![user_id.to_owned()])));
            }
            tx.run("INSERT INTO users_pending_deactivation (user_id) VALUES ($1)", &[&user_id]).await?;
            tx.run("UPDATE users SET deactivated = 1 WHERE name = $1", &[&user_id]).await?;
            tx.forget_many(self, forget).await
        })
    }

    /// A deactivated user who is still in rooms.
    pub async fn next_to_part(&self) -> Result<Option<String>> {
        let sql = "SELECT user_id FROM users_pending_deactivation LIMIT 1";
        Ok(self.db.query_opt(sql, &[]).await?.map(|r| r.get(0)))
    }

    /// A deactivated user has left all rooms.
    pub async fn parted(&self, user_id: &str) -> Result<()> {
        self.db.execute("DELETE FROM users_pending_deactivation WHERE user_id = $1", &[&user_id]).await.map(|_| ())
    }

    /// Whether the user asked that their events be hidden from those who join later.
    pub async fn is_erased(&self, user_id: &str) -> Result<bool> {
        Ok(!self.erased_among(&[user_id]).await?.is_empty())
    }

    /// Makes a deactivated account usable again.
    pub async fn reactivate_user(&self, user_id: &ruma::UserId) -> Result<()> {
        transaction!(self, "reactivate_user", |tx| {
            let id = user_id.as_str();
            tx.run("DELETE FROM erased_users WHERE user_id = $1", &[&id]).await?;
            tx.run(
                "INSERT INTO profiles (full_user_id, user_id) VALUES ($1, $2) ON CONFLICT (full_user_id) DO NOTHING",
                &[&id, &user_id.localpart()],
            )
            .await?;
            tx.run("UPDATE users SET deactivated = 0 WHERE name = $1", &[&id]).await?;
            let names = ["is_user_erased", "get_user_by_id", "get_user_deactivated_status", "is_guest"];
            let forget = names.map(|c| (c.to_owned(), Some(vec![id.to_owned()])));
            tx.forget_many(self, forget.to_vec()).await
        })
    }
}
