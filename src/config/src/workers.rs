//! Who does what in the cluster: `instance_map`, `stream_writers`, the duties given by name, and the settings of
//! the worker's own file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Role;
use crate::read::Section;
use crate::secret::Secret;
use crate::stream_group::StreamGroup;
use crate::yaml::{Node, Value};

/// The main process everywhere but in `instance_map`.
pub const MAIN: &str = "master";
/// Of the URIs by which one process has another send a request to a server (`outbound_federation_restricted_to`):
/// scheme, the server's name, path and query.
pub const FEDERATION_SCHEME: &str = "matrix-federation";
/// The main process in `instance_map`.
const MAIN_IN_MAP: &str = "main";

/// Where another process takes requests of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceLocation {
    /// Over TCP.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// Speak TLS.
        tls: bool,
    },
    /// Over a unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
}

/// The part of the configuration that says which process does what.
#[derive(Clone, Debug)]
pub struct Workers {
    /// Name of this process: `worker_name`, or `master`.
    pub instance_name: String,
    /// `worker_app` of this process; `None` on main.
    pub app: Option<String>,
    /// Where every process listens for the others; main is under `master` here.
    pub instance_map: BTreeMap<String, InstanceLocation>,
    /// `stream_writers`, one list for each group, in the order of the file.
    pub writers: BTreeMap<StreamGroup, Vec<String>>,
    /// Shared secret of requests between the processes.
    pub replication_secret: Option<Secret>,
    /// PEM file of the CA certificates that processes with `tls` are believed by; `None`: those of the operating
    /// system. Synapse, which has no such setting, passes over it.
    pub replication_ca: Option<PathBuf>,
    /// Who sends federation, sharded by destination. Empty: some other process, unknown to this one.
    pub federation_senders: Vec<String>,
    /// Who runs pushers, sharded by user. Empty: some other process, unknown to this one.
    pub pushers: Vec<String>,
    /// `run_background_tasks_on`.
    pub background_tasks: String,
    /// `update_user_directory_from_worker`; `None`: some other process.
    pub user_directory: Option<String>,
    /// `notify_appservices_from_worker`; `None`: some other process.
    pub appservices: Option<String>,
    /// Only these may speak to other servers; `None`: all may.
    pub outbound_federation_restricted_to: Option<Vec<String>>,
    /// `media_instance_running_background_jobs`; `None`: main.
    pub media_background_jobs: Option<String>,
    /// Whether this process can serve media at all (`enable_media_repo`).
    pub media_enabled: bool,
}

/// Every value of `worker_app` that Synapse knows; all but the first are workers of one kind.
const APPS: &[&str] = &[
    "synapse.app.homeserver",
    "synapse.app.appservice",
    "synapse.app.client_reader",
    "synapse.app.event_creator",
    "synapse.app.federation_reader",
    "synapse.app.federation_sender",
    "synapse.app.frontend_proxy",
    "synapse.app.generic_worker",
    "synapse.app.media_repository",
    "synapse.app.pusher",
    "synapse.app.synchrotron",
    "synapse.app.user_dir",
];

pub(crate) fn read(root: &Section<'_>, role: Role) -> Workers {
    let (app, instance_name) = read_name(root, role);
    let instance_map = read_map(root, role);
    for old in [
        "worker_replication_host",
        "worker_replication_http_port",
        "worker_replication_http_tls",
        "worker_replication_port",
    ] {
        if root.some(old).is_some_and(|n| n.value.truthy()) {
            root.error(
                old,
                "no longer supported; allowed: an entry main in instance_map, in the file all processes share",
            );
        }
    }
    if root.some("worker_main_http_uri").is_some() {
        root.warn("worker_main_http_uri", "has no effect; remove it");
    }
    let writers = read_writers(root, &instance_map);
    let mut workers = Workers {
        app: app.clone(),
        instance_map,
        writers,
        replication_secret: root.secret("worker_replication_secret").filter(|s| !s.is_empty()),
        replication_ca: root.file("worker_replication_tls_ca_path"),
        federation_senders: performers(root, &instance_name, app.as_deref(), &FEDERATION),
        pushers: performers(root, &instance_name, app.as_deref(), &PUSHERS),
        background_tasks: root.nonempty("run_background_tasks_on").unwrap_or_else(|| MAIN.into()),
        user_directory: duty(root, &instance_name, app.as_deref(), &USER_DIRECTORY),
        appservices: duty(root, &instance_name, app.as_deref(), &APPSERVICES),
        outbound_federation_restricted_to: None,
        media_background_jobs: root.nonempty("media_instance_running_background_jobs"),
        // Only the literal false switches media off, as in Synapse.
        media_enabled: app.as_deref() == Some("synapse.app.media_repository")
            || !matches!(root.node("enable_media_repo"), Some(Node { value: Value::Bool(false), .. })),
        instance_name,
    };
    workers.outbound_federation_restricted_to = read_outbound(root, &workers);
    workers
}

