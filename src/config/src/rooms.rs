//! Defaults and rules of rooms, the room directory and the user directory.

use serde_json::{Map as JsonMap, Value as Json};

use crate::read::Section;
use crate::registration::{PRESETS, Preset};
use crate::yaml::{Node, Value};

/// Settings of rooms.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// `default_room_version`, `12` if unset.
    pub default_version: String,
    /// Presets whose rooms start encrypted (`encryption_enabled_by_default_for_room_type`).
    pub encrypted_presets: Vec<Preset>,
    /// `default_power_level_content_override`: preset → power level content to put over the default.
    pub power_level_override: Vec<(Preset, JsonMap<String, Json>)>,
    /// `forget_rooms_on_leave`.
    pub forget_on_leave: bool,
    /// `block_non_admin_invites`.
    pub block_non_admin_invites: bool,
    /// `allow_per_room_profiles`.
    pub allow_per_room_profiles: bool,
    /// `max_avatar_size`, bytes.
    pub max_avatar_size: Option<u64>,
    /// `allowed_avatar_mimetypes`.
    pub allowed_avatar_mimetypes: Option<Vec<String>>,
    /// `require_membership_for_aliases`.
    pub require_membership_for_aliases: bool,
    /// `limit_remote_rooms`, if enabled.
    pub limit_remote_rooms: Option<LimitRemoteRooms>,
    /// State shown with invites and knocks: (type, state key); no state key: all of the type.
    pub prejoin_state: Vec<(String, Option<String>)>,
    /// `auto_accept_invites`, if enabled.
    pub auto_accept_invites: Option<AutoAcceptInvites>,
    /// `retention`.
    pub retention: Retention,
}

/// `limit_remote_rooms`.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitRemoteRooms {
    /// Largest complexity.
    pub complexity: f64,
    /// What to tell the user.
    pub complexity_error: String,
    /// Server admins may join all the same.
    pub admins_can_join: bool,
}

/// `auto_accept_invites`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoAcceptInvites {
    /// Direct chats only.
    pub only_for_direct_messages: bool,
    /// Invites of local users only.
    pub only_from_local_users: bool,
    /// The process that does it; `None`: main.
    pub worker_to_run_on: Option<String>,
}

/// `retention`; durations in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Obey and enforce retention policies.
    pub enabled: bool,
    /// `default_policy.min_lifetime`.
    pub default_min_lifetime_ms: Option<u64>,
    /// `default_policy.max_lifetime`.
    pub default_max_lifetime_ms: Option<u64>,
    /// `allowed_lifetime_min`.
    pub allowed_min_ms: Option<u64>,
    /// `allowed_lifetime_max`.
    pub allowed_max_ms: Option<u64>,
    /// `purge_jobs`; one a day if there are none.
    pub purge_jobs: Vec<PurgeJob>,
}

/// One entry of `retention.purge_jobs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeJob {
    /// Milliseconds between runs.
    pub interval_ms: u64,
    /// Rooms whose maximum lifetime is above this.
    pub shortest_max_lifetime_ms: Option<u64>,
    /// Rooms whose maximum lifetime is at most this.
    pub longest_max_lifetime_ms: Option<u64>,
}

/// Settings of the room directory and of profiles and users found through the server.
#[derive(Clone, Debug)]
pub struct Directory {
    /// `enable_room_list_search`.
    pub enable_room_list_search: bool,
    /// `allow_public_rooms_without_auth`.
    pub public_rooms_without_auth: bool,
    /// `allow_public_rooms_over_federation`.
    pub public_rooms_over_federation: bool,
    /// `require_auth_for_profile_requests`.
    pub require_auth_for_profile_requests: bool,
    /// `limit_profile_requests_to_users_who_share_rooms`.
    pub limit_profile_requests_to_users_who_share_rooms: bool,
    /// `include_profile_data_on_invite`.
    pub include_profile_data_on_invite: bool,
    alias_creation_rules: Vec<Rule>,
    room_list_publication_rules: Vec<Rule>,
    /// `user_directory`.
    pub users: UserDirectory,
}

