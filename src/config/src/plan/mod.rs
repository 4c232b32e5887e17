//! A whole cluster from one TOML file: which processes there are, where they listen, what each one does.
//!
//! `cluster.toml` → [`ClusterFile`] → [`Plan`] → [`Plan::render`]: the files an admin would write by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

mod file;
mod homeserver;
mod hosts;
mod metrics;
mod nginx;
mod roles;
mod services;
mod systemd;
mod tls;
mod units;
mod yaml_out;

pub use file::{ClusterFile, DatabaseFile, LogLevel, NginxFile, RedisFile};
pub use hosts::HostFile;
pub use nginx::{Class, RouteRow, regex_of};
pub use roles::{Outside, Preset, Role};
pub use systemd::GENERATION;
pub use tls::TlsFile;
pub use units::{ResourcesFile, SystemdFile};

/// Where a process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address of its host and a port.
    Tcp(SocketAddr),
    /// On a unix socket.
    Socket(PathBuf),
}

/// One process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `main`, or role and number; with hosts, the host's name goes before the role.
    pub name: String,
    /// The host it runs on; `None` where there is one host only.
    pub host: Option<String>,
    /// `None`: the main process.
    pub role: Option<Role>,
    /// For clients, servers and media.
    pub http: Place,
    /// For the other processes, and metrics.
    pub replication: Place,
    /// Connections to PostgreSQL.
    pub pool: u16,
}

impl Process {
    /// Its unit, without `.service`.
    pub fn unit(&self) -> String {
        format!("plexus-{}", self.name)
    }

    /// Whether it is only started to see whether a configuration works.
    pub fn is_canary(&self) -> bool {
        self.name == CANARY
    }
}

/// Name of the process that a roll starts first.
const CANARY: &str = "canary";

/// A cluster, decided down to ports and files.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was asked for.
    pub file: ClusterFile,
    /// The host whose part is rendered; `None` where there is one host only.
    pub here: Option<String>,
    /// Main first, then workers by role and number.
    pub processes: Vec<Process>,
    /// Folder of everything that is kept.
    pub data_dir: PathBuf,
    /// Where rendered files go.
    pub config_dir: PathBuf,
    /// The program that runs the processes, for units.
    pub program: PathBuf,
    /// Where `cluster.toml` is, for the unit that rolls.
    pub cluster_file: Option<PathBuf>,
    /// How PostgreSQL is reached.
    pub database: DatabaseAt,
    /// How Redis is reached; `None` with one process.
    pub redis: Option<RedisAt>,
}

/// How PostgreSQL is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseAt {
    /// The cluster runs it.
    pub private: bool,
    /// Host, or folder of the socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Database.
    pub name: String,
    /// Password file.
    pub passfile: Option<PathBuf>,
    /// libpq's `sslmode` and `sslrootcert`, if something is said.
    pub sslmode: Option<String>,
    /// CA certificates.
    pub sslrootcert: Option<PathBuf>,
}

/// How Redis is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAt {
    /// The cluster runs it.
    pub private: bool,
    /// Where it is.
    pub place: RedisPlace,
    /// ACL user.
    pub username: Option<String>,
    /// File with the password.
    pub password_path: Option<PathBuf>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// CA certificates for that; `None`: those of the operating system.
    pub ca: Option<PathBuf>,
}

/// Redis' address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisPlace {
    /// Over TCP.
    Tcp(String, u16),
    /// A unix socket.
    Socket(PathBuf),
}

/// A rendered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Path below [`Plan::config_dir`].
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// Longest path of a unix socket on Linux, without the final zero.
pub const SOCKET_PATH_MAX: usize = 107;

/// Ports from the proxy's to the last process'.
pub const PORTS: u16 = 10 + 40 * (Role::ALL.len() as u16 + 1);

impl Plan {
    /// Decides where everything is. `folder` is that of `cluster.toml`, `program` the binary that will run.
    pub fn new(file: ClusterFile, folder: &Path, program: &Path) -> Result<Self, String> {
        let data_dir = file.data_dir_in(folder);
        let mut plan = Plan {
            config_dir: data_dir.join("config"),
            program: program.to_owned(),
            cluster_file: None,
            here: None,
            processes: Vec::new(),
            database: services::database(&file, &data_dir),
            redis: None,
            data_dir,
            file,
        };
        plan.add_processes();
        if plan.processes.len() > 1 {
            plan.redis = Some(services::redis(&plan.file, &plan.data_dir));
        }
        plan.check_sockets()?;
        Ok(plan)
    }

    /// The same cluster, of which a host's part is rendered.
    pub fn on_host(mut self, host: Option<&str>) -> Result<Self, String> {
        let names = || self.file.hosts.keys().cloned().collect::<Vec<_>>().join(", ");
        match host {
            None if self.file.hosts.is_empty() => {}
            None => return Err(format!("the cluster has several hosts; say which: {}", names())),
            Some(host) if self.file.hosts.contains_key(host) => {}
            Some(host) => return Err(format!("hosts: there is no {host}; there are: {}", names())),
        }
        self.here = host.map(str::to_owned);
        Ok(self)
    }

