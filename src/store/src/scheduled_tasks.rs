//! Work that is to be done later or elsewhere: table `scheduled_tasks`. Any process adds rows, the process of the
//! background tasks works them off.

use crate::{Store, transaction};
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

/// A task that was left, and those it stands in for.
#[derive(Clone, Debug)]
pub struct Replaced {
    pub id: String,
    pub cancelled: Vec<String>,
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

    /// Leaves a task for a resource in place of those of this kind that wait or are under way. `now_ms`: when.
    pub async fn replace_task(&self, action: &str, resource: &str, params: &Value, now_ms: i64) -> Result<Replaced> {
        let id = types::credentials::letters(16);
        let text = params.to_string();
        transaction!(self, "replace_scheduled_task", |tx| {
            let sql = "UPDATE scheduled_tasks SET status = 'cancelled', timestamp = $3
                       WHERE action = $1 AND resource_id = $2 AND status IN ('active', 'scheduled') RETURNING id";
            let cancelled = tx.query(sql, &[&action, &resource, &now_ms]).await?.iter().map(|r| r.get(0)).collect();
            let sql = "INSERT INTO scheduled_tasks (id, action, status, timestamp, resource_id, params)
                       VALUES ($1, $2, 'scheduled', $3, $4, $5)";
            tx.run(sql, &[&id, &action, &now_ms, &resource, &text]).await?;
            Ok(Replaced { id: id.clone(), cancelled })
        })
    }

    /// Deletes one-time keys from before a time in milliseconds whose ids look like libolm's, of the next users after
    /// one. Clients that use libolm may have forgotten such keys. Returns the last user; None if there are no more.
    pub async fn delete_old_one_time_keys(&self, after: &str, users: i64, before_ms: i64) -> Result<Option<String>> {
        transaction!(self, "delete_old_otks_for_next_user_batch", |tx| {
            let sql =
                "SELECT DISTINCT user_id FROM e2e_one_time_keys_json WHERE user_id > $1 ORDER BY user_id LIMIT $2";
            let names: Vec<String> = tx.query(sql, &[&after, &users]).await?.iter().map(|r| r.get(0)).collect();
            let Some(last) = names.last().cloned() else { return Ok(None) };
            let sql = "DELETE FROM e2e_one_time_keys_json
                       WHERE user_id = ANY($1) AND ts_added_ms < $2 AND length(key_id) = 6";
            tx.run(sql, &[&names, &before_ms]).await?;
            Ok(Some(last))
        })
    }

    /// Notes what became of a task that was waiting or under way: `active`, `complete`, `failed` or `cancelled`.
    /// Returns false if it had ended already.
    pub async fn set_task_status(&self, id: &str, status: &str, error: Option<&str>, now_ms: i64) -> Result<bool> {
        let sql = "UPDATE scheduled_tasks SET status = $2, error = $3, timestamp = $4
                   WHERE id = $1 AND status IN ('active', 'scheduled')";
        Ok(self.db.execute(sql, &[&id, &status, &error, &now_ms]).await? > 0)
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