/// `user_directory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDirectory {
    /// Answer searches.
    pub enabled: bool,
    /// Show users that share no room with the searcher.
    pub search_all_users: bool,
    /// Only local users.
    pub exclude_remote_users: bool,
    /// Local users first.
    pub prefer_local_users: bool,
    /// Show locked users.
    pub show_locked_users: bool,
}

/// A rule of `alias_creation_rules` or `room_list_publication_rules`: the first that matches decides.
#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    user_id: regex::Regex,
    room_id: regex::Regex,
    /// `None` matches rooms without aliases too.
    alias: Option<regex::Regex>,
}

impl Rule {
    fn matches(&self, user_id: &str, room_id: &str, aliases: &[&str]) -> bool {
        self.user_id.is_match(user_id)
            && self.room_id.is_match(room_id)
            && self.alias.as_ref().is_none_or(|alias| aliases.iter().any(|a| alias.is_match(a)))
    }
}

impl Directory {
    /// Whether the user may make this alias for the room.
    pub fn may_create_alias(&self, user_id: &str, room_id: &str, alias: &str) -> bool {
        decide(&self.alias_creation_rules, user_id, room_id, &[alias])
    }

    /// Whether the user may publish the room with these local aliases.
    pub fn may_publish_room(&self, user_id: &str, room_id: &str, aliases: &[&str]) -> bool {
        decide(&self.room_list_publication_rules, user_id, room_id, aliases)
    }
}

fn decide(rules: &[Rule], user_id: &str, room_id: &str, aliases: &[&str]) -> bool {
    rules.iter().find(|rule| rule.matches(user_id, room_id, aliases)).is_some_and(|rule| rule.allow)
}