fn read_name(root: &Section<'_>, role: Role) -> (Option<String>, String) {
    let app = root.nonempty("worker_app");
    if let Some(app) = &app
        && !APPS.contains(&app.as_str())
    {
        root.error("worker_app", format!("found {app:?}; allowed: {}", APPS.join(", ")));
    }
    let app = app.filter(|a| a != APPS[0]);
    let name = root.nonempty("worker_name").or_else(|| app.clone());
    match (role, app, name) {
        (Role::Homeserver, None, name) => {
            if let Some(name) = name.filter(|n| n != MAIN) {
                root.error(
                    "worker_name",
                    format!("found {name:?} in the configuration of the main process; allowed: no worker_name"),
                );
            }
            (None, MAIN.into())
        }
        (Role::Homeserver, Some(app), _) => {
            root.error("worker_app", format!("found {app:?} in the configuration of the main process; allowed: no worker_app, or start this as a worker"));
            (Some(app), MAIN.into())
        }
        (Role::Worker, None, _) => {
            root.error("worker_app", "missing in a worker's configuration; allowed: synapse.app.generic_worker");
            (None, MAIN.into())
        }
        (Role::Worker, Some(app), Some(name)) => {
            if name == MAIN || name == MAIN_IN_MAP {
                root.error("worker_name", format!("{name:?} means the main process; allowed: any other name"));
            }
            (Some(app), name)
        }
        (Role::Worker, Some(app), None) => (Some(app.clone()), app),
    }
}

fn read_map(root: &Section<'_>, role: Role) -> BTreeMap<String, InstanceLocation> {
    let mut map = BTreeMap::new();
    for (name, section) in root.named_maps("instance_map") {
        let location = match (section.file("path"), section.string("host")) {
            (Some(_), Some(_)) => {
                section.error("path", "host and path are both set; allowed: host and port, or path");
                continue;
            }
            (Some(path), None) => InstanceLocation::Unix { path },
            (None, Some(host)) => match section.port("port") {
                Some(port) => InstanceLocation::Tcp { host, port, tls: section.flag("tls", false) },
                None => {
                    if section.some("port").is_none() {
                        section.error("port", "missing; allowed: a whole number from 0 to 65535");
                    }
                    continue;
                }
            },
            (None, None) => {
                section.error("", "neither host nor path is set; allowed: host and port, or path");
                continue;
            }
        };
        let name = if name == MAIN_IN_MAP { MAIN } else { name };
        if let Some(other) =
            map.iter().find(|(_, l)| **l == location && !is_port_zero(&location)).map(|(n, _): (&String, _)| n.clone())
        {
            section.log.warn(
                section.at,
                &section.path,
                format_args!("the same place as instance {other:?}; each process needs its own"),
            );
        }
        map.insert(name.to_owned(), location);
    }
    if role == Role::Worker && !map.contains_key(MAIN) {
        root.error("instance_map", "the entry main is missing; allowed: the host and port (or path) of the main process's replication listener");
    }
    map
}

fn is_port_zero(location: &InstanceLocation) -> bool {
    matches!(location, InstanceLocation::Tcp { port: 0, .. })
}

fn read_writers(root: &Section<'_>, map: &BTreeMap<String, InstanceLocation>) -> BTreeMap<StreamGroup, Vec<String>> {
    let section = root.child("stream_writers");
    for (name, _) in section.map.iter() {
        if StreamGroup::named(name).is_none() {
            let known: Vec<&str> = StreamGroup::ALL.iter().map(|g| g.name()).collect();
            section.error(name, format!("no such stream; allowed: {}", known.join(", ")));
        }
    }
    let mut writers = BTreeMap::new();
    for group in StreamGroup::ALL {
        let key = group.name();
        let names = match section.node(key) {
            None => vec![MAIN.to_owned()],
            Some(Node { value: Value::Str(name), .. }) => vec![name.clone()],
            Some(_) => section.strings(key),
        };
        check_writers(&section, group, &names, map);
        writers.insert(group, if names.is_empty() { vec![MAIN.to_owned()] } else { names });
    }
    writers
}

