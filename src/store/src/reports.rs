//! `event_reports`, `room_reports`, `user_reports`. The main process writes them; ids count up from 1.

use crate::Store;
use crate::db::{back_off, is_constraint};
use types::Result;

impl Store {
    /// `content` is the whole body of the report.
    pub async fn report_event(
        &self,
        at_ms: i64,
        room_id: &str,
        event_id: &str,
        by: &str,
        reason: Option<&str>,
        content: &str,
    ) -> Result<()> {
        let sql = "INSERT INTO event_reports (id, received_ts, room_id, event_id, user_id, reason, content)
                   SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6 FROM event_reports";
        self.insert_report(sql, &[&at_ms, &room_id, &event_id, &by, &reason, &content]).await
    }

    pub async fn report_room(&self, at_ms: i64, room_id: &str, by: &str, reason: &str) -> Result<()> {
        let sql = "INSERT INTO room_reports (id, received_ts, room_id, user_id, reason)
                   SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4 FROM room_reports";
        self.insert_report(sql, &[&at_ms, &room_id, &by, &reason]).await
    }

    pub async fn report_user(&self, at_ms: i64, target: &str, by: &str, reason: &str) -> Result<()> {
        let sql = "INSERT INTO user_reports (id, received_ts, target_user_id, user_id, reason)
                   SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4 FROM user_reports";
        self.insert_report(sql, &[&at_ms, &target, &by, &reason]).await
    }

    /// Two reports at once compute the same id; the primary key lets one through.
    async fn insert_report(&self, sql: &str, params: crate::Params<'_>) -> Result<()> {
        let mut attempt = 0;
        loop {
            match self.db.execute(sql, params).await {
                Err(e) if is_constraint(&e) && attempt < 8 => back_off(&mut attempt).await,
                other => return other.map(|_| ()),
            }
        }
    }
}
