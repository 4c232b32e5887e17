//! Work that is to be done later or elsewhere: table `scheduled_tasks`. Any process adds rows, the process of the
//! background tasks works them off.

use crate::Store;
use serde_json::Value;
use types::Result;

/// A task that is to be run.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: String,
    pub action: String,
    pub resource_id: Option<String>,
    /// Null if there are none.
    pub params: Value,
}

const COLUMNS: &str = "id, action, resource_id, params";

fn parse(row: &tokio_postgres::Row) -> Task {
    let params: Option<&str> = row.get(3);
    Task {
        id: row.get(0),
        action: row.get(1),
        resource_id: row.get(2),
        params: params.and_then(|p| serde_json::from_str(p).ok()).unwrap_or_default(),
    }
}

impl Store {
    /// Tasks of these kinds that are active, or scheduled for `now_ms` or before; oldest first.
    pub async fn due_tasks(&self, actions: &[&str], now_ms: i64, limit: i64) -> Result<Vec<Task>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM scheduled_tasks
             WHERE action = ANY($1) AND (status = 'active' OR (status = 'scheduled' AND timestamp <= $2))
             ORDER BY timestamp LIMIT $3"
        );
        Ok(self.db.query(&sql, &[&actions, &now_ms, &limit]).await?.iter().map(parse).collect())
    }

    /// Notes what became of a task that was waiting or under way: `active`, `complete`, `failed` or `cancelled`.
    pub async fn set_task_status(&self, id: &str, status: &str, error: Option<&str>, now_ms: i64) -> Result<()> {
        let sql = "UPDATE scheduled_tasks SET status = $2, error = $3, timestamp = $4
                   WHERE id = $1 AND status IN ('active', 'scheduled')";
        self.db.execute(sql, &[&id, &status, &error, &now_ms]).await?;
        Ok(())
    }

    /// Forgets tasks that ended before a time in milliseconds.
    pub async fn delete_ended_tasks(&self, before_ms: i64) -> Result<()> {
        let sql = "DELETE FROM scheduled_tasks
                   WHERE status IN ('complete', 'failed', 'cancelled') AND timestamp < $1";
        self.db.execute(sql, &[&before_ms]).await?;
        Ok(())
    }

    /// Deletes messages to a device that is gone, up to a position of the stream.
    pub async fn delete_to_device_upto(&self, user_id: &str, device_id: &str, upto: i64) -> Result<()> {
        let sql = "DELETE FROM device_inbox WHERE user_id = $1 AND device_id = $2 AND stream_id <= $3";
        self.db.execute(sql, &[&user_id, &device_id, &upto]).await?;
        Ok(())
    }
}
