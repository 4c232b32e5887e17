//! `redis`: the bus between the processes.

use std::path::PathBuf;

use crate::read::Section;
use crate::secret::Secret;
use crate::yaml::Value;

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Unix socket; goes before host and port.
    pub path: Option<PathBuf>,
    /// ACL user; needs a password (which may be empty).
    pub username: Option<String>,
    /// Password. Empty is not the same as unset.
    pub password: Option<Secret>,
    /// Database number for cache keys; publish and subscribe ignore it.
    pub dbid: Option<i64>,
    /// TLS; not together with `path`.
    pub tls: Option<RedisTls>,
}

/// Files for TLS towards Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisTls {
    /// Client certificate.
    pub certificate_file: Option<PathBuf>,
    /// Client key.
    pub private_key_file: Option<PathBuf>,
    /// CA certificates, one file.
    pub ca_file: Option<PathBuf>,
    /// CA certificates, a folder.
    pub ca_path: Option<PathBuf>,
}

pub(crate) fn read(root: &Section<'_>) -> Option<Redis> {
    let section = root.child("redis");
    if !section.flag("enabled", false) {
        return None;
    }
    let username = section.nonempty("username");
    let password = section.secret("password");
    if username.is_some() && password.is_none() {
        section.error("username", "set without password or password_path; allowed: both (the password may be empty)");
    }
    let dbid = match section.some("dbid").map(|n| &n.value) {
        Some(Value::Str(text)) if text.parse::<i64>().is_ok_and(|n| n >= 0) => text.parse().ok(),
        _ => section.int("dbid", 0, i64::MAX),
    };
    let tls = section.flag("use_tls", false).then(|| RedisTls {
        certificate_file: section.file("certificate_file"),
        private_key_file: section.file("private_key_file"),
        ca_file: section.file("ca_file"),
        ca_path: section.file("ca_path"),
    });
    if let Some(tls) = &tls
        && tls.certificate_file.is_some() != tls.private_key_file.is_some()
    {
        section.error("certificate_file", "certificate_file and private_key_file go together; allowed: both or none");
    }
    Some(Redis {
        host: section.nonempty("host").unwrap_or_else(|| "localhost".into()),
        port: section.port("port").unwrap_or(6379),
        path: section.file("path"),
        username,
        password,
        dbid,
        tls,
    })
}
