//! Loading whole configurations: one made by Synapse itself, a cluster, and broken ones.

use std::path::PathBuf;

use plexus_config as config;

use config::registration::Preset;
use config::{Bind, Config, ConfigError, Duties, InstanceLocation, Loaded, Resource, Role, StreamGroup};

/// A folder with a signing key that goes away with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("plexus-config-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("temporary folder");
        std::fs::write(
            path.join("example.com.signing.key"),
            "ed25519 a_SPgB Bg8q3lomZJxatpvIHV0/yHe0A7dLPOcl5g71g4ur1I4\n",
        )
        .expect("key");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text.replace("@DIR@", &self.0.display().to_string())).expect("file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const BASE: &str = "server_name: example.com\nreport_stats: no\ndatabase: {name: psycopg2, args: {user: u, password: 12345, dbname: d, host: /run/pg, cp_max: 7}}\n";

const CLUSTER: &str = "redis: {enabled: 1, path: /run/redis.sock, dbid: '3'}
worker_replication_secret: s3cret
instance_map:
  main: {host: 127.0.0.1, port: 9093}
  ep1: {host: 127.0.0.1, port: 9101}
  gw1: {path: /run/gw1.sock}
stream_writers:
  events: [ep1, gw1]
  typing: gw1
  receipts: [ep1, gw1]
federation_sender_instances: [gw1]
pusher_instances: ep1
run_background_tasks_on: gw1
";

fn load(text: &str) -> Result<Loaded, Vec<ConfigError>> {
    let folder = Folder::new();
    Config::load(&[folder.file("homeserver.yaml", text)], Role::Homeserver)
}

fn good(text: &str) -> Config {
    load(&format!("{BASE}{text}")).unwrap_or_else(|e| panic!("{text}: {e:?}")).config
}

/// The errors for BASE and the text, each as `key: message`.
fn errors(text: &str) -> Vec<String> {
    let errors = load(&format!("{BASE}{text}")).expect_err(text);
    errors.iter().map(|e| format!("{}: {}", e.key, e.message)).collect()
}

#[test]
fn a_file_made_by_synapse_is_read_but_for_its_database() {
    let folder = Folder::new();
    let text = include_str!("data/generated-by-synapse.yaml");
    let errors = Config::load(&[folder.file("homeserver.yaml", text)], Role::Homeserver).expect_err("SQLite");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].key, "database.name");
    assert!(
        errors[0].to_string().contains("homeserver.yaml:28: database.name: SQLite is not supported"),
        "{}",
        errors[0]
    );

    let text = text.replace("sqlite3", "psycopg2").replace("database: /srv", "dbname: /srv");
    let Loaded { config, warnings } =
        Config::load(&[folder.file("homeserver.yaml", &text)], Role::Homeserver).expect("config");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.server.name.as_str(), "example.com");
    assert_eq!(config.server.public_baseurl, "https://example.com/");
    assert!(!config.server.serve_client_wellknown);
    let listener = &config.listeners[0];
    assert_eq!(listener.bind, Bind::Tcp { port: 8008, addresses: vec!["::1".into(), "127.0.0.1".into()], tls: false });
    assert!(listener.x_forwarded && listener.serves(Resource::Keys) && !listener.serves(Resource::Replication));
    assert_eq!(config.keys.signing[0].key_id(), "ed25519:a_SPgB");
    assert_eq!(config.keys.macaroon.expose(), b"for-tests-*zQ~&iPc-xlE,lgus:Edu7_F7@vR&+Xi8.");
    assert_eq!(
        config.registration.shared_secret.as_ref().map(|s| s.expose()),
        Some("for-tests-72-Jb*WJ@@~kK6V1x@=Y&8#Qfa")
    );
    assert!(!format!("{config:?}").contains("for-tests"), "a secret is visible in Debug");
    let duties = config.duties();
    assert!(
        duties.is_main && duties.background_tasks && duties.pushers && duties.federation_sender && duties.appservices
    );
    assert_eq!(duties.writes.len(), StreamGroup::ALL.len());
}

