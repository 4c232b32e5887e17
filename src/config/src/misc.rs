//! Smaller sections: caches, push, notices, consent, metrics, statistics, background updates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::read::Section;
use crate::yaml::{Node, Value};

/// `caches` and `event_cache_size`.
#[derive(Clone, Debug, PartialEq)]
pub struct Caches {
    /// `event_cache_size`; see [`Caches::events`].
    pub event_cache_size: u64,
    /// `global_factor`.
    pub global_factor: f64,
    /// `per_cache_factors` by canonical name (see [`Caches::factor`]).
    pub per_cache_factors: BTreeMap<String, f64>,
    /// Milliseconds an unused entry lives; `None`: until it is pushed out.
    pub entry_ttl_ms: Option<u64>,
    /// `sync_response_cache_duration`, milliseconds.
    pub sync_response_cache_duration_ms: u64,
    /// `cache_autotuning`.
    pub autotuning: Option<Autotuning>,
}

/// `caches.cache_autotuning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autotuning {
    /// Bytes above which entries are dropped.
    pub max_cache_memory_usage: u64,
    /// Bytes to come down to.
    pub target_cache_memory_usage: u64,
    /// Milliseconds an entry is spared.
    pub min_cache_ttl_ms: u64,
}

/// Less than Synapse's 10K.
const EVENT_CACHE_SIZE: u64 = 8_000;

impl Caches {
    /// How many events are kept in memory: `event_cache_size` times the factor of Synapse's cache of events.
    pub fn events(&self) -> usize {
        (self.event_cache_size as f64 * self.factor("*getEvent*")) as usize
    }

    /// The factor a cache's size is multiplied with.
    pub fn factor(&self, cache: &str) -> f64 {
        self.per_cache_factors.get(&canonical(cache)).copied().unwrap_or(self.global_factor)
    }
}

/// Cache names are compared in lower case and without stars and the like (nor zeros, as in Synapse).
fn canonical(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '1'..='9'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

pub(crate) fn read_caches(root: &Section<'_>) -> Caches {
    let section = root.child("caches");
    let factors = section.child("per_cache_factors");
    let env = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<f64>().ok());
    let mut per_cache_factors: BTreeMap<String, f64> =
        factors.map.iter().filter_map(|(name, _)| Some((canonical(name), factors.number(name)?))).collect();
    for (name, value) in std::env::vars() {
        if let (Some(cache), Ok(factor)) = (name.strip_prefix("SYNAPSE_CACHE_FACTOR_"), value.parse()) {
            per_cache_factors.insert(canonical(cache), factor);
        }
    }
    let mut entry_ttl_ms =
        section.flag("expire_caches", true).then(|| section.duration_or("cache_entry_ttl", 1_800_000));
    if let Some(ms) = section.duration("expiry_time").filter(|ms| *ms > 0) {
        section.warn("expiry_time", "outdated; use expire_caches and cache_entry_ttl");
        entry_ttl_ms = Some(ms);
    }
    let tuning = section.child("cache_autotuning");
    let autotuning = (!tuning.map.is_empty()).then(|| {
        for key in ["max_cache_memory_usage", "target_cache_memory_usage", "min_cache_ttl"] {
            if tuning.some(key).is_none() {
                tuning.error(key, "missing; the three keys of cache_autotuning go together");
            }
        }
        Autotuning {
            max_cache_memory_usage: tuning.size("max_cache_memory_usage").unwrap_or(u64::MAX),
            target_cache_memory_usage: tuning.size("target_cache_memory_usage").unwrap_or(u64::MAX),
            min_cache_ttl_ms: tuning.duration_or("min_cache_ttl", 0),
        }
    });
    Caches {
        event_cache_size: root.size("event_cache_size").unwrap_or(EVENT_CACHE_SIZE),
        global_factor: section.number("global_factor").or_else(|| env("SYNAPSE_CACHE_FACTOR")).unwrap_or(0.5),
        per_cache_factors,
        entry_ttl_ms,
        sync_response_cache_duration_ms: section.duration_or("sync_response_cache_duration", 120_000),
        autotuning,
    }
}

