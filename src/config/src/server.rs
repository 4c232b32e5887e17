//! What the server is and how it presents itself: name, base URL, well-known files, limits, presence, networks.

use std::path::PathBuf;

use ruma::OwnedServerName;
use serde_json::{Map as JsonMap, Value as Json};

use crate::ip::IpRanges;
use crate::read::Section;
use crate::yaml::{Node, Value};

/// Settings of the server as a whole.
#[derive(Clone, Debug)]
pub struct Server {
    /// The part of user ids after the colon.
    pub name: OwnedServerName,
    /// Where clients reach the server; ends in `/`.
    pub public_baseurl: String,
    /// Whether `public_baseurl` was set, and so `/.well-known/matrix/client` is served and login answers name it.
    pub serve_client_wellknown: bool,
    /// `serve_server_wellknown`: answer `/.well-known/matrix/server` with port 443.
    pub serve_server_wellknown: bool,
    /// `extra_well_known_client_content`.
    pub extra_well_known_client_content: JsonMap<String, Json>,
    /// `default_identity_server`, for the well-known file.
    pub default_identity_server: Option<String>,
    /// Where `/` sends browsers.
    pub web_client_location: Option<String>,
    /// `admin_contact`, shown when a limit is hit.
    pub admin_contact: Option<String>,
    /// `user_agent_suffix`.
    pub user_agent_suffix: Option<String>,
    /// `pid_file`, or `worker_pid_file` on a worker.
    pub pid_file: Option<PathBuf>,
    /// `soft_file_limit`: open files to ask the system for; 0: as many as allowed.
    pub soft_file_limit: u64,
    /// Refuse all requests of clients.
    pub hs_disabled: bool,
    /// What to say then.
    pub hs_disabled_message: String,
    /// `enable_search`: index messages.
    pub enable_search: bool,
    /// `filter_timeline_limit`: most events of a timeline; `None`: no limit.
    pub filter_timeline_limit: Option<u64>,
    /// `enable_ephemeral_messages`: obey `org.matrix.self_destruct_after`.
    pub enable_ephemeral_messages: bool,
    /// `request_token_inhibit_3pid_errors`.
    pub request_token_inhibit_3pid_errors: bool,
    /// `next_link_domain_whitelist`.
    pub next_link_domain_whitelist: Option<Vec<String>>,
    /// `redaction_retention_period`, milliseconds; `None`: keep the originals for ever.
    pub redaction_retention_period_ms: Option<u64>,
    /// `redaction_allowed_period`, milliseconds.
    pub redaction_allowed_period_ms: Option<u64>,
    /// `forgotten_room_retention_period`, milliseconds.
    pub forgotten_room_retention_period_ms: Option<u64>,
    /// `user_ips_max_age`, milliseconds; `None`: for ever.
    pub user_ips_max_age_ms: Option<u64>,
    /// `delete_stale_devices_after`, milliseconds.
    pub delete_stale_devices_after_ms: Option<u64>,
    /// `max_event_delay_duration` (MSC4140), milliseconds; `None`: delayed events are off.
    pub max_event_delay_duration_ms: Option<u64>,
    /// `experimental_features.msc4140_max_delayed_events_per_user`.
    pub max_delayed_events_per_user: u64,
    /// `cleanup_extremities_with_dummy_events`.
    pub cleanup_extremities_with_dummy_events: bool,
    /// `dummy_events_threshold`: forward extremities of a room from which a dummy event is sent.
    pub dummy_events_threshold: u64,
    /// `include_profile_updates_in_sync` (MSC4429, MSC4262).
    pub include_profile_updates_in_sync: bool,
    /// `exclude_rooms_from_sync`.
    pub exclude_rooms_from_sync: Vec<String>,
    /// `exclude_rooms_from_presence`.
    pub exclude_rooms_from_presence: Vec<String>,
    /// Monthly active users.
    pub mau: Mau,
    /// Networks not to be spoken to.
    pub ip_ranges: OutboundRanges,
    /// Proxies for outgoing requests.
    pub proxy: Proxy,
    /// `custom_template_directory`.
    pub custom_template_directory: Option<PathBuf>,
}