    fn add_processes(&mut self) {
        let hosts = self.file.hosts.clone();
        if hosts.is_empty() {
            self.add("main".into(), None, 0, None);
        }
        for (name, host) in hosts.iter().filter(|(_, h)| h.main) {
            self.add("main".into(), None, 0, Some((name, host.address)));
        }
        for role in Role::ALL {
            for index in 0..if hosts.is_empty() { self.file.count(role) } else { 0 } {
                self.add(format!("{}{}", role.name(), index + 1), Some(role), index, None);
            }
            // Numbered on each host, so that another host's count moves neither names nor ports.
            for (name, host) in &hosts {
                for index in 0..host.workers.get(&role).copied().unwrap_or(0) {
                    self.add(
                        format!("{name}-{}{}", role.name(), index + 1),
                        Some(role),
                        index,
                        Some((name, host.address)),
                    );
                }
            }
        }
    }

    fn add(&mut self, name: String, role: Option<Role>, index: u16, host: Option<(&String, IpAddr)>) {
        let own = self.file.resources.get(role.map_or(units::MAIN, Role::name)).and_then(|r| r.pool);
        let pool = own.or(self.file.database.pool).unwrap_or(if role == Some(Role::Events) { 12 } else { 8 });
        // Ports depend on role and number only, so that another role's count doesn't move them.
        let group = role.map_or(0, |r| 1 + Role::ALL.iter().position(|x| *x == r).unwrap_or(0) as u16);
        let port = self.file.base_port + 10 + group * 40 + index * 2;
        let address = host.map_or(Ipv4Addr::LOCALHOST.into(), |(_, address)| address);
        let place = |kind: &str, port| match self.file.unix_sockets {
            true => Place::Socket(self.run_dir().join(format!("{name}.{kind}.sock"))),
            false => Place::Tcp(SocketAddr::new(address, port)),
        };
        let (http, replication) = (place("http", port), place("replication", port + 1));
        self.processes.push(Process { name, host: host.map(|(name, _)| name.clone()), role, http, replication, pool });
    }

