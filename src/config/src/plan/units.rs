//! `[systemd]` and `[resources.ROLE]`: what units say beyond which process runs where.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::Role;

/// `[systemd]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemdFile {
    /// Credentials of every process: name → file. A path in the configuration that begins with
    /// `$CREDENTIALS_DIRECTORY/` is one of them.
    #[serde(default)]
    pub credentials: BTreeMap<String, PathBuf>,
    /// The same for files that systemd-creds has encrypted.
    #[serde(default)]
    pub encrypted_credentials: BTreeMap<String, PathBuf>,
    /// Credentials that are configuration files, read after the others.
    #[serde(default)]
    pub extra_files: Vec<String>,
    /// Folder of what a reload reads again (`live.yaml`, `log.config`), where that is not the configuration's: a path
    /// that stays the same when the configuration's changes.
    pub live_dir: Option<PathBuf>,
    /// Unit of the proxy, which a roll has reload its configuration.
    pub proxy_unit: Option<String>,
    /// The program systemctl, if it isn't in PATH.
    pub systemctl: Option<PathBuf>,
}

/// `[resources.main]`, `[resources.sync]`, …: for each process of a role.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourcesFile {
    /// Connections to PostgreSQL.
    pub pool: Option<u16>,
    /// Memory above which systemd slows it down (`MemoryHigh=`), as systemd writes sizes.
    pub memory_high: Option<String>,
    /// Memory above which it is killed (`MemoryMax=`).
    pub memory_max: Option<String>,
    /// Its share of the processors (`CPUWeight=`), 1 to 10000; 100 if nothing is said.
    pub cpu_weight: Option<u16>,
}

/// Name of the main process in `[resources]`.
pub const MAIN: &str = "main";

/// What is wrong with the resources of a file.
pub fn check(resources: &BTreeMap<String, ResourcesFile>) -> Result<(), String> {
    for (name, file) in resources {
        if name != MAIN && !Role::ALL.iter().any(|role| role.name() == name) {
            return Err(format!("resources.{name}: there is no such role; allowed: main or a role"));
        }
        let sizes = [("memory_high", &file.memory_high), ("memory_max", &file.memory_max)];
        if let Some((key, size)) =
            sizes.iter().find_map(|(key, size)| Some((key, size.as_ref().filter(|s| !is_size(s))?)))
        {
            return Err(format!(
                "resources.{name}.{key}: found {size:?}; allowed: a number with K, M, G or T, or a percentage"
            ));
        }
        if file.pool.is_some_and(|n| n < 2) || file.cpu_weight.is_some_and(|n| !(1..=10_000).contains(&n)) {
            return Err(format!("resources.{name}: pool is at least 2, cpu_weight 1 to 10000"));
        }
    }
    Ok(())
}

/// Whether systemd takes it for a size; a line break in it would be another line of the unit.
fn is_size(text: &str) -> bool {
    let digits = text.strip_suffix(['K', 'M', 'G', 'T', '%']).unwrap_or(text);
    !digits.is_empty() && digits.len() < 19 && digits.chars().all(|c| c.is_ascii_digit())
}
