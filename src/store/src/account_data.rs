//! Account data: tables `account_data`, `room_account_data` and `ignored_users`.
//! Only the writer of the account_data stream may change them.

use crate::{Row, Store, Stream, Tx, transaction};
use serde_json::Value;
use std::collections::HashSet;
use types::{Error, Result};

const IGNORED: &str = "m.ignored_user_list";

impl Store {
    /// Account data of a user, of the whole account or of a room.
    pub async fn account_data(&self, user_id: &str, room_id: Option<&str>, kind: &str) -> Result<Option<Value>> {
        let row = match room_id {
            None => {
                let sql = "SELECT content FROM account_data WHERE user_id = $1 AND account_data_type = $2";
                self.db.query_opt(sql, &[&user_id, &kind]).await?
            }
            Some(room_id) => {
                let sql = "SELECT content FROM room_account_data
                           WHERE user_id = $1 AND account_data_type = $2 AND room_id = $3";
                self.db.query_opt(sql, &[&user_id, &kind, &room_id]).await?
            }
        };
        row.map(|r| Ok(serde_json::from_str(r.get(0))?)).transpose()
    }

    /// Sets account data; returns the stream id.
    pub async fn set_account_data(
        &self,
        user_id: &str,
        room_id: Option<&str>,
        kind: &str,
        content: &Value,
    ) -> Result<i64> {
        let text = serde_json::to_string(content)?;
        transaction!(self, "add_user_account_data", |tx| {
            let id = tx.next(&self.streams, Stream::AccountData).await?;
            let (user, instance) = (user_id, self.instance());
            match room_id {
                None => tx.run(SET_GLOBAL, &[&user, &kind, &id, &text, &instance]).await?,
                Some(room) => tx.run(SET_ROOM, &[&user, &room, &kind, &id, &text, &instance]).await?,
            };
            if room_id.is_none() && kind == IGNORED {
                let ignored = content.get("ignored_users").and_then(Value::as_object);
                let ignored = ignored.map(|o| o.keys().cloned().collect()).unwrap_or_default();
                self.set_ignored(tx, user_id, ignored).await?;
            }
            announce(tx, id, user_id, room_id, kind);
            Ok(id)
        })
    }

    /// Empties account data that is there (MSC3391); returns the stream id.
    pub async fn remove_account_data(&self, user_id: &str, room_id: Option<&str>, kind: &str) -> Result<i64> {
        transaction!(self, "remove_account_data", |tx| {
            let id = tx.next(&self.streams, Stream::AccountData).await?;
            let (user, instance) = (user_id, self.instance());
            let n = match room_id {
                None => tx.run(EMPTY_GLOBAL, &[&user, &kind, &id, &instance]).await?,
                Some(room) => tx.run(EMPTY_ROOM, &[&user, &room, &kind, &id, &instance]).await?,
            };
            if n > 0 {
                if room_id.is_none() && kind == IGNORED {
                    self.set_ignored(tx, user_id, HashSet::new()).await?;
                }
                announce(tx, id, user_id, room_id, kind);
            }
            Ok(id)
        })
    }

    async fn set_ignored(&self, tx: &mut Tx, user_id: &str, now: HashSet<String>) -> Result<()> {
        if now.contains(user_id) {
            return Err(Error::invalid_param("You cannot ignore yourself"));
        }
        let sql = "SELECT ignored_user_id FROM ignored_users WHERE ignorer_user_id = $1";
        let before: HashSet<String> = tx.query(sql, &[&user_id]).await?.iter().map(|r| r.get(0)).collect();
        let gone: Vec<&String> = before.difference(&now).collect();
        let new: Vec<&String> = now.difference(&before).collect();
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM ignored_users WHERE ignorer_user_id = $1 AND ignored_user_id = ANY($2)";
        tx.run(sql, &[&user_id, &gone]).await?;
        let sql = "INSERT INTO ignored_users (ignorer_user_id, ignored_user_id) SELECT $1, u FROM unnest($2::text[]) u";
        tx.run(sql, &[&user_id, &new]).await?;
        let mut forget: Vec<(String, Option<Vec<String>>)> =
            gone.into_iter().chain(new).map(|u| ("ignored_by".to_owned(), Some(vec![u.clone()]))).collect();
        forget.push(("ignored_users".to_owned(), Some(vec![user_id.to_owned()])));
        tx.forget_many(self, forget).await
    }
}

fn announce(tx: &mut Tx, id: i64, user_id: &str, room_id: Option<&str>, kind: &str) {
    let row =
        Row::AccountData { user_id: user_id.to_owned(), room_id: room_id.map(str::to_owned), kind: kind.to_owned() };
    tx.announce(Stream::AccountData, id, row);
}

const SET_GLOBAL: &str = "
    INSERT INTO account_data (user_id, account_data_type, stream_id, content, instance_name) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (user_id, account_data_type) DO UPDATE SET stream_id = EXCLUDED.stream_id, content = EXCLUDED.content,
        instance_name = EXCLUDED.instance_name";

const SET_ROOM: &str = "
    INSERT INTO room_account_data (user_id, room_id, account_data_type, stream_id, content, instance_name)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (user_id, room_id, account_data_type) DO UPDATE SET stream_id = EXCLUDED.stream_id,
        content = EXCLUDED.content, instance_name = EXCLUDED.instance_name";

const EMPTY_GLOBAL: &str = "
    UPDATE account_data SET stream_id = $3, content = '{}', instance_name = $4
    WHERE user_id = $1 AND account_data_type = $2 AND content <> '{}'";

const EMPTY_ROOM: &str = "
    UPDATE room_account_data SET stream_id = $4, content = '{}', instance_name = $5
    WHERE user_id = $1 AND room_id = $2 AND account_data_type = $3 AND content <> '{}'";
