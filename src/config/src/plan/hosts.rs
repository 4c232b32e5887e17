//! `[hosts.NAME]`: a cluster on several hosts. Every host renders the same file and takes its own part; the shared
//! homeserver.yaml is the same on all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use super::{ClusterFile, Role};

/// `[hosts.NAME]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// Address that the other hosts reach it at; its processes listen there.
    pub address: IpAddr,
    /// The main process runs here.
    #[serde(default)]
    pub main: bool,
    /// Processes by role.
    #[serde(default)]
    pub workers: BTreeMap<Role, u16>,
    /// PostgreSQL runs here.
    #[serde(default)]
    pub database: bool,
    /// Redis runs here.
    #[serde(default)]
    pub redis: bool,
    /// The proxy runs here; any number of hosts may have one.
    #[serde(default)]
    pub proxy: bool,
}

/// What is wrong with the hosts of a file that has some.
pub fn check(file: &ClusterFile) -> Result<(), String> {
    let mut addresses = BTreeSet::new();
    for (name, host) in &file.hosts {
        // The name becomes part of processes' names, units and files.
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("hosts.{name:?}: a host's name is letters, digits and -"));
        }
        if host.address.is_loopback() || host.address.is_unspecified() || host.address.is_multicast() {
            return Err(format!(
                "hosts.{name}.address: found {}; allowed: an address that the other hosts reach",
                host.address
            ));
        }
        if !addresses.insert(host.address) {
            return Err(format!("hosts.{name}.address: {} is another host's too", host.address));
        }
    }
    if file.preset.is_some() || !file.workers.is_empty() {
        return Err("workers, preset: with hosts, each host says what it runs: hosts.NAME.workers".into());
    }
    if file.unix_sockets {
        return Err("unix_sockets: with hosts, processes listen on their host's address".into());
    }
    one(file, "main", |h| h.main, false)?;
    one(file, "database", |h| h.database, file.database.host.is_some())?;
    one(file, "redis", |h| h.redis, file.redis.host.is_some() || file.redis.path.is_some())?;
    for role in Role::ALL {
        let all: u32 = file.hosts.values().filter_map(|h| h.workers.get(&role)).map(|n| u32::from(*n)).sum();
        let most = if role.most() == 1 { 1 } else { u32::from(u16::MAX) };
        if all > most {
            return Err(format!("hosts.*.workers.{}: found {all} in all; allowed: 0 to {most}", role.name()));
        }
    }
    for (name, host) in &file.hosts {
        super::roles::check_counts(&format!("hosts.{name}.workers"), &host.workers)?;
    }
    Ok(())
}

/// Exactly one host has a thing, or none if it is elsewhere.
fn one(file: &ClusterFile, what: &str, has: fn(&HostFile) -> bool, elsewhere: bool) -> Result<(), String> {
    let names: Vec<&str> = file.hosts.iter().filter(|(_, h)| has(h)).map(|(name, _)| name.as_str()).collect();
    match (names.len(), elsewhere) {
        (1, false) | (0, true) => Ok(()),
        (0, false) => Err(format!("hosts: no host has {what} = true; exactly one must")),
        (_, true) => Err(format!("hosts.{}.{what}: {what}.host is set too; allowed: one of them", names[0])),
        (_, false) => Err(format!("hosts: {} have {what} = true; exactly one must", names.join(", "))),
    }
}

/// Address of the host that has a thing.
pub fn address_of(file: &ClusterFile, has: fn(&HostFile) -> bool) -> Option<IpAddr> {
    file.hosts.values().find(|h| has(h)).map(|h| h.address)
}
