//! Dehydrated devices (MSC3814).

use crate::Devices;
use serde_json::Value;
use store::Stream;
use store::dehydrated::DehydratedKeys;
use types::{Error, Result};

/// Messages for a dehydrated device.
pub struct DehydratedEvents {
    pub events: Vec<Value>,
    /// Position to go on from: `d<stream id>`.
    pub next_batch: String,
    pub limited: bool,
}

impl Devices {
    /// The user's dehydrated device (id, data); 404 if there is none.
    pub async fn dehydrated_device(&self, user_id: &str) -> Result<(String, Value)> {
        let found = self.cx.store.dehydrated_device(user_id).await?;
        found.ok_or_else(|| Error::not_found("No dehydrated device available"))
    }

    /// Replaces the user's dehydrated device.
    pub async fn set_dehydrated_device(
        &self,
        user_id: &str,
        device_id: &str,
        data: &Value,
        name: Option<&str>,
        keys: &DehydratedKeys,
    ) -> Result<()> {
        if let Some((old, _)) = self.cx.store.dehydrated_device(user_id).await? {
            self.delete_devices(user_id, &[old]).await?;
        }
        self.ensure(user_id, Some(device_id), name, None).await?;
        self.cx.store.set_dehydrated_device(user_id, device_id, data, keys, self.cx.now_ms()).await
    }

    /// Deletes the user's dehydrated device; its id.
    pub async fn delete_dehydrated_device(&self, user_id: &str) -> Result<String> {
        let (device_id, _) = self.dehydrated_device(user_id).await?;
        self.delete_devices(user_id, std::slice::from_ref(&device_id)).await?;
        Ok(device_id)
    }

    /// Up to `limit` messages for the dehydrated device after `from`.
    pub async fn dehydrated_events(
        &self,
        user_id: &str,
        device_id: &str,
        from: Option<&str>,
        limit: i64,
    ) -> Result<DehydratedEvents> {
        let Some((current, _)) = self.cx.store.dehydrated_device(user_id).await? else {
            return Err(Error::forbidden("No dehydrated device exists"));
        };
        if current != device_id {
            return Err(Error::forbidden("You may only fetch messages for your dehydrated device"));
        }
        let parse = |f: &str| f.strip_prefix('d')?.parse().ok();
        let since = match from {
            None | Some("") => 0,
            Some(f) => {
                parse(f).ok_or_else(|| Error::invalid_param(format!("from parameter {f:?} has an invalid format")))?
            }
        };
        let now = self.cx.store.streams.current(Stream::ToDevice);
        let (mut events, at) = self.cx.store.to_device_messages(user_id, device_id, since, now, limit).await?;
        for event in events.iter_mut().filter_map(Value::as_object_mut) {
            event.remove("message_id");
        }
        Ok(DehydratedEvents { events, next_batch: format!("d{at}"), limited: at != now })
    }
}