#[test]
fn defaults_are_those_of_synapse() {
    let config = good("");
    assert_eq!(config.database.cp_min, 5);
    assert_eq!(config.database.cp_max, 7);
    assert_eq!(config.database.password.as_ref().map(|p| p.expose()), Some("12345"));
    assert_eq!(config.database.statement_timeout_ms, Some(600_000));
    assert_eq!(config.rooms.default_version, "12");
    assert_eq!(config.rate.message.burst_count, 10);
    assert_eq!(config.rate.login_failed_attempts.per_second, 0.17);
    assert_eq!(config.sessions.refreshable_access_token_lifetime_ms, Some(300_000));
    assert_eq!(config.sessions.session_lifetime_ms, None);
    assert_eq!(config.media.max_upload_size, 52_428_800);
    assert_eq!(config.registration.bcrypt_rounds, 12);
    assert_eq!(config.caches.factor("getEvent"), 0.5);
    assert!(config.presence.track && config.auth.password_login && config.experimental.on("msc3575_enabled"));
    assert!(!config.experimental.on("msc3881_enabled") && !config.registration.enabled);
    assert!(
        config.directory.may_create_alias("@a:b", "!r:b", "#x:b")
            && !config.directory.may_publish_room("@a:b", "!r:b", &[])
    );
    assert!(config.server.ip_ranges.deny.contains("10.1.2.3".parse().expect("address")));
    assert!(!config.server.ip_ranges.deny.contains("9.1.2.3".parse().expect("address")));
    // Without any other secret: a hash of the signing key.
    assert_eq!(config.keys.macaroon.expose().len(), 32);
}

#[test]
fn later_files_replace_top_level_keys_and_folders_are_sorted() {
    let folder = Folder::new();
    let first = folder.file(
        "homeserver.yaml",
        &format!("{BASE}presence: {{enabled: false, idle_timeout: 10m}}\nenable_search: off\n"),
    );
    let inside = folder.0.join("conf.d");
    std::fs::create_dir(&inside).expect("folder");
    std::fs::write(inside.join("b.yaml"), "enable_search: yes\n").expect("file");
    std::fs::write(inside.join("a.yaml"), "enable_search: no\npresence: {enabled: untracked}\n").expect("file");
    std::fs::write(inside.join("c.txt"), "enable_search: no\n").expect("file");
    let options = config::Options { keys_directory: Some(&folder.0), ..Default::default() };
    let config = Config::load_with(&[first, inside], Role::Homeserver, options).expect("config").config;
    assert!(config.server.enable_search && config.presence.enabled && !config.presence.track);
    assert_eq!(config.presence.idle_timeout_ms, 300_000);
}