/// Limits by monthly active users.
#[derive(Clone, Debug)]
pub struct Mau {
    /// `limit_usage_by_mau`.
    pub limit_usage: bool,
    /// `max_mau_value`; 0 if there is no limit.
    pub max_value: u64,
    /// `mau_stats_only`.
    pub stats_only: bool,
    /// `mau_trial_days`.
    pub trial_days: u64,
    /// `mau_appservice_trial_days`, by appservice id.
    pub appservice_trial_days: Vec<(String, u64)>,
    /// `mau_limit_reserved_threepids` as (medium, address).
    pub reserved_threepids: Vec<(String, String)>,
    /// `mau_limit_alerting`.
    pub limit_alerting: bool,
}

/// Addresses that outgoing requests must not go to, unless listed as an exception.
#[derive(Clone, Debug)]
pub struct OutboundRanges {
    /// `ip_range_blacklist` and the unspecified addresses.
    pub deny: IpRanges,
    /// `ip_range_whitelist`.
    pub allow: IpRanges,
    /// The same for other homeservers and identity servers (`federation_ip_range_blacklist` if it is set).
    pub federation_deny: IpRanges,
    /// Exceptions for other homeservers.
    pub federation_allow: IpRanges,
}

/// Proxies, from the file or the environment.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// For `http:`.
    pub http: Option<String>,
    /// For `https:`.
    pub https: Option<String>,
    /// Hosts and networks that are reached directly.
    pub no_proxy_hosts: Vec<String>,
}

/// `presence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Serve presence at all.
    pub enabled: bool,
    /// Track users by their requests (false for `untracked`).
    pub track: bool,
    /// `include_offline_users_on_sync`.
    pub include_offline_users_on_sync: bool,
    /// `last_active_granularity`, milliseconds.
    pub last_active_granularity_ms: u64,
    /// `sync_online_timeout`, milliseconds.
    pub sync_online_timeout_ms: u64,
    /// `idle_timeout`, milliseconds.
    pub idle_timeout_ms: u64,
}

/// Reads and checks `server_name`; a missing or wrong one is replaced so that reading can go on.
pub(crate) fn read_name(root: &Section<'_>) -> OwnedServerName {
    let placeholder = || ruma::server_name!("invalid").to_owned();
    let Some(name) = root.string("server_name") else {
        if root.some("server_name").is_none() {
            root.error("server_name", "missing; allowed: the name after the colon of user ids, such as example.com");
        }
        return placeholder();
    };
    OwnedServerName::try_from(name.as_str()).unwrap_or_else(|_| {
        root.error("server_name", format!("found {name:?}; allowed: a host name or address, with or without a port"));
        placeholder()
    })
}

