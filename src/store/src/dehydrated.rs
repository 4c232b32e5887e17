//! Dehydrated devices (MSC3814): `dehydrated_devices`.

use crate::e2e_keys::OneTimeKey;
use crate::{Store, transaction};
use serde_json::{Map, Value};
use types::Result;

/// Keys that come with a dehydrated device.
#[derive(Clone, Debug, Default)]
pub struct DehydratedKeys {
    pub device_keys: Option<Value>,
    pub one_time_keys: Vec<OneTimeKey>,
    pub fallback_keys: Map<String, Value>,
}

impl Store {
    /// A user's dehydrated device: its id and data.
    pub async fn dehydrated_device(&self, user_id: &str) -> Result<Option<(String, Value)>> {
        let sql = "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = $1";
        let row = self.db.query_opt(sql, &[&user_id]).await?;
        row.map(|r| Ok((r.get(0), serde_json::from_str(r.get(1))?))).transpose()
    }

    /// Stores a dehydrated device, which must be among the user's devices, with its keys.
    pub async fn set_dehydrated_device(
        &self,
        user_id: &str,
        device_id: &str,
        data: &Value,
        keys: &DehydratedKeys,
        now_ms: i64,
    ) -> Result<()> {
        transaction!(self, "store_dehydrated_device_txn", |tx| {
            if let Some(device_keys) = &keys.device_keys {
                tx.set_device_keys(user_id, device_id, device_keys, now_ms).await?;
            }
            if !keys.one_time_keys.is_empty() {
                tx.add_one_time_keys(self, user_id, device_id, &keys.one_time_keys, now_ms).await?;
            }
            if !keys.fallback_keys.is_empty() {
                tx.set_fallback_keys(self, user_id, device_id, &keys.fallback_keys).await?;
            }
            let sql = "INSERT INTO dehydrated_devices (user_id, device_id, device_data) VALUES ($1, $2, $3)
                       ON CONFLICT (user_id) DO UPDATE
                       SET device_id = EXCLUDED.device_id, device_data = EXCLUDED.device_data";
            tx.run(sql, &[&user_id, &device_id, &data.to_string()]).await?;
            Ok(())
        })
    }
}
