//! homeserver.yaml and the workers' files of a plan.

use std::fmt::Write as _;

use super::yaml_out::{entry, list, text};
use super::{Place, Plan, Process, RedisPlace, Role};

/// Top-level keys in order; one that is set again is replaced where it stands.
#[derive(Default)]
struct Keys(Vec<(String, String)>);

impl Keys {
    /// `text` is the whole entry, key and all.
    fn set(&mut self, key: &str, text: String) {
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = text,
            None => self.0.push((key.to_owned(), text)),
        }
    }

    fn line(&mut self, key: &str, value: &str) {
        self.set(key, format!("{key}: {value}\n"));
    }

    fn finish(self, header: &str) -> String {
        self.0.iter().fold(header.to_owned(), |all, (_, text)| all + text)
    }
}

const HEADER: &str = "# Rendered from cluster.toml by `plexus cluster render`; changes here are lost.\n";

/// The file that all processes share.
pub fn shared(plan: &Plan) -> String {
    shared_keys(plan).finish(HEADER)
}

/// Of the shared file, what concerns a process: if it stays the same, so may the process.
pub fn shared_for(plan: &Plan, process: &Process) -> String {
    let mut keys = shared_keys(plan);
    let is_mains = |key: &str| key == "listeners" || key == "pid_file";
    keys.0
        .retain(|(key, _)| (process.role.is_none() || !is_mains(key)) && (plan.keeps_media(process) || !is_media(key)));
    keys.finish("")
}

/// Settings that only those who keep media read.
fn is_media(key: &str) -> bool {
    [
        "media_",
        "url_preview_",
        "thumbnail_",
        "dynamic_thumbnails",
        "max_upload_size",
        "max_image_pixels",
        "remote_media_",
    ]
    .iter()
    .any(|start| key.starts_with(start))
}

/// Setting that names the processes that alone speak to other servers.
pub const SPEAKERS: &str = "outbound_federation_restricted_to";

/// Setting that lets the processes ask identity servers.
pub const LOOKUPS: &str = "enable_3pid_lookup";

/// What all processes must have the same view of: who writes what, and what they meet at.
pub fn agreed(plan: &Plan) -> String {
    let mut keys = Keys::default();
    keys.set("instance_map", instance_map(plan));
    duties(plan, &mut keys);
    keys.finish(&format!("{:?} {:?}", plan.database, plan.redis))
}

/// Settings that a running process takes over when it is told to reload.
fn is_live(key: &str) -> bool {
    key.starts_with("rc_")
}

/// The file that is read again at a reload.
pub fn live(plan: &Plan) -> String {
    let mut keys = Keys::default();
    keys.line("log_config", &path(&plan.live_dir().join("log.config")));
    for (key, value) in plan.file.settings.iter().filter(|(key, _)| is_live(key)) {
        keys.set(key, entry(key, value));
    }
    keys.finish("# Rendered from cluster.toml by `plexus cluster render`. A reload reads this file again.\n")
}

/// The logging configuration, which a reload reads again, too.
pub fn log_config(plan: &Plan) -> String {
    crate::generate::log_config(None)
        .replace("root:\n  level: INFO\n", &format!("root:\n  level: {}\n", plan.file.log_level.name()))
}

