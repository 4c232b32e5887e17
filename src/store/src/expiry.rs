//! Messages that destroy themselves (MSC2228): table `event_expiry`, which the commit of an event fills.

use crate::events::pruned_json;
use crate::{Store, transaction};
use ruma::{EventId, OwnedEventId};
use types::Result;

/// Events taken at once.
const BATCH: i64 = 100;

impl Store {
    /// Events whose time has come, oldest first; a hundred at most.
    pub async fn expired_events(&self, now_ms: i64) -> Result<Vec<OwnedEventId>> {
        let sql = "SELECT event_id FROM event_expiry WHERE expiry_ts <= $1 ORDER BY expiry_ts LIMIT $2";
        let rows = self.db.query(sql, &[&now_ms, &BATCH]).await?;
        rows.iter().map(|r| Ok(r.get::<_, &str>(0).try_into()?)).collect()
    }

    /// Prunes an event for good, here and in the caches of all processes. One that is not here is forgotten.
    pub async fn expire_event(&self, event_id: &EventId) -> Result<()> {
        let known = self.events(&[event_id]).await?.remove(event_id);
        transaction!(self, "delete_expired_event", |tx| {
            tx.run("DELETE FROM event_expiry WHERE event_id = $1", &[&event_id.as_str()]).await?;
            if let Some(event) = &known {
                let sql = "SELECT json FROM event_json WHERE event_id = $1";
                for row in tx.query(sql, &[&event_id.as_str()]).await? {
                    let json = pruned_json(row.get(0), &event.room_version)?;
                    tx.run("UPDATE event_json SET json = $2 WHERE event_id = $1", &[&event_id.as_str(), &json]).await?;
                }
                tx.forget(self, &self.event_cache, event_id.to_string()).await?;
            }
            Ok(())
        })
    }
}
