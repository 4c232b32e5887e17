//! Configuration: `homeserver.yaml` and worker files as Synapse 1.163.2 reads them, parsed once into typed
//! structures, and what each process has to do by them.
//!
//! * [`Config::load`] reads and checks everything and names all mistakes at once.
//! * [`Duties::of`] says what a process does; nothing else asks whether it is the main process.
//! * [`Config::owners`] says who writes a stream or owns a key, and where that process is.

use std::path::{Path, PathBuf};

pub mod appservice;
pub mod database;
pub mod duties;
pub mod email;
pub mod federation;
pub mod files;
pub mod generate;
pub mod ip;
pub mod keys;
mod known;
pub mod listeners;
pub mod logging;
pub mod media;
pub mod misc;
pub mod owners;
pub mod plan;
pub mod ratelimit;
mod read;
pub mod redis;
pub mod registration;
pub mod rooms;
pub mod secret;
pub mod server;
pub mod sso;
pub mod stream_group;
pub mod workers;
pub mod yaml;

pub use appservice::AppService;
pub use database::Database;
pub use duties::Duties;
pub use listeners::{Bind, Listener, ListenerKind, Resource};
pub use owners::Owners;
pub use ratelimit::{RateLimit, RateLimits};
pub use read::ConfigError;
pub use redis::Redis;
pub use secret::Secret;
pub use stream_group::StreamGroup;
pub use workers::{FEDERATION_SCHEME, InstanceLocation, MAIN, Workers};

use read::{Log, Section};

/// What a process was started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The main process (`synapse_homeserver`).
    Homeserver,
    /// A worker (`synapse_worker`).
    Worker,
}

/// The whole configuration of one process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name, URLs, limits, networks.
    pub server: server::Server,
    /// What this process listens on.
    pub listeners: Vec<Listener>,
    /// PostgreSQL.
    pub database: Database,
    /// Redis; `None` if `redis.enabled` is false, which only a server of one process may have.
    pub redis: Option<Redis>,
    /// Who does what in the cluster.
    pub workers: Workers,
    /// `rc_*`.
    pub rate: RateLimits,
    /// Registration.
    pub registration: registration::Registration,
    /// Lifetimes of sessions and tokens.
    pub sessions: registration::Sessions,
    /// Passwords and other ways in.
    pub auth: registration::Auth,
    /// E-mail, if configured.
    pub email: Option<email::Email>,
    /// Single sign-on.
    pub sso: sso::Sso,
    /// Logging in by CAS, if configured.
    pub cas: Option<sso::Cas>,
    /// Signing keys and secrets.
    pub keys: keys::Keys,
    /// Presence.
    pub presence: server::Presence,
    /// Rooms.
    pub rooms: rooms::Rooms,
    /// Room and user directory, profiles.
    pub directory: rooms::Directory,
    /// Server notices, if configured.
    pub server_notices: Option<misc::ServerNotices>,
    /// User consent, if configured.
    pub consent: Option<misc::Consent>,
    /// Caches.
    pub caches: misc::Caches,
    /// Push.
    pub push: misc::Push,
    /// Media repository and URL previews.
    pub media: media::Media,
    /// Federation.
    pub federation: federation::Federation,
    /// Certificates.
    pub tls: federation::Tls,
    /// TURN servers.
    pub turn: federation::Turn,
    /// Metrics, statistics, application services, background updates.
    pub operations: misc::Operations,
    /// Application services by `app_service_config_files`.
    pub app_services: Vec<std::sync::Arc<AppService>>,
    /// `experimental_features`.
    pub experimental: misc::Experimental,
    /// `log_config`, or `worker_log_config` on a worker: a file of Python's logging configuration.
    pub log_config: Option<PathBuf>,
}

/// A configuration that can be used, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line each.
    pub warnings: Vec<String>,
}

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Folder where keys are looked for (`--keys-directory`); `None`: that of the last file.
    pub keys_directory: Option<&'a Path>,
    /// Refuse secrets written in the files (`--no-secrets-in-config`).
    pub no_secrets_in_config: bool,
}

impl Config {
    /// Reads files and folders as Synapse merges them: top-level keys of later files replace earlier ones.
    pub fn load(paths: &[PathBuf], role: Role) -> Result<Loaded, Vec<ConfigError>> {
        Self::load_with(paths, role, Options::default())
    }

