//! Account data and tags, written by the process that owns them.

use crate::Accounts;
use config::StreamGroup;
use serde_json::{Map, Value, json};
use types::Result;

impl Accounts {
    /// Sets account data of a user, of the whole account or of a room. The content is not looked at.
    pub async fn set_account_data(
        &self,
        user_id: &str,
        room_id: Option<&str>,
        kind: &str,
        content: &Value,
    ) -> Result<()> {
        if self.cx.duties.writes(StreamGroup::AccountData) {
            return self.cx.store.set_account_data(user_id, room_id, kind, content).await.map(|_| ());
        }
        let payload = Map::from_iter([("content".to_owned(), content.clone())]);
        match room_id {
            None => self.ask_writer("add_user_account_data", &[user_id, kind], payload).await,
            Some(room) => self.ask_writer("add_room_account_data", &[user_id, room, kind], payload).await,
        }
    }

    /// Removes account data (MSC3391).
    pub async fn remove_account_data(&self, user_id: &str, room_id: Option<&str>, kind: &str) -> Result<()> {
        if self.cx.duties.writes(StreamGroup::AccountData) {
            return self.cx.store.remove_account_data(user_id, room_id, kind).await.map(|_| ());
        }
        match room_id {
            None => self.ask_writer("remove_user_account_data", &[user_id, kind], Map::new()).await,
            Some(room) => {
                let payload = Map::from_iter([("content".to_owned(), json!({}))]);
                self.ask_writer("remove_room_account_data", &[user_id, room, kind], payload).await
            }
        }
    }

    /// Tags a room.
    pub async fn add_tag(&self, user_id: &str, room_id: &str, tag: &str, content: &Value) -> Result<()> {
        if self.cx.duties.writes(StreamGroup::AccountData) {
            return self.cx.store.add_tag(user_id, room_id, tag, content).await.map(|_| ());
        }
        let payload = Map::from_iter([("content".to_owned(), content.clone())]);
        self.ask_writer("add_tag", &[user_id, room_id, tag], payload).await
    }

    /// Takes a tag off a room.
    pub async fn remove_tag(&self, user_id: &str, room_id: &str, tag: &str) -> Result<()> {
        if self.cx.duties.writes(StreamGroup::AccountData) {
            return self.cx.store.remove_tag(user_id, room_id, tag).await.map(|_| ());
        }
        self.ask_writer("remove_tag", &[user_id, room_id, tag], Map::new()).await
    }

    async fn ask_writer(&self, name: &str, args: &[&str], payload: Map<String, Value>) -> Result<()> {
        let writer = self.cx.owner(StreamGroup::AccountData, args.first().copied().unwrap_or_default());
        self.cx.peers.call(writer, name, args, false, payload).await.map(|_| ())
    }
}

impl Accounts {
    /// 503 if another process writes push rules: it was not there to take the request.
    pub fn check_push_writer(&self) -> Result<()> {
        if self.cx.duties.writes(StreamGroup::PushRules) {
            return Ok(());
        }
        Err(types::Error::unavailable("The process that writes push rules must be asked"))
    }
}