fn check_writers(
    section: &Section<'_>,
    group: StreamGroup,
    names: &[String],
    map: &BTreeMap<String, InstanceLocation>,
) {
    let key = group.name();
    if names.is_empty() {
        section.error(key, "no writer; allowed: at least one instance name");
    }
    if group.is_single() && names.len() > 1 {
        section.error(key, format!("{} writers ({}); allowed: exactly one", names.len(), names.join(", ")));
    }
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            section.error(key, format!("{name:?} is listed twice; allowed: each writer once"));
        } else if name == MAIN_IN_MAP && !map.contains_key(MAIN_IN_MAP) {
            section.error(key, "found \"main\"; the main process is called \"master\" here");
        } else if name != MAIN && !map.contains_key(name) {
            let others = map.keys().map(String::as_str).filter(|listed| *listed != MAIN);
            let allowed: Vec<&str> = std::iter::once(MAIN).chain(others).collect();
            section.error(key, format!("writer {name:?} is not in instance_map; allowed: {}", allowed.join(", ")));
        }
    }
}

fn read_outbound(root: &Section<'_>, workers: &Workers) -> Option<Vec<String>> {
    let key = "outbound_federation_restricted_to";
    root.some(key)?;
    let names = root.strings(key);
    if names.is_empty() {
        return None;
    }
    if workers.replication_secret.is_none() {
        root.error(key, "needs worker_replication_secret, which is not set");
    }
    for name in &names {
        if name == MAIN_IN_MAP {
            root.error(key, "found \"main\"; the main process is called \"master\" here");
        } else if !workers.instance_map.contains_key(name) {
            root.error(key, format!("{name:?} is not in instance_map"));
        }
    }
    Some(names)
}

/// A duty with its old and its new way to be given to a process.
struct DutyKeys {
    /// The old flag: false takes the duty from main.
    flag: &'static str,
    /// The old `worker_app` that then does it.
    app: &'static str,
    /// The new key that names the process or processes.
    key: &'static str,
}

const FEDERATION: DutyKeys =
    DutyKeys { flag: "send_federation", app: "synapse.app.federation_sender", key: "federation_sender_instances" };
const PUSHERS: DutyKeys = DutyKeys { flag: "start_pushers", app: "synapse.app.pusher", key: "pusher_instances" };
const APPSERVICES: DutyKeys =
    DutyKeys { flag: "notify_appservices", app: "synapse.app.appservice", key: "notify_appservices_from_worker" };
const USER_DIRECTORY: DutyKeys =
    DutyKeys { flag: "update_user_directory", app: "synapse.app.user_dir", key: "update_user_directory_from_worker" };

/// The processes of a sharded duty. Empty: none that this configuration knows of.
fn performers(root: &Section<'_>, me: &str, app: Option<&str>, duty: &DutyKeys) -> Vec<String> {
    if let Some(node) = root.some(duty.key) {
        return match &node.value {
            Value::Str(name) => vec![name.clone()],
            _ => root.strings(duty.key),
        };
    }
    let on_main = root.flag(duty.flag, true);
    if app == Some(duty.app) {
        if on_main {
            root.error(
                duty.flag,
                format!(
                    "must be false when a worker runs {}; allowed: false in the file all processes share",
                    duty.app
                ),
            );
        }
        return vec![me.to_owned()];
    }
    if on_main { vec![MAIN.into()] } else { Vec::new() }
}

/// The process of a duty that only one has. `None`: none that this configuration knows of.
fn duty(root: &Section<'_>, me: &str, app: Option<&str>, duty: &DutyKeys) -> Option<String> {
    let named = root.has(duty.key).then(|| root.nonempty(duty.key).unwrap_or_else(|| MAIN.into()));
    let on_main = root.has(duty.flag).then(|| root.flag(duty.flag, true));
    if on_main.is_some() {
        root.warn(duty.flag, format_args!("outdated; use {}", duty.key));
    }
    if app == Some(duty.app) && on_main.unwrap_or(true) {
        root.error(
            duty.flag,
            format!("must be false when a worker runs {}; better: a generic_worker and {}", duty.app, duty.key),
        );
    }
    let by_flag = on_main.map(|on_main| match on_main {
        true => Some(MAIN.to_owned()),
        false => (app == Some(duty.app)).then(|| me.to_owned()),
    });
    match (named, by_flag) {
        (None, None) => Some(MAIN.into()),
        (Some(name), None) => Some(name),
        (None, Some(by_flag)) => by_flag,
        (Some(name), Some(by_flag)) => {
            if (name == me) != (by_flag.as_deref() == Some(me)) {
                root.error(duty.flag, format!("contradicts {}; allowed: only the latter", duty.key));
            }
            Some(name)
        }
    }
}