    /// The processes that run on this host: all, where there is one host only.
    pub fn here(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|p| self.here.is_none() || p.host == self.here)
    }

    /// Whether the proxy runs on this host.
    pub fn has_proxy(&self) -> bool {
        self.here.as_ref().and_then(|name| self.file.hosts.get(name)).is_none_or(|host| host.proxy)
    }

    fn check_sockets(&self) -> Result<(), String> {
        let too_long = |path: &Path| path.as_os_str().len() > SOCKET_PATH_MAX;
        let sockets = self.processes.iter().flat_map(|p| [&p.http, &p.replication]);
        for place in sockets {
            if let Place::Socket(path) = place
                && too_long(path)
            {
                return Err(format!(
                    "unix_sockets: {} is longer than a socket's path may be ({SOCKET_PATH_MAX}); choose a shorter data_dir",
                    path.display()
                ));
            }
        }
        Ok(())
    }

    /// Folder of sockets and pid files.
    pub fn run_dir(&self) -> PathBuf {
        self.data_dir.join("run")
    }

    /// Folder of the secrets' files.
    pub fn secrets_dir(&self) -> PathBuf {
        self.data_dir.join("secrets")
    }

    /// Folder of the logs.
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    /// The server's signing key.
    pub fn signing_key(&self) -> PathBuf {
        self.secrets_dir().join("signing.key")
    }

    /// Files with a random text each.
    pub fn secret_files(&self) -> [PathBuf; 4] {
        ["registration", "replication", "macaroon", "form"].map(|name| self.secrets_dir().join(name))
    }

    /// Folder of what a reload reads again.
    pub fn live_dir(&self) -> &Path {
        self.file.systemd.live_dir.as_deref().unwrap_or(&self.config_dir)
    }

    /// Unit, without `.service`, that a roll starts first.
    pub const CANARY_UNIT: &str = "plexus-canary";

    /// A process that writes nothing and that no proxy knows, for trying whether a configuration works. Not where
    /// there is only main: beside it nothing runs without Redis.
    pub fn canary(&self) -> Option<Process> {
        self.redis.as_ref()?;
        let main = self.here().next()?;
        let beside = |place: &Place, kind: &str| match place {
            Place::Socket(_) => Place::Socket(self.run_dir().join(format!("{CANARY}.{kind}.sock"))),
            // The ports after main's own are nobody's.
            Place::Tcp(at) => {
                Place::Tcp(SocketAddr::new(at.ip(), self.file.base_port + 48 + u16::from(kind != "http")))
            }
        };
        let (http, replication) = (beside(&main.http, "http"), beside(&main.replication, "replication"));
        Some(Process {
            name: CANARY.into(),
            host: self.here.clone(),
            role: Some(Role::Client),
            http,
            replication,
            pool: 4,
        })
    }

    /// Whether a process answers requests for media.
    pub fn keeps_media(&self, process: &Process) -> bool {
        process.role == Some(Role::Media) || self.of_role(Role::Media).next().is_none()
    }

    /// Whether a process asks anybody outside the cluster, as far as the configuration lets it.
    pub fn asks_outside(&self, process: &Process) -> bool {
        let Some(role) = process.role else { return true };
        role.asks().iter().any(|whom| match whom {
            Outside::Servers => self.speakers().is_none_or(|names| names.contains(&process.name)),
            Outside::Lookups => self.file.settings.get(homeserver::LOOKUPS) == Some(&toml::Value::Boolean(true)),
            Outside::Logins | Outside::Pages | Outside::Services | Outside::Gateways => true,
        })
    }

    /// The processes that alone speak to other servers: the senders or, without any, main, unless the settings name
    /// others. By the names of the setting, which calls main [`crate::MAIN`]. `None`: each for itself, as settings with
    /// an empty list have it.
    fn speakers(&self) -> Option<Vec<String>> {
        let names: Vec<String> = match self.file.settings.get(homeserver::SPEAKERS).and_then(toml::Value::as_array) {
            Some(names) => names.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect(),
            // One process has nobody to speak for it.
            None if self.redis.is_none() => Vec::new(),
            None => match self.of_role(Role::Sender).map(|p| p.name.clone()).collect::<Vec<_>>() {
                senders if senders.is_empty() => vec![crate::MAIN.into()],
                senders => senders,
            },
        };
        Some(names).filter(|names| !names.is_empty())
    }

    /// Addresses of PostgreSQL and Redis other than sockets; `None` if one of them is only known by name.
    fn service_addresses(&self) -> Option<Vec<IpAddr>> {
        let redis = match self.redis.as_ref().map(|r| &r.place) {
            Some(RedisPlace::Tcp(host, _)) => Some(host),
            _ => None,
        };
        let database = Some(&self.database.host).filter(|host| !host.starts_with('/'));
        redis.into_iter().chain(database).filter(|host| *host != "localhost").map(|host| host.parse().ok()).collect()
    }

    /// The configuration files of a process, in order.
    pub fn config_files(&self, process: &Process) -> Vec<PathBuf> {
        let mut files = vec![self.config_dir.join("homeserver.yaml")];
        if process.role.is_some() {
            files.push(self.config_dir.join("workers").join(format!("{}.yaml", process.name)));
        }
        files.push(self.live_dir().join("live.yaml"));
        files
    }

    /// The processes of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |p| p.role == Some(role))
    }

    /// Connections PostgreSQL must allow: all pools and some for people.
    pub fn max_connections(&self) -> u16 {
        self.processes.iter().map(|p| p.pool).sum::<u16>() + 20
    }

    /// Where clients reach the server; ends in `/`.
    pub fn public_baseurl(&self) -> String {
        if let Some(url) = &self.file.public_baseurl {
            return if url.ends_with('/') { url.clone() } else { format!("{url}/") };
        }
        let host = self.file.server_name.host();
        if host == "localhost" || host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
            let scheme = if self.file.nginx.tls_certificate.is_some() { "https" } else { "http" };
            return format!("{scheme}://{host}:{}/", self.file.base_port);
        }
        format!("https://{}/", self.file.server_name)
    }

    /// Everything an admin would write by hand.
    pub fn render(&self, routes: &[RouteRow]) -> Vec<Rendered> {
        let file = |path: &str, text: String| Rendered { path: path.into(), text };
        let mut files = vec![
            file("homeserver.yaml", homeserver::shared(self)),
            file("live.yaml", homeserver::live(self)),
            file("log.config", homeserver::log_config(self)),
        ];
        for process in self.here().filter(|p| p.role.is_some()).chain(self.canary().as_ref()) {
            files.push(file(&format!("workers/{}.yaml", process.name), homeserver::worker(self, process)));
        }
        files.push(file(
            "postgresql.conf",
            format!(
                "# What the pools of all processes need, and some for people.\nmax_connections = {}\n",
                self.max_connections()
            ),
        ));
        files.push(file("prometheus.json", metrics::targets(self)));
        if self.has_proxy() {
            files.push(file("nginx/plexus.conf", nginx::http_block(self, routes)));
            files.push(file("nginx/location.conf", nginx::location(self)));
            files.push(file("nginx/nginx.conf", nginx::standalone(self)));
        }
        files.extend(systemd::units(self).into_iter().map(|(name, text)| file(&format!("systemd/{name}"), text)));
        files
    }
}
