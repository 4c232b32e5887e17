//! Deleting rows that nobody reads any more.

use crate::Store;
use types::Result;

impl Store {
    /// Client transaction ids from before `before_ms`: retries come sooner.
    pub async fn delete_old_transaction_ids(&self, before_ms: i64) -> Result<u64> {
        self.db.execute("DELETE FROM event_txn_id_device_id WHERE inserted_ts < $1", &[&before_ms]).await
    }

    /// Cache invalidations every process has long seen. The newest row of all stays, so that positions can be read.
    pub async fn delete_old_cache_rows(&self, before_ms: i64) -> Result<u64> {
        let sql = "DELETE FROM cache_invalidation_stream_by_instance
                   WHERE invalidation_ts < $1
                     AND stream_id < (SELECT MAX(stream_id) FROM cache_invalidation_stream_by_instance)";
        self.db.execute(sql, &[&before_ms]).await
    }

    /// Forward extremities of times before `before_ms`, but for the newest of each room.
    pub async fn delete_old_extremity_positions(&self, before_ms: i64) -> Result<u64> {
        let sql = "DELETE FROM stream_ordering_to_exterm x
                   WHERE x.stream_ordering < (SELECT COALESCE(MAX(stream_ordering), 0) FROM events WHERE received_ts < $1
                                              AND received_ts > $1 - 86400000)
                     AND EXISTS (SELECT 1 FROM stream_ordering_to_exterm y
                                 WHERE y.room_id = x.room_id AND y.stream_ordering > x.stream_ordering)";
        self.db.execute(sql, &[&before_ms]).await
    }

    /// Sightings of users, but for the last of each device.
    pub async fn delete_old_user_ips(&self, before_ms: i64) -> Result<u64> {
        self.db.execute("DELETE FROM user_ips WHERE last_seen < $1", &[&before_ms]).await
    }
}