    /// As [`Config::load`], with options of the command line.
    pub fn load_with(paths: &[PathBuf], role: Role, options: Options<'_>) -> Result<Loaded, Vec<ConfigError>> {
        let mut log = Log { refuse_inline_secrets: options.no_secrets_in_config, ..Log::default() };
        let map = files::read(&mut log, paths);
        // After a file that can't be read every missing key would be a second error about the same thing.
        if !log.errors.borrow().is_empty() {
            return Err(log.errors.take());
        }
        let root = Section::root(&log, &map);
        let folder = options.keys_directory.map_or_else(|| files::folder(&log.files), Path::to_owned);
        let config = read_all(&root, role, &folder);
        known::check(&root);
        match config {
            Some(config) if log.errors.borrow().is_empty() => Ok(Loaded { config, warnings: log.warnings.take() }),
            _ => Err(log.errors.take()),
        }
    }

    /// Whether the files are those of a worker: whether one names a `worker_app` other than the homeserver's.
    pub fn role_of(paths: &[PathBuf]) -> Result<Role, Vec<ConfigError>> {
        let mut log = Log::default();
        let map = files::read(&mut log, paths);
        let app = Section::root(&log, &map).nonempty("worker_app");
        let errors = log.errors.take();
        match (errors.is_empty(), app.as_deref()) {
            (false, _) => Err(errors),
            (true, None | Some("synapse.app.homeserver")) => Ok(Role::Homeserver),
            (true, Some(_)) => Ok(Role::Worker),
        }
    }

    /// `bcrypt_rounds` and the pepper, without asking for the rest of the configuration to be good.
    pub fn password_settings(paths: &[PathBuf]) -> Result<(u32, String), Vec<ConfigError>> {
        let mut log = Log::default();
        let map = files::read(&mut log, paths);
        let root = Section::root(&log, &map);
        let rounds = root.int("bcrypt_rounds", 4, 31).unwrap_or(12) as u32;
        let pepper = root.child("password_config").string_or("pepper", "");
        let errors = log.errors.take();
        if errors.is_empty() { Ok((rounds, pepper)) } else { Err(errors) }
    }

    /// Who writes what and where they are.
    pub fn owners(&self) -> Owners<'_> {
        Owners { workers: &self.workers }
    }

    /// What this process does.
    pub fn duties(&self) -> Duties {
        Duties::of(self, &self.workers.instance_name)
    }
}

fn read_all(root: &Section<'_>, role: Role, folder: &Path) -> Option<Config> {
    let is_worker = role == Role::Worker;
    let name = server::read_name(root);
    let workers = workers::read(root, role);
    let listeners = listeners::read(root, is_worker);
    let any_tls = listeners.iter().any(|l| matches!(l.bind, Bind::Tcp { tls: true, .. }));
    let registration = registration::read(root);
    let keys = keys::read(root, folder, name.as_str(), registration.shared_secret.as_ref());
    let redis = redis::read(root);
    check_cluster(root, role, &workers, redis.is_some());
    let database = database::read(root);
    let app_services = appservice::read(root, name.as_str());
    let server = server::read(root, name, is_worker);
    let email = email::read(root);
    registration::check_verification(root, &registration, email.is_some());
    let config = Config {
        app_services,
        sso: sso::read(root, &server.public_baseurl),
        cas: sso::read_cas(root),
        email,
        server,
        listeners,
        redis,
        workers,
        rate: ratelimit::read(root),
        registration,
        sessions: registration::read_sessions(root),
        auth: registration::read_auth(root),
        keys,
        presence: server::read_presence(root),
        rooms: rooms::read(root),
        directory: rooms::read_directory(root),
        server_notices: misc::read_notices(root),
        consent: misc::read_consent(root),
        caches: misc::read_caches(root),
        push: misc::read_push(root),
        media: media::read(root),
        federation: federation::read(root),
        tls: federation::read_tls(root, any_tls),
        turn: federation::read_turn(root),
        operations: misc::read_operations(root),
        experimental: misc::read_experimental(root),
        log_config: root.file(if is_worker { "worker_log_config" } else { "log_config" }),
        database: database?,
    };
    Some(config)
}

/// Several processes without a bus would drift apart.
fn check_cluster(root: &Section<'_>, role: Role, workers: &Workers, has_redis: bool) {
    if has_redis {
        return;
    }
    if role == Role::Worker {
        root.error("redis", "not enabled; a worker needs redis.enabled: true in the file all processes share");
    } else if workers.writers.values().flatten().any(|name| name != MAIN) {
        root.error("redis", "not enabled though stream_writers names other processes; allowed: redis.enabled: true");
    }
}
