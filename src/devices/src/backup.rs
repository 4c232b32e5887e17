//! Server-side key backups (spec: "Server-side key backups").

use crate::Devices;
use serde_json::{Map, Value, json};
use store::key_backup::{BackupState, BackupVersion, RoomKey};
use types::{Error, Result};

/// A version as it stands in URLs and bodies; one that is no number does not exist.
fn number(version: &str) -> Result<i64> {
    version.parse().map_err(|_| unknown())
}

fn unknown() -> Error {
    Error::not_found("Unknown backup version")
}

fn state(s: BackupState) -> Value {
    json!({"etag": s.etag.to_string(), "count": s.count})
}

impl Devices {
    /// Makes a backup version; returns its number.
    pub async fn create_backup(&self, user_id: &str, algorithm: &str, auth_data: &Value) -> Result<String> {
        Ok(self.cx.store.create_backup_version(user_id, algorithm, auth_data).await?.to_string())
    }

    /// A version (None: the newest) as the client sees it.
    pub async fn backup_info(&self, user_id: &str, version: Option<&str>) -> Result<Value> {
        let wanted = version.map(|v| v.parse::<i64>()).transpose().map_err(|_| Error::not_found("No backup found"))?;
        let found = self.cx.store.backup_version(user_id, wanted).await?;
        let BackupVersion { version, algorithm, auth_data, etag } =
            found.ok_or_else(|| Error::not_found("No backup found"))?;
        let count = self.cx.store.count_backup_keys(user_id, version).await?;
        Ok(json!({
            "auth_data": auth_data, "version": version.to_string(), "algorithm": algorithm,
            "etag": etag.to_string(), "count": count,
        }))
    }

    /// Replaces the `auth_data` of a version, whose algorithm stays.
    pub async fn update_backup(&self, user_id: &str, version: &str, info: &Map<String, Value>) -> Result<()> {
        if info.get("version").is_some_and(|v| v.as_str() != Some(version)) {
            return Err(Error::invalid_param("Version in body does not match"));
        }
        let at = number(version)?;
        let old = self.cx.store.backup_version(user_id, Some(at)).await?.ok_or_else(unknown)?;
        let algorithm = info.get("algorithm").ok_or_else(|| Error::missing_param("Missing params: algorithm"))?;
        if algorithm.as_str() != Some(old.algorithm.as_str()) {
            return Err(Error::invalid_param("Algorithm does not match"));
        }
        if let Some(auth_data) = info.get("auth_data")
            && !self.cx.store.update_backup_version(user_id, at, auth_data).await?
        {
            return Err(unknown());
        }
        Ok(())
    }

    /// Deletes a version with its keys.
    pub async fn delete_backup(&self, user_id: &str, version: &str) -> Result<()> {
        let found = self.cx.store.delete_backup_version(user_id, number(version)?).await?;
        if found { Ok(()) } else { Err(unknown()) }
    }

    /// Keys of a version: all, of one room, or one session.
    pub async fn backup_keys(
        &self,
        user_id: &str,
        version: &str,
        room_id: Option<&str>,
        session_id: Option<&str>,
    ) -> Result<Vec<RoomKey>> {
        let version = number(version)?;
        self.cx.store.backup_version(user_id, Some(version)).await?.ok_or_else(unknown)?;
        self.cx.store.backup_keys(user_id, version, room_id, session_id).await
    }

    /// Stores keys; `{"etag", "count"}`. 403 M_WRONG_ROOM_KEYS_VERSION if `version` is not the newest.
    pub async fn upload_backup_keys(&self, user_id: &str, version: &str, keys: &[RoomKey]) -> Result<Value> {
        let missing = || Error::not_found(format!("Version '{version}' not found"));
        let at = version.parse().map_err(|_| missing())?;
        match self.cx.store.add_backup_keys(user_id, at, keys).await? {
            None => Err(missing()),
            Some(Ok(s)) => Ok(state(s)),
            Some(Err(newest)) => Err(Error::client(403, "M_WRONG_ROOM_KEYS_VERSION", "Wrong room_keys version")
                .with("current_version", newest.to_string())),
        }
    }

    /// Deletes keys of a version; `{"etag", "count"}`.
    pub async fn delete_backup_keys(
        &self,
        user_id: &str,
        version: &str,
        room_id: Option<&str>,
        session_id: Option<&str>,
    ) -> Result<Value> {
        let done = self.cx.store.delete_backup_keys(user_id, number(version)?, room_id, session_id).await?;
        done.map(state).ok_or_else(unknown)
    }
}