/// `push`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Evaluate push rules and run pushers.
    pub enabled: bool,
    /// Send the event's content to push gateways.
    pub include_content: bool,
    /// Count rooms, not messages.
    pub group_unread_count_by_room: bool,
    /// Most milliseconds a push waits.
    pub jitter_delay_ms: Option<u64>,
}

pub(crate) fn read_push(root: &Section<'_>) -> Push {
    let section = root.child("push");
    if section.some("redact_content").is_some() {
        section.warn("redact_content", "has never worked; use include_content");
    }
    let redact = root.child("email").maybe_flag("redact_content");
    Push {
        enabled: section.flag("enabled", true),
        include_content: redact.map_or_else(|| section.flag("include_content", true), |redact| !redact),
        group_unread_count_by_room: section.flag("group_unread_count_by_room", true),
        jitter_delay_ms: section.duration("jitter_delay").filter(|ms| *ms > 0),
    }
}

/// `server_notices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNotices {
    /// Localpart of the sender.
    pub system_mxid_localpart: String,
    /// Display name of the sender.
    pub system_mxid_display_name: Option<String>,
    /// Avatar of the sender.
    pub system_mxid_avatar_url: Option<String>,
    /// Name of the room.
    pub room_name: String,
    /// Avatar of the room.
    pub room_avatar_url: Option<String>,
    /// Topic of the room.
    pub room_topic: Option<String>,
    /// Join the user rather than invite.
    pub auto_join: bool,
}

pub(crate) fn read_notices(root: &Section<'_>) -> Option<ServerNotices> {
    root.some("server_notices")?;
    let section = root.child("server_notices");
    let Some(system_mxid_localpart) = section.nonempty("system_mxid_localpart") else {
        section.error("system_mxid_localpart", "missing; allowed: the localpart of the user that sends notices");
        return None;
    };
    Some(ServerNotices {
        system_mxid_localpart,
        system_mxid_display_name: section.string("system_mxid_display_name"),
        system_mxid_avatar_url: section.string("system_mxid_avatar_url"),
        room_name: section.string_or("room_name", "Server Notices"),
        room_avatar_url: section.string("room_avatar_url"),
        room_topic: section.string("room_topic"),
        auto_join: section.flag("auto_join", false),
    })
}

/// `user_consent`.
#[derive(Clone, Debug)]
pub struct Consent {
    /// Version of the policy, as text.
    pub version: String,
    /// Folder of the pages.
    pub template_dir: PathBuf,
    /// Content of the notice that asks for consent.
    pub server_notice_content: Option<serde_json::Value>,
    /// Refuse events of users without consent, saying this.
    pub block_events_error: Option<String>,
    /// Ask guests too.
    pub send_server_notice_to_guests: bool,
    /// Ask at registration.
    pub require_at_registration: bool,
    /// What the policy is called.
    pub policy_name: String,
}

pub(crate) fn read_consent(root: &Section<'_>) -> Option<Consent> {
    root.some("user_consent")?;
    let section = root.child("user_consent");
    let version = match section.some("version").map(|n| &n.value) {
        Some(Value::Int(n)) => Some(n.to_string()),
        Some(Value::Float(n)) => Some(format!("{n:?}")),
        _ => section.string("version"),
    };
    let (Some(version), Some(template_dir)) = (version, section.file("template_dir")) else {
        section.error("", "needs version and template_dir");
        return None;
    };
    if !template_dir.is_dir() {
        section.error("template_dir", format!("{} is no folder", template_dir.display()));
    }
    Some(Consent {
        version,
        template_dir,
        server_notice_content: section.some("server_notice_content").map(|n| n.value.to_json()),
        block_events_error: section.nonempty("block_events_error"),
        send_server_notice_to_guests: section.flag("send_server_notice_to_guests", false),
        require_at_registration: section.flag("require_at_registration", false),
        policy_name: section.string_or("policy_name", "Privacy Policy"),
    })
}