pub(crate) fn read(root: &Section<'_>, name: OwnedServerName, is_worker: bool) -> Server {
    let experimental = root.child("experimental_features");
    for key in ["daemonize", "worker_daemonize"] {
        if root.flag(key, false) {
            root.warn(key, "processes stay in the foreground; let systemd run them (ignored)");
        }
    }
    let retention = |key: &str, default: u64| if root.has(key) { root.duration(key) } else { Some(default) };
    Server {
        public_baseurl: base_url(root, &name),
        name,
        serve_client_wellknown: root.some("public_baseurl").is_some(),
        serve_server_wellknown: root.flag("serve_server_wellknown", false),
        extra_well_known_client_content: well_known(root),
        default_identity_server: root.nonempty("default_identity_server"),
        web_client_location: http_url(root, "web_client_location"),
        admin_contact: root.nonempty("admin_contact"),
        user_agent_suffix: root.nonempty("user_agent_suffix"),
        pid_file: root.file(if is_worker { "worker_pid_file" } else { "pid_file" }),
        soft_file_limit: root.count("soft_file_limit", 0),
        hs_disabled: root.flag("hs_disabled", false),
        hs_disabled_message: root.string_or("hs_disabled_message", ""),
        enable_search: root.flag("enable_search", true),
        filter_timeline_limit: timeline_limit(root),
        enable_ephemeral_messages: root.flag("enable_ephemeral_messages", false),
        request_token_inhibit_3pid_errors: root.flag("request_token_inhibit_3pid_errors", false),
        next_link_domain_whitelist: root
            .some("next_link_domain_whitelist")
            .map(|_| root.strings("next_link_domain_whitelist")),
        redaction_retention_period_ms: retention("redaction_retention_period", 7 * 86_400_000),
        redaction_allowed_period_ms: root.duration("redaction_allowed_period"),
        forgotten_room_retention_period_ms: root.duration("forgotten_room_retention_period"),
        user_ips_max_age_ms: retention("user_ips_max_age", 28 * 86_400_000),
        delete_stale_devices_after_ms: root.duration("delete_stale_devices_after").filter(|ms| *ms > 0),
        max_event_delay_duration_ms: event_delay(root),
        max_delayed_events_per_user: experimental.count("msc4140_max_delayed_events_per_user", 100),
        cleanup_extremities_with_dummy_events: root.flag("cleanup_extremities_with_dummy_events", true),
        dummy_events_threshold: root.count("dummy_events_threshold", 10),
        include_profile_updates_in_sync: root.flag("include_profile_updates_in_sync", false),
        exclude_rooms_from_sync: root.strings("exclude_rooms_from_sync"),
        exclude_rooms_from_presence: root.strings("exclude_rooms_from_presence"),
        mau: mau(root),
        ip_ranges: ranges(root),
        proxy: proxy(root),
        custom_template_directory: root.child("templates").file("custom_template_directory"),
    }
}

fn base_url(root: &Section<'_>, name: &OwnedServerName) -> String {
    let Some(mut url) = root.nonempty("public_baseurl") else { return format!("https://{name}/") };
    if !url.ends_with('/') {
        url.push('/');
    }
    if !(url.starts_with("http://") || url.starts_with("https://")) || url.contains(['?', '#']) {
        root.error(
            "public_baseurl",
            format!("found {url:?}; allowed: an http or https URL without query and fragment"),
        );
    }
    url
}

fn http_url(root: &Section<'_>, key: &str) -> Option<String> {
    let url = root.nonempty(key)?;
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        root.error(key, format!("found {url:?}; allowed: an http or https URL"));
    }
    Some(url)
}

fn well_known(root: &Section<'_>) -> JsonMap<String, Json> {
    let section = root.child("extra_well_known_client_content");
    for (key, better) in [("m.homeserver", "public_baseurl"), ("m.identity_server", "default_identity_server")] {
        if section.has(key) {
            section.error(key, format!("can't be set here; allowed: the top-level key {better}"));
        }
    }
    section.map.iter().map(|(k, n)| (k.to_owned(), n.value.to_json())).collect()
}

/// -1 stands for no limit.
fn timeline_limit(root: &Section<'_>) -> Option<u64> {
    match root.node("filter_timeline_limit") {
        Some(Node { value: Value::Int(n), .. }) if *n < 0 => None,
        _ => Some(root.count("filter_timeline_limit", 100)),
    }
}

fn event_delay(root: &Section<'_>) -> Option<u64> {
    let ms = root.duration("max_event_delay_duration");
    if ms == Some(0) {
        root.error("max_event_delay_duration", "found 0; allowed: a duration above 0, or nothing");
    }
    ms
}

fn mau(root: &Section<'_>) -> Mau {
    let limit_usage = root.flag("limit_usage_by_mau", false);
    let days = root.child("mau_appservice_trial_days");
    let reserved = root.maps("mau_limit_reserved_threepids");
    Mau {
        limit_usage,
        max_value: if limit_usage { root.count("max_mau_value", 0) } else { 0 },
        stats_only: root.flag("mau_stats_only", false),
        trial_days: root.count("mau_trial_days", 0),
        appservice_trial_days: days.map.iter().map(|(id, _)| (id.to_owned(), days.count(id, 0))).collect(),
        reserved_threepids: reserved.iter().filter_map(|s| Some((s.string("medium")?, s.string("address")?))).collect(),
        limit_alerting: root.flag("mau_limit_alerting", true),
    }
}

