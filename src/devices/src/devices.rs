//! A user's devices.

use crate::Devices;
use store::devices::Device;
use types::{Error, MASTER, Result, credentials};

/// Longest display name, in characters (as in Synapse).
const MAX_NAME: usize = 100;

fn check_name(name: Option<&str>) -> Result<()> {
    match name {
        Some(n) if n.chars().count() > MAX_NAME => {
            Err(Error::client(400, "M_TOO_LARGE", format!("Device display name is too long (max {MAX_NAME})")))
        }
        _ => Ok(()),
    }
}

impl Devices {
    /// Devices of a user, the hidden ones left out.
    pub async fn all(&self, user_id: &str) -> Result<Vec<Device>> {
        self.cx.store.devices_of(user_id).await
    }

    /// One device; 404 if there is none.
    pub async fn one(&self, user_id: &str, device_id: &str) -> Result<Device> {
        self.cx.store.device(user_id, device_id).await?.ok_or_else(|| Error::not_found("Not found"))
    }

    /// Makes sure that a device exists (a new one if `device_id` is None) and returns its id.
    /// `name` is only for a new device.
    pub async fn ensure(
        &self,
        user_id: &str,
        device_id: Option<&str>,
        name: Option<&str>,
        auth_provider: Option<(&str, &str)>,
    ) -> Result<String> {
        check_name(name)?;
        if let Some(id) = device_id {
            if self.cx.store.store_device(user_id, id, name, auth_provider).await? {
                self.notify_device_update(user_id, &[id.to_owned()]).await?;
            }
            return Ok(id.to_owned());
        }
        for _ in 0..5 {
            let id = credentials::device_id();
            if self.cx.store.store_device(user_id, &id, name, auth_provider).await? {
                self.notify_device_update(user_id, std::slice::from_ref(&id)).await?;
                return Ok(id);
            }
        }
        Err(Error::internal("no free device id found"))
    }

    /// Renames a device; 404 if there is none. None leaves the name as it is.
    pub async fn rename(&self, user_id: &str, device_id: &str, name: Option<&str>) -> Result<()> {
        check_name(name)?;
        if let Some(name) = name
            && !self.cx.store.rename_device(user_id, device_id, name).await?
        {
            return Err(Error::not_found("Not found"));
        }
        self.notify_device_update(user_id, &[device_id.to_owned()]).await
    }

    /// Makes or renames a device, for application services; true if it is new.
    pub async fn upsert(&self, user_id: &str, device_id: &str, name: Option<&str>) -> Result<bool> {
        check_name(name)?;
        let new = self.cx.store.store_device(user_id, device_id, name, None).await?;
        if let (false, Some(name)) = (new, name) {
            self.cx.store.rename_device(user_id, device_id, name).await?;
        }
        self.notify_device_update(user_id, &[device_id.to_owned()]).await?;
        Ok(new)
    }

    /// Deletes devices with everything that is theirs: tokens, keys, messages, pushers.
    /// Ids the user does not have are passed over.
    pub async fn delete_devices(&self, user_id: &str, device_ids: &[String]) -> Result<()> {
        if device_ids.is_empty() {
            return Ok(());
        }
        let store = &self.cx.store;
        let pushers = store.pushers_of_devices(user_id, device_ids).await?;
        if store.delete_devices(user_id, device_ids).await? {
            let (store, user, devices) = (store.clone(), user_id.to_owned(), device_ids.to_vec());
            let log = self.cx.log.clone();
            tokio::spawn(async move {
                if let Err(e) = store.delete_to_device_of(&user, &devices).await {
                    slog::warn!(log, "messages of deleted devices are left"; "user" => user, "error" => %e);
                }
            });
        }
        if &*self.cx.instance == MASTER {
            store.delete_pushers(user_id, &pushers).await?;
        } else {
            for p in &pushers {
                self.ask_to_remove_pusher(user_id, p).await?;
            }
        }
        self.notify_device_update(user_id, device_ids).await
    }

    /// Deletes all devices of a user, but one if given.
    pub async fn delete_all_devices(&self, user_id: &str, except: Option<&str>) -> Result<()> {
        let all = self.all(user_id).await?;
        let ids: Vec<String> = all.into_iter().map(|d| d.device_id).filter(|d| Some(d.as_str()) != except).collect();
        self.delete_devices(user_id, &ids).await
    }

    /// Deletes devices that were last seen longer ago than `delete_stale_devices_after`.
    pub async fn delete_stale_devices(&self, before_ms: i64) -> Result<()> {
        let server = self.cx.store.server_name.clone();
        for (user, devices) in self.cx.store.devices_not_seen_since(before_ms).await? {
            if user.split_once(':').is_some_and(|(_, s)| s == server.as_str()) {
                self.delete_devices(&user, &devices).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_in_characters() {
        assert!(check_name(Some(&"ä".repeat(100))).is_ok());
        assert_eq!(check_name(Some(&"ä".repeat(101))).unwrap_err().errcode(), Some("M_TOO_LARGE"));
    }
}