#[test]
fn flags_follow_python() {
    let config = good(
        "send_federation: ''\nallow_guest_access: 'false'\nrequire_membership_for_aliases: 0\nenable_registration: 'true'\nregistration_requires_token: 1\n",
    );
    assert!(
        config.workers.federation_senders.is_empty()
            && config.registration.allow_guest_access
            && config.registration.enabled
    );
    assert!(!config.rooms.require_membership_for_aliases);
    let loaded = load(&format!("{BASE}allow_guest_access: 'false'\n")).expect("config");
    assert!(
        loaded.warnings.iter().any(|w| w.contains("allow_guest_access") && w.contains("counts as true")),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn a_cluster_shares_its_duties_out() {
    let folder = Folder::new();
    let shared = folder.file("homeserver.yaml", &format!("{BASE}{CLUSTER}"));
    let worker = "worker_app: synapse.app.generic_worker\nworker_name: gw1\nworker_listeners:\n  - {type: http, path: /run/gw1.sock, mode: 0660, resources: [{names: [replication]}]}\n  - {type: http, port: 8083, bind_address: 127.0.0.1, resources: [{names: [client, federation], compress: yes}]}\n";
    let config = Config::load(&[shared.clone(), folder.file("gw1.yaml", worker)], Role::Worker).expect("config").config;
    let duties = config.duties();
    assert_eq!(duties.instance, "gw1");
    assert!(
        !duties.is_main
            && duties.background_tasks
            && duties.federation_sender
            && !duties.pushers
            && !duties.user_directory
    );
    assert_eq!(duties.writes, [StreamGroup::Events, StreamGroup::Typing, StreamGroup::Receipts]);
    assert_eq!(duties.events_shard, Some((1, 2)));
    assert_eq!(duties.listeners[0].bind, Bind::Unix { path: "/run/gw1.sock".into(), mode: 0o660 });
    assert!(duties.listeners[0].x_forwarded && !duties.listeners[1].x_forwarded);
    assert!(duties.listeners[1].compresses(Resource::Client));
    let shown = duties.to_string();
    assert!(
        shown.contains("rooms       shard 2 of 2") && shown.contains("/run/gw1.sock (mode 660): replication"),
        "{shown}"
    );

    let owners = config.owners();
    assert_eq!(owners.owner(StreamGroup::Events, "!AmTzro86pb4BQH1RZ5zpksL5GdtUk2WBxmsvcShmPws"), "ep1");
    assert_eq!(owners.owner(StreamGroup::Presence, "x"), "master");
    assert_eq!(
        owners.address("master"),
        Some(&InstanceLocation::Tcp { host: "127.0.0.1".into(), port: 9093, tls: false })
    );
    assert_eq!(owners.address("nobody"), None);
    assert_eq!(owners.pusher("@a:example.com"), Some("ep1"));
    assert_eq!(config.redis.as_ref().and_then(|r| r.dbid), Some(3));

    let main = Duties::of(&config, "master");
    assert!(main.is_main && main.events_shard.is_none() && main.user_directory && !main.background_tasks);
    assert!(main.writes(StreamGroup::ToDevice) && !main.writes(StreamGroup::Typing));
    // A worker that is listed nowhere is a reader.
    let reader =
        folder.file("r.yaml", "worker_app: synapse.app.synchrotron\nworker_name: reader\nworker_listeners: []\n");
    let duties = Config::load(&[shared, reader], Role::Worker).expect("config").config.duties();
    assert!(duties.writes.is_empty() && !duties.background_tasks);
}

#[test]
fn old_worker_apps_do_their_duty() {
    let shared = "redis: {enabled: true}\ninstance_map: {main: {host: h, port: 1}}\nsend_federation: ''\nstart_pushers: false\nupdate_user_directory: ''\nnotify_appservices: 0\n";
    let folder = Folder::new();
    let homeserver = folder.file("homeserver.yaml", &format!("{BASE}{shared}"));
    for (app, check) in [
        ("federation_sender", (|d| d.federation_sender) as fn(&Duties) -> bool),
        ("pusher", |d| d.pushers),
        ("user_dir", |d| d.user_directory),
        ("appservice", |d| d.appservices),
        ("media_repository", |d| d.media),
    ] {
        let worker = folder
            .file("w.yaml", &format!("worker_app: synapse.app.{app}\nworker_name: w\nenable_media_repo: false\n"));
        let duties = Config::load(&[homeserver.clone(), worker], Role::Worker)
            .unwrap_or_else(|e| panic!("{app}: {e:?}"))
            .config
            .duties();
        assert!(check(&duties), "{app}");
        let others =
            [duties.federation_sender, duties.pushers, duties.user_directory, duties.appservices, duties.media];
        assert_eq!(others.iter().filter(|b| **b).count(), 1, "{app}");
    }
    let main = Config::load(&[homeserver], Role::Homeserver).expect("config").config.duties();
    assert!(!main.federation_sender && !main.pushers && !main.user_directory && !main.appservices);
}

#[test]
fn wrong_clusters_are_refused_with_the_reason() {
    let cases = [
        ("stream_writers: {events: [ghost]}", "stream_writers.events: writer \"ghost\" is not in instance_map"),
        ("stream_writers: {typing: [ep1, gw1]}", "stream_writers.typing: 2 writers (ep1, gw1); allowed: exactly one"),
        ("stream_writers: {events: []}", "stream_writers.events: no writer"),
        ("stream_writers: {events: [ep1, ep1]}", "stream_writers.events: \"ep1\" is listed twice"),
        (
            "stream_writers: {events: main}",
            "stream_writers.events: found \"main\"; the main process is called \"master\"",
        ),
        ("stream_writers: {event: ep1}", "stream_writers.event: no such stream"),
        ("instance_map: {ep1: {host: h}}\nstream_writers: {}", "instance_map.ep1.port: missing"),
        (
            "instance_map: {ep1: {host: h, port: 'x'}}\nstream_writers: {}",
            "instance_map.ep1.port: found the string \"x\"; allowed: a whole number from 0 to 65535",
        ),
        ("redis: {enabled: false}", "redis: not enabled though stream_writers names other processes"),
        (
            "outbound_federation_restricted_to: [nobody]",
            "outbound_federation_restricted_to: \"nobody\" is not in instance_map",
        ),
        (
            "outbound_federation_restricted_to: [main]",
            "outbound_federation_restricted_to: found \"main\"; the main process is called \"master\"",
        ),
        (
            "worker_app: synapse.app.generic_worker",
            "worker_app: found \"synapse.app.generic_worker\" in the configuration of the main process",
        ),
        ("worker_replication_host: h", "worker_replication_host: no longer supported"),
    ];
    for (text, expected) in cases {
        let found = errors(&format!("{CLUSTER}{text}\n"));
        assert!(found.iter().any(|e| e.starts_with(expected)), "{text}: {found:#?}");
    }
    let folder = Folder::new();
    let shared = folder.file("homeserver.yaml", &format!("{BASE}redis: {{enabled: true}}\n"));
    for (text, expected) in [
        ("worker_app: synapse.app.generic_worker\nworker_name: w\n", "instance_map: the entry main is missing"),
        (
            "worker_app: synapse.app.generic_worker\nworker_name: master\n",
            "worker_name: \"master\" means the main process",
        ),
        ("worker_app: synapse.app.nonsense\n", "worker_app: found \"synapse.app.nonsense\""),
        ("worker_name: w\n", "worker_app: missing"),
    ] {
        let found = Config::load(&[shared.clone(), folder.file("w.yaml", text)], Role::Worker).expect_err(text);
        assert!(found.iter().any(|e| format!("{}: {}", e.key, e.message).starts_with(expected)), "{text}: {found:#?}");
    }
}

#[test]
fn the_cache_of_events_has_a_size_and_a_factor() {
    let events = |text: &str| good(&format!("{text}\n")).caches.events();
    assert_eq!(events(""), 4_000);
    assert_eq!(events("event_cache_size: 10K"), 5_120);
    assert_eq!(events("event_cache_size: 1K\ncaches: {global_factor: 2}"), 2_048);
    assert_eq!(events("event_cache_size: 1K\ncaches: {global_factor: 2, per_cache_factors: {getevent: 0.25}}"), 256);
}

#[test]
fn wrong_values_name_key_found_and_allowed() {
    let cases = [
        (
            "listeners: [{port: 70000, type: http}]",
            "listeners[0].port: found the number 70000; allowed: a whole number from 0 to 65535",
        ),
        (
            "listeners: [{port: 1, type: https}]",
            "listeners[0].type: found the string \"https\"; allowed: http, metrics, manhole",
        ),
        (
            "listeners: [{port: 1, type: http, resources: [{names: [clients]}]}]",
            "listeners[0].resources[0].names: found \"clients\"; allowed: client,",
        ),
        ("listeners: [{type: http}]", "listeners[0]: neither port nor path is set"),
        ("listeners: [{port: 1, path: /x, type: http}]", "listeners[0].path: port and path are both set"),
        ("listeners: [{port: 1, type: replication}]", "listeners[0].type: direct TCP replication is gone"),
        ("listeners: 5", "listeners: found the number 5; allowed: a list"),
        ("listeners: [{port: 1, type: http, tls: true}]", "tls_certificate_path: missing"),
        ("session_lifetime: soon", "session_lifetime: found the string \"soon\"; allowed: a number of milliseconds"),
        ("max_upload_size: 5X", "max_upload_size: found the string \"5X\"; allowed: a number of bytes"),
        ("event_cache_size: many", "event_cache_size: found the string \"many\"; allowed: a number of bytes"),
        ("caches: {global_factor: -1}", "caches.global_factor: found the number -1; allowed: a number, at least 0"),
        ("caches: {global_factor: .inf}", "caches.global_factor: found"),
        (
            "caches: {per_cache_factors: {'*getEvent*': big}}",
            "caches.per_cache_factors.*getEvent*: found the string \"big\"; allowed: a number",
        ),
        ("caches: {per_cache_factors: 2}", "caches.per_cache_factors: found the number 2; allowed: a mapping"),
        ("rc_message: {per_second: fast}", "rc_message.per_second: found the string \"fast\"; allowed: a number"),
        ("default_room_version: 99", "default_room_version: found \"99\"; allowed: 1, 2,"),
        ("enable_registration: perhaps", "enable_registration: found the string \"perhaps\"; allowed: true or false"),
        ("enable_registration: true", "enable_registration: open to everybody"),
        ("registration_shared_secret: 5", "registration_shared_secret: found a number; allowed: a string"),
        ("registration_shared_secret_path: /nowhere/x", "registration_shared_secret_path: can't read"),
        ("redis: {enabled: true, username: x}", "redis.username: set without password"),
        ("redis: [1]", "redis: found a list; allowed: a mapping"),
        ("presence: {idle_timeout: 1s}", "presence.idle_timeout: not longer than last_active_granularity"),
        ("old_signing_keys: {'ed25519:x': {key: abc}}", "old_signing_keys.ed25519:x: needs key"),
        ("ip_range_blacklist: [10.0.0.0/99]", "ip_range_blacklist: found \"10.0.0.0/99\"; allowed: an IP address"),
        ("public_baseurl: example.com", "public_baseurl: found \"example.com/\"; allowed: an http or https URL"),
        ("auto_join_rooms: [room]", "auto_join_rooms: found \"room\"; allowed: room aliases"),
        (
            "alias_creation_rules: [{action: maybe}]",
            "alias_creation_rules[0].action: found the string \"maybe\"; allowed: allow, deny",
        ),
        ("url_preview_enabled: true", "url_preview_ip_range_blacklist: missing"),
        ("signing_key_path: /nowhere/k", "signing_key_path: can't read /nowhere/k"),
        ("session_lifetime: 1h\nrefresh_token_lifetime: 2h", "refresh_token_lifetime: longer than session_lifetime"),
        (
            "limit_profile_requests_to_users_who_share_rooms: true",
            "limit_profile_requests_to_users_who_share_rooms: needs require_auth",
        ),
        ("database: {name: mysql}", "database.name: found \"mysql\"; allowed: psycopg2"),
        ("databases: {master: {name: psycopg2}}", "databases: database and databases are both set"),
        ("server_name: 'a b'", "server_name: found \"a b\"; allowed:"),
        ("report_stats: []", "report_stats: found a list; allowed: true or false"),
    ];
    for (text, expected) in cases {
        let found = errors(&format!("{text}\n"));
        assert!(found.iter().any(|e| e.starts_with(expected)), "{text}: {found:#?}");
    }
}

#[test]
fn all_errors_come_at_once_with_file_and_line() {
    let folder = Folder::new();
    let first = folder.file("homeserver.yaml", &format!("{BASE}max_upload_size: lots\n"));
    let second = folder.file("more.yaml", "# a comment\nbcrypt_rounds: 99\n\nsession_lifetime: x\n");
    let errors = Config::load(&[first, second], Role::Homeserver).expect_err("errors");
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 3, "{text:#?}");
    assert!(text.iter().any(|e| e.contains("homeserver.yaml:4: max_upload_size")), "{text:#?}");
    assert!(text.iter().any(|e| e.contains("more.yaml:2: bcrypt_rounds")), "{text:#?}");
    assert!(text.iter().any(|e| e.contains("more.yaml:4: session_lifetime")), "{text:#?}");
}

#[test]
fn broken_files_are_one_error_each() {
    let folder = Folder::new();
    for text in ["a: [1\n", "a: b: c\n", "a:\n\t- x\n", "'", "a: *nothing\n", "? [x]\n: y\n"] {
        let errors = Config::load(&[folder.file("broken.yaml", text)], Role::Homeserver).expect_err(text);
        assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
        assert!(errors[0].to_string().contains("broken.yaml:"), "{text:?}: {}", errors[0]);
    }
    let errors = Config::load(&[folder.0.join("missing.yaml")], Role::Homeserver).expect_err("missing");
    assert!(errors[0].message.contains("can't read the file"), "{errors:?}");
    std::fs::write(folder.0.join("binary.yaml"), [0xff, 0xfe, 0x00]).expect("file");
    assert!(Config::load(&[folder.0.join("binary.yaml")], Role::Homeserver).is_err());
    assert!(Config::load(&[], Role::Homeserver).is_err());
}

#[test]
fn unknown_keys_are_warned_about_with_the_nearest() {
    let text = "enable_registraton: true\nperspectives: {servers: {}}\nuploads_path: /x\nlisteners: [{port: 1, type: http, x_forward: true}]\nexperimental_features: {msc9999: true}\n";
    let warnings = load(&format!("{BASE}{text}")).expect("config").warnings;
    let has = |part: &str| warnings.iter().any(|w| w.contains(part));
    assert!(has("enable_registraton: unknown key, ignored; did you mean enable_registration?"), "{warnings:#?}");
    assert!(
        has("uploads_path: unknown key, ignored")
            && has("listeners[0].x_forward: unknown key, ignored; did you mean x_forwarded?"),
        "{warnings:#?}"
    );
    assert!(!has("msc9999") && !has("perspectives"), "{warnings:#?}");
}

#[test]
fn secrets_come_from_files_and_may_be_forbidden_inline() {
    let folder = Folder::new();
    folder.file("secret", "  from a file \n");
    let text =
        format!("{BASE}registration_shared_secret_path: @DIR@/secret\nworker_replication_secret_path: @DIR@/secret\n");
    let config = Config::load(&[folder.file("homeserver.yaml", &text)], Role::Homeserver).expect("config").config;
    assert_eq!(config.registration.shared_secret.map(|s| s.expose().to_owned()).as_deref(), Some("from a file"));
    assert_eq!(config.keys.macaroon.expose(), b"from a file");
    assert_eq!(config.workers.replication_secret.map(|s| s.expose().to_owned()).as_deref(), Some("from a file"));

    let both = folder.file("homeserver.yaml", &format!("{text}registration_shared_secret: x\n"));
    let errors = Config::load(&[both], Role::Homeserver).expect_err("both");
    assert!(errors[0].message.contains("both set"), "{errors:?}");

    let inline = folder.file("homeserver.yaml", &format!("{BASE}macaroon_secret_key: hunter2\n"));
    let options = config::Options { no_secrets_in_config: true, ..Default::default() };
    let errors = Config::load_with(&[inline], Role::Homeserver, options).expect_err("inline");
    assert!(errors[0].key == "macaroon_secret_key" && !errors[0].to_string().contains("hunter2"), "{errors:?}");
}

#[test]
fn settings_of_rooms() {
    let config = good(
        "encryption_enabled_by_default_for_room_type: off\ndefault_power_level_content_override: {private_chat: {users_default: 5}, public_chat: null}\nroom_prejoin_state: {disable_default_event_types: true, additional_event_types: [a.b, [c.d, k]]}\ndefault_room_version: 10\n",
    );
    assert!(config.rooms.encrypted_presets.is_empty());
    assert_eq!(config.rooms.power_level_override.len(), 1);
    assert_eq!(config.rooms.power_level_override[0].0, Preset::PrivateChat);
    assert_eq!(config.rooms.default_version, "10");
    assert_eq!(config.rooms.prejoin_state.len(), 3);
    assert_eq!(good("encryption_enabled_by_default_for_room_type: invite\n").rooms.encrypted_presets.len(), 2);
    let rules = good("alias_creation_rules: [{user_id: '@bot*:example.com', alias: '#irc_?:example.com', action: allow}, {action: deny}]\nroom_list_publication_rules: [{alias: '#pub*', action: allow}]\n").directory;
    assert!(rules.may_create_alias("@bot1:example.com", "!r:x", "#irc_a:example.com"));
    assert!(!rules.may_create_alias("@bot1:example.com", "!r:x", "#irc_ab:example.com"));
    assert!(!rules.may_create_alias("@eve:example.com", "!r:x", "#irc_a:example.com"));
    assert!(
        rules.may_publish_room("@e:x", "!r:x", &["#other:x", "#public:x"])
            && !rules.may_publish_room("@e:x", "!r:x", &[])
    );
}

#[test]
fn no_garbage_makes_it_panic() {
    use rand::{Rng as _, SeedableRng as _};
    let folder = Folder::new();
    let sample = format!("{BASE}{CLUSTER}{}", include_str!("data/generated-by-synapse.yaml"));
    let pieces = [
        "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "<<: ", "!!int ", "'", "\"", "|", ">", "#", "\t", "\n", "\n  ",
        "0x", "1e", "~", "%YAML 9", "---", "...", "?", "\u{feff}", "ü", "\u{0}",
    ];
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let mut refused = 0;
    for _ in 0..300 {
        let mut text: Vec<char> = sample.chars().collect();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..text.len());
            let end = (at + rng.random_range(0..12)).min(text.len());
            let piece = pieces[rng.random_range(0..pieces.len())];
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        match Config::load(&[folder.file("homeserver.yaml", &text)], Role::Homeserver) {
            Ok(_) => {}
            Err(errors) => {
                assert!(!errors.is_empty());
                refused += 1;
            }
        }
    }
    assert!(refused > 60, "{refused}");
}