/// A glob (`*`, `?`) as a regular expression for the whole text.
pub(crate) fn glob(pattern: &str) -> Option<regex::Regex> {
    let mut expression = String::from("(?i)^");
    for c in pattern.chars() {
        match c {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            _ => expression.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex::Regex::new(&(expression + "$")).ok()
}

fn rules(root: &Section<'_>, key: &str, default: &[bool]) -> Vec<Rule> {
    let Some(any) = glob("*") else { return Vec::new() };
    if root.some(key).is_none() {
        return default
            .iter()
            .map(|allow| Rule { allow: *allow, user_id: any.clone(), room_id: any.clone(), alias: None })
            .collect();
    }
    let mut rules = Vec::new();
    for section in root.maps(key) {
        if section.some("action").is_none() {
            section.error("action", "missing; allowed: allow, deny");
        }
        let Some(allow) = section.word("action", &[("allow", true), ("deny", false)]) else { continue };
        let get = |key: &str| {
            let text = section.string_or(key, "*");
            glob(&text).unwrap_or_else(|| any.clone())
        };
        let alias = section.string("alias").is_some_and(|a| a != "*").then(|| get("alias"));
        rules.push(Rule { allow, user_id: get("user_id"), room_id: get("room_id"), alias });
    }
    rules
}

pub(crate) fn read_directory(root: &Section<'_>) -> Directory {
    let legacy = "restrict_public_rooms_to_local_users";
    for key in ["allow_public_rooms_without_auth", "allow_public_rooms_over_federation"] {
        if root.has(legacy) && root.has(key) {
            root.error(legacy, format!("can't be set together with {key}; allowed: only the latter"));
        }
    }
    let restricted = root.flag(legacy, false);
    let users = root.child("user_directory");
    let directory = Directory {
        enable_room_list_search: root.flag("enable_room_list_search", true),
        public_rooms_without_auth: !restricted && root.flag("allow_public_rooms_without_auth", false),
        public_rooms_over_federation: !restricted && root.flag("allow_public_rooms_over_federation", false),
        require_auth_for_profile_requests: root.flag("require_auth_for_profile_requests", false),
        limit_profile_requests_to_users_who_share_rooms: root
            .flag("limit_profile_requests_to_users_who_share_rooms", false),
        include_profile_data_on_invite: root.flag("include_profile_data_on_invite", true),
        alias_creation_rules: rules(root, "alias_creation_rules", &[true]),
        room_list_publication_rules: rules(root, "room_list_publication_rules", &[]),
        users: UserDirectory {
            enabled: users.flag("enabled", true),
            search_all_users: users.flag("search_all_users", false),
            exclude_remote_users: users.flag("exclude_remote_users", false),
            prefer_local_users: users.flag("prefer_local_users", false),
            show_locked_users: users.flag("show_locked_users", false),
        },
    };
    if directory.limit_profile_requests_to_users_who_share_rooms && !directory.require_auth_for_profile_requests {
        root.error("limit_profile_requests_to_users_who_share_rooms", "needs require_auth_for_profile_requests: true");
    }
    directory
}

/// Room versions of Synapse 1.163.2 that a server may use for new rooms.
const ROOM_VERSIONS: &[&str] = &[
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "10",
    "11",
    "12",
    "org.matrix.hydra.11",
    "org.matrix.msc3757.10",
    "org.matrix.msc3757.11",
];

pub(crate) fn read(root: &Section<'_>) -> Rooms {
    let complexity = root.child("limit_remote_rooms");
    let invites = root.child("auto_accept_invites");
    Rooms {
        default_version: version(root),
        encrypted_presets: encrypted(root),
        power_level_override: power_levels(root),
        forget_on_leave: root.flag("forget_rooms_on_leave", false),
        block_non_admin_invites: root.flag("block_non_admin_invites", false),
        allow_per_room_profiles: root.flag("allow_per_room_profiles", true),
        max_avatar_size: root.size("max_avatar_size"),
        allowed_avatar_mimetypes: Some(root.strings("allowed_avatar_mimetypes")).filter(|l| !l.is_empty()),
        require_membership_for_aliases: root.flag("require_membership_for_aliases", true),
        limit_remote_rooms: complexity.flag("enabled", false).then(|| LimitRemoteRooms {
            complexity: complexity.number("complexity").unwrap_or(1.0),
            complexity_error: complexity.string("complexity_error").unwrap_or_else(|| {
                "Your homeserver is unable to join rooms this large or complex. Please speak to your server administrator, \
                 or upgrade your instance to join this room."
                    .into()
            }),
            admins_can_join: complexity.flag("admins_can_join", false),
        }),
        prejoin_state: prejoin(root),
        auto_accept_invites: invites.flag("enabled", false).then(|| AutoAcceptInvites {
            only_for_direct_messages: invites.flag("only_for_direct_messages", false),
            only_from_local_users: invites.flag("only_from_local_users", false),
            worker_to_run_on: invites.nonempty("worker_to_run_on"),
        }),
        retention: retention(root),
    }
}

fn version(root: &Section<'_>) -> String {
    let key = "default_room_version";
    let text = match root.some(key).map(|n| &n.value) {
        None => return "12".into(),
        Some(Value::Int(number)) => number.to_string(),
        Some(_) => root.string_or(key, "12"),
    };
    if !ROOM_VERSIONS.contains(&text.as_str()) {
        root.error(key, format!("found {text:?}; allowed: {}", ROOM_VERSIONS.join(", ")));
    }
    text
}

fn encrypted(root: &Section<'_>) -> Vec<Preset> {
    let key = "encryption_enabled_by_default_for_room_type";
    // YAML 1.1 reads a bare off as false.
    if let None | Some(Node { value: Value::Bool(false), .. }) = root.some(key) {
        return Vec::new();
    }
    match root.word(key, &[("all", 2), ("invite", 1), ("off", 0)]) {
        Some(2) => vec![Preset::PrivateChat, Preset::TrustedPrivateChat, Preset::PublicChat],
        Some(1) => vec![Preset::PrivateChat, Preset::TrustedPrivateChat],
        _ => Vec::new(),
    }
}

fn power_levels(root: &Section<'_>) -> Vec<(Preset, JsonMap<String, Json>)> {
    let section = root.child("default_power_level_content_override");
    let mut all = Vec::new();
    for (name, node) in section.map.iter() {
        match (PRESETS.iter().find(|(n, _)| *n == name), node.value.to_json()) {
            (Some((_, preset)), Json::Object(content)) => all.push((*preset, content)),
            (Some(_), Json::Null) => {}
            (Some(_), _) => section.error(name, format!("found {}; allowed: a mapping", node.value.kind())),
            (None, _) => {
                section.error(name, "no such preset; allowed: private_chat, trusted_private_chat, public_chat")
            }
        }
    }
    all
}

/// Types whose state helps to decide on an invite; Synapse's list.
const PREJOIN: &[&str] = &[
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.name",
    "m.room.create",
    "m.room.topic",
];

fn prejoin(root: &Section<'_>) -> Vec<(String, Option<String>)> {
    let section = root.child("room_prejoin_state");
    // The create event is always part of it (MSC4311).
    let mut state = vec![("m.room.create".to_owned(), Some(String::new()))];
    if root.has("room_invite_state_types") {
        if !section.map.is_empty() {
            root.error(
                "room_invite_state_types",
                "can't be set together with room_prejoin_state; allowed: only the latter",
            );
        }
        root.warn("room_invite_state_types", "outdated; use room_prejoin_state");
        state.extend(root.strings("room_invite_state_types").into_iter().map(|t| (t, None)));
        return state;
    }
    if !section.flag("disable_default_event_types", false) {
        state.extend(PREJOIN.iter().map(|t| ((*t).to_owned(), Some(String::new()))));
    }
    for (i, node) in section.list("additional_event_types").iter().enumerate() {
        match &node.value {
            Value::Str(kind) => state.push((kind.clone(), None)),
            Value::List(pair) => match &pair[..] {
                [Node { value: Value::Str(kind), .. }, Node { value: Value::Str(key), .. }] => {
                    state.push((kind.clone(), Some(key.clone())))
                }
                _ => section.error(
                    "additional_event_types",
                    format!("entry {i}: allowed: an event type, or [type, state key]"),
                ),
            },
            _ => section
                .error("additional_event_types", format!("entry {i}: allowed: an event type, or [type, state key]")),
        }
    }
    state.sort();
    state.dedup();
    state
}

fn retention(root: &Section<'_>) -> Retention {
    let section = root.child("retention");
    let policy = section.child("default_policy");
    let mut purge_jobs = Vec::new();
    for job in section.maps("purge_jobs") {
        if job.some("interval").is_none() {
            job.error("interval", "missing; allowed: a duration such as 12h");
        }
        let Some(interval_ms) = job.duration("interval") else { continue };
        purge_jobs.push(PurgeJob {
            interval_ms,
            shortest_max_lifetime_ms: job.duration("shortest_max_lifetime"),
            longest_max_lifetime_ms: job.duration("longest_max_lifetime"),
        });
    }
    if purge_jobs.is_empty() {
        purge_jobs.push(PurgeJob {
            interval_ms: 86_400_000,
            shortest_max_lifetime_ms: None,
            longest_max_lifetime_ms: None,
        });
    }
    let retention = Retention {
        enabled: section.flag("enabled", false),
        default_min_lifetime_ms: policy.duration("min_lifetime"),
        default_max_lifetime_ms: policy.duration("max_lifetime"),
        allowed_min_ms: section.duration("allowed_lifetime_min"),
        allowed_max_ms: section.duration("allowed_lifetime_max"),
        purge_jobs,
    };
    let wrong = |low: Option<u64>, high: Option<u64>| matches!((low, high), (Some(low), Some(high)) if low > high);
    if wrong(retention.default_min_lifetime_ms, retention.default_max_lifetime_ms) {
        policy.error("min_lifetime", "longer than max_lifetime");
    }
    if wrong(retention.allowed_min_ms, retention.allowed_max_ms) {
        section.error("allowed_lifetime_min", "longer than allowed_lifetime_max");
    }
    retention
}