fn shared_keys(plan: &Plan) -> Keys {
    let mut keys = Keys::default();
    keys.line("server_name", &text(plan.file.server_name.as_str()));
    keys.line("public_baseurl", &text(&plan.public_baseurl()));
    keys.line("report_stats", "false");
    if let Some(main) = plan.processes.first() {
        keys.line("pid_file", &path(&plan.run_dir().join("main.pid")));
        keys.set("listeners", listeners(plan, "listeners", main));
    }
    keys.set("database", database(plan));
    if let Some(tls) = plan.tls() {
        keys.line("tls_certificate_path", &path(&tls.certificate));
        keys.line("tls_private_key_path", &path(&tls.key));
        keys.line("worker_replication_tls_ca_path", &path(&tls.ca));
    }
    if plan.redis.is_some() {
        keys.set("redis", redis(plan));
        keys.line("worker_replication_secret_path", &path(&plan.secrets_dir().join("replication")));
        keys.set("instance_map", instance_map(plan));
        duties(plan, &mut keys);
    }
    keys.line("media_store_path", &path(&plan.data_dir.join("media")));
    keys.line("signing_key_path", &path(&plan.signing_key()));
    keys.line("registration_shared_secret_path", &path(&plan.secrets_dir().join("registration")));
    keys.line("macaroon_secret_key_path", &path(&plan.secrets_dir().join("macaroon")));
    keys.line("form_secret_path", &path(&plan.secrets_dir().join("form")));
    keys.line("enable_metrics", "true");
    if plan.file.enable_registration {
        keys.line("enable_registration", "true");
        keys.line("enable_registration_without_verification", "true");
    }
    // Other servers' keys are asked from those servers themselves.
    keys.line("trusted_key_servers", "[]");
    keys.line("suppress_key_server_warning", "true");
    // Who writes events would need the internet for it.
    keys.line(LOOKUPS, "false");
    for (key, value) in plan.file.settings.iter().filter(|(key, _)| !is_live(key)) {
        keys.set(key, entry(key, value));
    }
    keys
}

fn path(path: &std::path::Path) -> String {
    text(&path.display().to_string())
}

fn listeners(plan: &Plan, key: &str, process: &Process) -> String {
    let mut yaml = format!("{key}:\n");
    let resources: &[&str] =
        if plan.keeps_media(process) { &["client", "federation", "media"] } else { &["client", "federation"] };
    let tls = if plan.tls().is_some() { "    tls: true\n" } else { "" };
    listener(&mut yaml, &process.http, tls, resources);
    listener(&mut yaml, &process.replication, tls, &["replication", "metrics"]);
    yaml
}

fn listener(yaml: &mut String, place: &Place, tls: &str, resources: &[&str]) {
    yaml.push_str("  - type: http\n");
    let _ = match place {
        Place::Tcp(at) => write!(
            yaml,
            "    port: {}\n    bind_addresses: {}\n{tls}    x_forwarded: true\n",
            at.port(),
            list(&[at.ip().to_string()])
        ),
        Place::Socket(socket) => writeln!(yaml, "    path: {}\n    mode: 0660", path(socket)),
    };
    let _ = writeln!(yaml, "    resources:\n      - names: {}", list(resources));
}

fn database(plan: &Plan) -> String {
    let db = &plan.database;
    let pool = plan.processes.first().map_or(8, |p| p.pool);
    let mut yaml = format!(
        "database:\n  name: psycopg2\n  args:\n    user: {}\n    dbname: {}\n    host: {}\n    port: {}\n    cp_min: 2\n    cp_max: {pool}\n",
        text(&db.user),
        text(&db.name),
        text(&db.host),
        db.port
    );
    if let Some(file) = &db.passfile {
        let _ = writeln!(yaml, "    passfile: {}", path(file));
    }
    if let Some(mode) = &db.sslmode {
        let _ = writeln!(yaml, "    sslmode: {}", text(mode));
    }
    if let Some(file) = &db.sslrootcert {
        let _ = writeln!(yaml, "    sslrootcert: {}", path(file));
    }
    yaml
}

fn redis(plan: &Plan) -> String {
    let mut yaml = String::from("redis:\n  enabled: true\n");
    let Some(redis) = &plan.redis else { return yaml };
    let _ = match &redis.place {
        RedisPlace::Tcp(host, port) => writeln!(yaml, "  host: {}\n  port: {port}", text(host)),
        RedisPlace::Socket(socket) => writeln!(yaml, "  path: {}", path(socket)),
    };
    if redis.tls {
        yaml.push_str("  use_tls: true\n");
    }
    if let Some(file) = &redis.ca {
        let _ = writeln!(yaml, "  ca_file: {}", path(file));
    }
    if let Some(user) = &redis.username {
        let _ = writeln!(yaml, "  username: {}", text(user));
    }
    if let Some(file) = &redis.password_path {
        let _ = writeln!(yaml, "  password_path: {}", path(file));
    }
    yaml
}