/// Networks that are private, local, for tests or otherwise no place for a request from outside.
const DEFAULT_DENY: &[&str] = &[
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "192.0.0.0/24",
    "169.254.0.0/16",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "::1/128",
    "fe80::/10",
    "fc00::/7",
    "2001:db8::/32",
    "ff00::/8",
    "fec0::/10",
];

/// Reads a list of networks, each with its IPv6 forms.
pub(crate) fn read_ranges(root: &Section<'_>, key: &str, always: &[&str]) -> IpRanges {
    let mut ranges = IpRanges::default();
    for text in root.strings(key) {
        if !ranges.add(&text) {
            root.error(key, format!("found {text:?}; allowed: an IP address or a network such as 10.0.0.0/8"));
        }
    }
    for text in always {
        ranges.add(text);
    }
    ranges
}

/// Never sensible as a destination: they mean "this host" to many systems.
pub(crate) const UNSPECIFIED: &[&str] = &["0.0.0.0", "::"];

fn ranges(root: &Section<'_>) -> OutboundRanges {
    let deny = if root.has("ip_range_blacklist") {
        read_ranges(root, "ip_range_blacklist", UNSPECIFIED)
    } else {
        let mut ranges = IpRanges::default();
        for text in DEFAULT_DENY.iter().chain(UNSPECIFIED) {
            ranges.add(text);
        }
        ranges
    };
    let allow = read_ranges(root, "ip_range_whitelist", &[]);
    let own = root.has("federation_ip_range_blacklist");
    OutboundRanges {
        federation_deny: if own {
            read_ranges(root, "federation_ip_range_blacklist", UNSPECIFIED)
        } else {
            deny.clone()
        },
        federation_allow: if own { IpRanges::default() } else { allow.clone() },
        deny,
        allow,
    }
}

fn proxy(root: &Section<'_>) -> Proxy {
    let env =
        |name: &str| std::env::var(name).or_else(|_| std::env::var(name.to_uppercase())).ok().filter(|v| !v.is_empty());
    let get = |key: &str| if root.has(key) { root.nonempty(key) } else { env(key) };
    Proxy {
        http: get("http_proxy"),
        https: get("https_proxy"),
        no_proxy_hosts: if root.some("no_proxy_hosts").is_some() {
            root.strings("no_proxy_hosts")
        } else {
            env("no_proxy").map(|v| v.split(',').map(|h| h.trim().to_owned()).collect()).unwrap_or_default()
        },
    }
}

pub(crate) fn read_presence(root: &Section<'_>) -> Presence {
    let section = root.child("presence");
    let (enabled, track) = match section.some("enabled") {
        Some(Node { value: Value::Str(s), .. }) if s == "untracked" => (true, false),
        Some(_) => {
            let on = section.flag("enabled", true);
            (on, on)
        }
        None => {
            let on = root.flag("use_presence", true);
            (on, on)
        }
    };
    let presence = Presence {
        enabled,
        track,
        include_offline_users_on_sync: section.flag("include_offline_users_on_sync", false),
        last_active_granularity_ms: section.duration_or("last_active_granularity", 60_000),
        sync_online_timeout_ms: section.duration_or("sync_online_timeout", 30_000),
        idle_timeout_ms: section.duration_or("idle_timeout", 300_000),
    };
    for (key, ms) in [
        ("last_active_granularity", presence.last_active_granularity_ms),
        ("sync_online_timeout", presence.sync_online_timeout_ms),
    ] {
        if ms == 0 {
            section.error(key, "found 0; allowed: a duration above 0");
        }
    }
    if presence.idle_timeout_ms <= presence.last_active_granularity_ms {
        section.error("idle_timeout", "not longer than last_active_granularity; allowed: a longer duration");
    }
    presence
}
