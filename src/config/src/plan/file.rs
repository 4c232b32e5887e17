//! `cluster.toml` as it is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ruma::OwnedServerName;
use serde::Deserialize;

use super::{HostFile, PORTS, Preset, ResourcesFile, Role, SystemdFile, TlsFile, hosts, roles, tls, units};

/// `cluster.toml`. Only `server_name` is needed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// The part of user ids after the colon.
    pub server_name: OwnedServerName,
    /// How many processes, unless `workers` says otherwise; [`Preset::Small`] if nothing is said.
    pub preset: Option<Preset>,
    /// Processes of a role; goes over the preset.
    #[serde(default)]
    pub workers: BTreeMap<Role, u16>,
    /// Hosts, if there are several; they say in place of `preset` and `workers` what runs where.
    #[serde(default)]
    pub hosts: BTreeMap<String, HostFile>,
    /// TLS between the hosts.
    pub tls: Option<TlsFile>,
    /// Nobody but the hosts is on the network between them: what goes there need not be encrypted.
    #[serde(default)]
    pub private_network: bool,
    /// Where clients reach the server.
    pub public_baseurl: Option<String>,
    /// Folder of everything that is kept; relative to the file's own. Default: the file's own.
    pub data_dir: Option<PathBuf>,
    /// The proxy's port; the processes use ports from 10 above it.
    #[serde(default = "default_port")]
    pub base_port: u16,
    /// Address that the proxy listens on.
    #[serde(default = "localhost")]
    pub bind_address: String,
    /// Processes listen on unix sockets rather than on ports.
    #[serde(default)]
    pub unix_sockets: bool,
    /// Anybody may register.
    #[serde(default)]
    pub enable_registration: bool,
    /// PostgreSQL; private to the cluster if nothing is said.
    #[serde(default)]
    pub database: DatabaseFile,
    /// Redis; private to the cluster if nothing is said.
    #[serde(default)]
    pub redis: RedisFile,
    /// The proxy.
    #[serde(default)]
    pub nginx: NginxFile,
    /// Units.
    #[serde(default)]
    pub systemd: SystemdFile,
    /// What the processes of a role may use; `main` is the main process.
    #[serde(default)]
    pub resources: BTreeMap<String, ResourcesFile>,
    /// What is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Any key of homeserver.yaml; goes over what is rendered.
    #[serde(default)]
    pub settings: toml::Table,
}

fn default_port() -> u16 {
    8008
}

fn localhost() -> String {
    "127.0.0.1".into()
}

/// `[database]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseFile {
    /// Host, or folder of the socket. Without it the cluster runs a PostgreSQL of its own.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Role.
    pub user: Option<String>,
    /// Database.
    pub name: Option<String>,
    /// Password file in libpq's format.
    pub passfile: Option<PathBuf>,
    /// Connections of a process.
    pub pool: Option<u16>,
    /// libpq's `sslmode`, for a PostgreSQL elsewhere; libpq's default is `prefer`.
    pub sslmode: Option<String>,
    /// CA certificates for it, PEM.
    pub sslrootcert: Option<PathBuf>,
}

/// `[redis]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisFile {
    /// Host. Without host and path the cluster runs a Redis of its own.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Unix socket.
    pub path: Option<PathBuf>,
    /// ACL user.
    pub username: Option<String>,
    /// File with the password.
    pub password_path: Option<PathBuf>,
    /// Speak TLS, to a Redis elsewhere.
    #[serde(default)]
    pub tls: bool,
    /// CA certificates for it, PEM; those of the operating system if nothing is said.
    pub ca: Option<PathBuf>,
}

/// `[nginx]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NginxFile {
    /// Certificate; with it the proxy speaks TLS.
    pub tls_certificate: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Port, on 127.0.0.1, where it serves the metrics of the processes on unix sockets, each below its name.
    pub metrics_port: Option<u16>,
}

/// What is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// Every request, too.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What should not happen.
    Warning,
    /// What failed.
    Error,
    /// What the process can't go on after.
    Critical,
}

impl LogLevel {
    /// Its name in a logging configuration.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warning => "WARNING",
            LogLevel::Error => "ERROR",
            LogLevel::Critical => "CRITICAL",
        }
    }
}

impl ClusterFile {
    /// Reads `cluster.toml`. What is wrong is named by its key: `hosts.two.address: invalid IP address syntax`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let toml = toml::Deserializer::parse(text).map_err(|e| e.to_string())?;
        let file: Self = serde_path_to_error::deserialize(toml).map_err(|e| {
            let path = e.path().to_string();
            match path.as_str() {
                "." => e.inner().message().to_owned(),
                key => format!("{key}: {}", e.inner().message()),
            }
        })?;
        roles::check_counts("workers", &file.workers)?;
        units::check(&file.resources)?;
        if !file.hosts.is_empty() {
            hosts::check(&file)?;
        }
        tls::check(&file)?;
        if file.nginx.tls_certificate.is_some() != file.nginx.tls_key.is_some() {
            return Err("nginx: tls_certificate and tls_key go together".into());
        }
        if file.base_port > u16::MAX - PORTS {
            return Err(format!("base_port: found {}; allowed: 1 to {}", file.base_port, u16::MAX - PORTS));
        }
        Ok(file)
    }

    /// Folder of everything that is kept; `folder` is that of the file.
    pub fn data_dir_in(&self, folder: &Path) -> PathBuf {
        self.data_dir.as_ref().map_or_else(|| folder.to_owned(), |dir| folder.join(dir))
    }

    /// Processes of a role.
    pub fn count(&self, role: Role) -> u16 {
        self.workers.get(&role).copied().unwrap_or_else(|| self.preset.unwrap_or_default().count(role))
    }
}