/// Metrics, statistics and other things an operator looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operations {
    /// `enable_metrics`.
    pub enable_metrics: bool,
    /// `metrics_flags.known_servers`.
    pub known_servers_metric: bool,
    /// `report_stats`. Plexus never sends any: they would count as Synapse's.
    pub report_stats: bool,
    /// `stats.enabled`.
    pub stats_enabled: bool,
    /// `track_puppeted_user_ips`.
    pub track_puppeted_user_ips: bool,
    /// `track_appservice_user_ips`.
    pub track_appservice_user_ips: bool,
    /// `use_appservice_legacy_authorization`.
    pub appservice_legacy_authorization: bool,
    /// `app_service_config_files`.
    pub app_service_config_files: Vec<PathBuf>,
    /// `background_updates.background_update_duration_ms`.
    pub background_update_duration_ms: u64,
    /// `background_updates.sleep_enabled`.
    pub background_update_sleep: bool,
    /// `background_updates.sleep_duration_ms`.
    pub background_update_sleep_ms: u64,
    /// `background_updates.min_batch_size`.
    pub background_update_min_batch: u64,
    /// `background_updates.default_batch_size`.
    pub background_update_default_batch: u64,
}

pub(crate) fn read_operations(root: &Section<'_>) -> Operations {
    if !root.has("report_stats") {
        root.error(
            "report_stats",
            "missing; allowed: true or false (Synapse asks for the key; nothing is ever reported)",
        );
    }
    let updates = root.child("background_updates");
    let enable_metrics = root.flag("enable_metrics", false);
    for key in ["modules", "password_providers", "spam_checker", "third_party_event_rules"] {
        if root.some(key).is_some_and(|n| n.value.truthy()) {
            root.warn(key, "Python modules can't be run; ignored");
        }
    }
    Operations {
        enable_metrics,
        known_servers_metric: enable_metrics && root.child("metrics_flags").flag("known_servers", false),
        report_stats: root.flag("report_stats", false),
        stats_enabled: root.child("stats").flag("enabled", true),
        track_puppeted_user_ips: root.flag("track_puppeted_user_ips", false),
        track_appservice_user_ips: root.flag("track_appservice_user_ips", false),
        appservice_legacy_authorization: root.flag("use_appservice_legacy_authorization", false),
        app_service_config_files: root.strings("app_service_config_files").into_iter().map(PathBuf::from).collect(),
        background_update_duration_ms: updates.count("background_update_duration_ms", 100),
        background_update_sleep: updates.flag("sleep_enabled", true),
        background_update_sleep_ms: updates.count("sleep_duration_ms", 1000),
        background_update_min_batch: updates.count("min_batch_size", 1),
        background_update_default_batch: updates.count("default_batch_size", 100),
    }
}

/// `experimental_features`, unread but for those that are on by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experimental(pub serde_json::Map<String, serde_json::Value>);

impl Experimental {
    /// Whether a switch such as `msc3881_enabled` is on, by Python's truthiness.
    pub fn on(&self, key: &str) -> bool {
        match self.0.get(key) {
            // Simplified sliding sync is served unless switched off.
            None => key == "msc3575_enabled",
            Some(serde_json::Value::Bool(b)) => *b,
            Some(serde_json::Value::Null) => false,
            Some(serde_json::Value::Number(n)) => n.as_f64() != Some(0.0),
            Some(serde_json::Value::String(s)) => !s.is_empty(),
            Some(serde_json::Value::Array(a)) => !a.is_empty(),
            Some(serde_json::Value::Object(o)) => !o.is_empty(),
        }
    }
}

pub(crate) fn read_experimental(root: &Section<'_>) -> Experimental {
    let section = root.child("experimental_features");
    Experimental(section.map.iter().map(|(key, Node { value, .. })| (key.to_owned(), value.to_json())).collect())
}
