//! Tags of rooms: tables `room_tags` and `room_tags_revisions`. Only the writer of account_data may change them.

use crate::{Row, Store, Stream, Tx, transaction};
use serde_json::{Map, Value};
use types::Result;

impl Store {
    /// A user's tags of a room, with their contents.
    pub async fn tags(&self, user_id: &str, room_id: &str) -> Result<Map<String, Value>> {
        let sql = "SELECT tag, content FROM room_tags WHERE user_id = $1 AND room_id = $2";
        let rows = self.db.query(sql, &[&user_id, &room_id]).await?;
        rows.iter().map(|r| Ok((r.get(0), serde_json::from_str(r.get(1))?))).collect()
    }

    /// Sets a tag; returns the stream id.
    pub async fn add_tag(&self, user_id: &str, room_id: &str, tag: &str, content: &Value) -> Result<i64> {
        let content = serde_json::to_string(content)?;
        transaction!(self, "add_tag", |tx| {
            let sql = "INSERT INTO room_tags (user_id, room_id, tag, content) VALUES ($1, $2, $3, $4)
                       ON CONFLICT (user_id, room_id, tag) DO UPDATE SET content = EXCLUDED.content";
            tx.run(sql, &[&user_id, &room_id, &tag, &content]).await?;
            self.revise_tags(tx, user_id, room_id).await
        })
    }

    /// Removes a tag; returns the stream id.
    pub async fn remove_tag(&self, user_id: &str, room_id: &str, tag: &str) -> Result<i64> {
        transaction!(self, "remove_tag", |tx| {
            let sql = "DELETE FROM room_tags WHERE user_id = $1 AND room_id = $2 AND tag = $3";
            tx.run(sql, &[&user_id, &room_id, &tag]).await?;
            self.revise_tags(tx, user_id, room_id).await
        })
    }

    async fn revise_tags(&self, tx: &mut Tx, user_id: &str, room_id: &str) -> Result<i64> {
        let id = tx.next(&self.streams, Stream::AccountData).await?;
        let sql = "INSERT INTO room_tags_revisions (user_id, room_id, stream_id, instance_name) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (user_id, room_id) DO UPDATE SET stream_id = EXCLUDED.stream_id,
                       instance_name = EXCLUDED.instance_name";
        tx.run(sql, &[&user_id, &room_id, &id, &self.instance()]).await?;
        let row = Row::AccountData {
            user_id: user_id.to_owned(),
            room_id: Some(room_id.to_owned()),
            kind: "m.tag".to_owned(),
        };
        tx.announce(Stream::AccountData, id, row);
        Ok(id)
    }
}
