//! Table `pushers`: where users want to be told of events. Written by the main process alone.

use crate::devices::PusherKey;
use crate::{Row, Store, Stream, transaction};
use serde_json::Value;
use types::Result;

/// A pusher.
#[derive(Clone, Debug, PartialEq)]
pub struct Pusher {
    pub user_id: String,
    /// `http` or `email`.
    pub kind: String,
    pub app_id: String,
    pub pushkey: String,
    pub app_display_name: String,
    pub device_display_name: String,
    pub profile_tag: String,
    pub lang: Option<String>,
    /// An object; for `http` with `url` and maybe `format`.
    pub data: Value,
    pub enabled: bool,
    /// The device that set it.
    pub device_id: Option<String>,
    /// Milliseconds.
    pub ts: i64,
}

const SELECT: &str = "
    SELECT user_name, kind, app_id, pushkey, app_display_name, device_display_name, profile_tag, lang, data,
           COALESCE(enabled, TRUE), device_id, ts FROM pushers";

fn parse(r: &tokio_postgres::Row) -> Pusher {
    let data: Option<&str> = r.get(8);
    Pusher {
        user_id: r.get(0),
        kind: r.get(1),
        app_id: r.get(2),
        pushkey: r.get(3),
        app_display_name: r.get(4),
        device_display_name: r.get(5),
        profile_tag: r.get(6),
        lang: r.get(7),
        data: data.and_then(|d| serde_json::from_str(d).ok()).unwrap_or(Value::Null),
        enabled: r.get(9),
        device_id: r.get(10),
        ts: r.get(11),
    }
}

impl Store {
    /// A user's pushers.
    pub async fn pushers_of(&self, user_id: &str) -> Result<Vec<Pusher>> {
        let sql = format!("{SELECT} WHERE user_name = $1 ORDER BY id");
        Ok(self.db.query(&sql, &[&user_id]).await?.iter().map(parse).collect())
    }

    /// Pushers that were set with these access tokens (before devices were noted).
    pub async fn pushers_of_tokens(&self, user_id: &str, tokens: &[i64]) -> Result<Vec<PusherKey>> {
        let sql = "SELECT app_id, pushkey FROM pushers WHERE user_name = $1 AND access_token = ANY($2)";
        let rows = self.db.query(sql, &[&user_id, &tokens]).await?;
        Ok(rows.iter().map(|r| PusherKey { app_id: r.get(0), pushkey: r.get(1) }).collect())
    }

    /// Pushers of other users for the same app and key: (user, key).
    pub async fn pushers_of_others(&self, user_id: &str, app_id: &str, pushkey: &str) -> Result<Vec<String>> {
        let sql = "SELECT user_name FROM pushers WHERE app_id = $1 AND pushkey = $2 AND user_name <> $3";
        Ok(self.db.query(sql, &[&app_id, &pushkey, &user_id]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// Adds a pusher or replaces that with the same app, key and user. It begins with events after `from`.
    pub async fn set_pusher(&self, p: &Pusher, from: i64) -> Result<()> {
        let data = serde_json::to_string(&p.data)?;
        transaction!(self, "add_pusher", |tx| {
            let id = tx.next(&self.streams, Stream::Pushers).await?;
            tx.run(
                "INSERT INTO pushers (id, user_name, profile_tag, kind, app_id, app_display_name, device_display_name,
                     pushkey, ts, lang, data, last_stream_ordering, enabled, device_id, instance_name)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                 ON CONFLICT (app_id, pushkey, user_name) DO UPDATE SET
                     id = EXCLUDED.id, profile_tag = EXCLUDED.profile_tag, kind = EXCLUDED.kind,
                     app_display_name = EXCLUDED.app_display_name,
                     device_display_name = EXCLUDED.device_display_name, ts = EXCLUDED.ts, lang = EXCLUDED.lang,
                     data = EXCLUDED.data, last_stream_ordering = EXCLUDED.last_stream_ordering,
                     enabled = EXCLUDED.enabled, device_id = COALESCE(pushers.device_id, EXCLUDED.device_id),
                     instance_name = EXCLUDED.instance_name",
                &[
                    &id,
                    &p.user_id,
                    &p.profile_tag,
                    &p.kind,
                    &p.app_id,
                    &p.app_display_name,
                    &p.device_display_name,
                    &p.pushkey,
                    &p.ts,
                    &p.lang,
                    &data,
                    &from,
                    &p.enabled,
                    &p.device_id,
                    &self.instance(),
                ],
            )
            .await?;
            let user = vec![p.user_id.clone()];
            tx.forget_named(self, "get_if_user_has_pusher", Some(user)).await?;
            let row = Row::Pusher {
                user_id: p.user_id.clone(),
                app_id: p.app_id.clone(),
                pushkey: p.pushkey.clone(),
                deleted: false,
            };
            tx.announce(Stream::Pushers, id, row);
            Ok(())
        })
    }
}