fn instance_map(plan: &Plan) -> String {
    let mut yaml = String::from("instance_map:\n");
    let tls = if plan.tls().is_some() { "    tls: true\n" } else { "" };
    // Others are never asked for anything, so that their number is no affair of the rest.
    // Those who speak to other servers for all are asked to.
    let speakers = plan.speakers().unwrap_or_default();
    let asked = |process: &&Process| {
        matches!(process.role, None | Some(Role::Events | Role::Streams)) || speakers.contains(&process.name)
    };
    for process in plan.processes.iter().filter(asked) {
        let _ = match &process.replication {
            Place::Tcp(at) => write!(
                yaml,
                "  {}:\n    host: {}\n    port: {}\n{tls}",
                text(&process.name),
                text(&at.ip().to_string()),
                at.port()
            ),
            Place::Socket(socket) => writeln!(yaml, "  {}:\n    path: {}", text(&process.name), path(socket)),
        };
    }
    yaml
}

/// Streams with exactly one writer, which several processes of the role share out.
const SINGLE: [&str; 5] = ["typing", "to_device", "account_data", "presence", "push_rules"];
/// Streams that every process of the role may write.
const SHARED: [&str; 4] = ["receipts", "device_lists", "thread_subscriptions", "quarantined_media_changes"];

/// Which of the streams workers writes a stream; `None`: any of them.
pub fn writer_index(stream: &str, workers: usize) -> Option<usize> {
    SINGLE.iter().position(|name| *name == stream).map(|i| i % workers.max(1))
}

fn duties(plan: &Plan, keys: &mut Keys) {
    let names = |role| plan.of_role(role).map(|p| p.name.as_str()).collect::<Vec<_>>();
    let (events, streams) = (names(Role::Events), names(Role::Streams));
    let mut writers = String::new();
    if !events.is_empty() {
        let _ = writeln!(writers, "  events: {}", list(&events));
    }
    if !streams.is_empty() {
        for stream in SINGLE {
            let _ =
                writeln!(writers, "  {stream}: {}", list(&[streams[writer_index(stream, streams.len()).unwrap_or(0)]]));
        }
        for stream in SHARED {
            let _ = writeln!(writers, "  {stream}: {}", list(&streams));
        }
    }
    if !writers.is_empty() {
        keys.set("stream_writers", format!("stream_writers:\n{writers}"));
    }
    if let Some(speakers) = plan.speakers() {
        keys.line(SPEAKERS, &list(&speakers));
    }
    for (key, role) in [("federation_sender_instances", Role::Sender), ("pusher_instances", Role::Pusher)] {
        if !names(role).is_empty() {
            keys.line(key, &list(&names(role)));
        }
    }
    if let Some(name) = names(Role::Background).first() {
        for key in ["run_background_tasks_on", "update_user_directory_from_worker", "notify_appservices_from_worker"] {
            keys.line(key, &text(name));
        }
    }
    if let Some(name) = names(Role::Media).first() {
        keys.line("enable_media_repo", "false");
        keys.line("media_instance_running_background_jobs", &text(name));
    }
}

/// A worker's own file; empty for main.
pub fn worker(plan: &Plan, process: &Process) -> String {
    let mut keys = Keys::default();
    if process.role.is_none() {
        return String::new();
    }
    keys.line("worker_app", "synapse.app.generic_worker");
    keys.line("worker_name", &text(&process.name));
    let pid = plan.run_dir().join(format!("{}.pid", process.name));
    keys.line("worker_pid_file", &path(&pid));
    keys.line("worker_log_config", &path(&plan.live_dir().join("log.config")));
    keys.set("worker_listeners", listeners(plan, "worker_listeners", process));
    if process.role == Some(Role::Media) {
        keys.line("enable_media_repo", "true");
    }
    let shared_pool = plan.processes.first().map_or(0, |p| p.pool);
    if process.pool != shared_pool {
        let db = database(plan).replace(&format!("cp_max: {shared_pool}\n"), &format!("cp_max: {}\n", process.pool));
        keys.set("database", db);
    }
    keys.finish(HEADER)
}
