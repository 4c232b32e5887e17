//! The `rc_*` settings. Defaults are those of Synapse 1.163.2.

use crate::read::Section;

/// A leaky bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Actions a second that are let through for ever.
    pub per_second: f64,
    /// Actions that may come at once.
    pub burst_count: u64,
}

/// Limits on incoming federation requests of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FederationRateLimit {
    /// Milliseconds over which requests are counted.
    pub window_size_ms: u64,
    /// Requests in the window before they are delayed.
    pub sleep_limit: u64,
    /// Milliseconds of delay.
    pub sleep_delay_ms: u64,
    /// Delayed requests before more are refused.
    pub reject_limit: u64,
    /// Requests worked on at once.
    pub concurrent: u64,
}

/// All rate limits, named as in the file (`rc_login.address` is `login_address`).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct RateLimits {
    pub message: RateLimit,
    pub federation: FederationRateLimit,
    /// `federation_rr_transactions_per_room_per_second`.
    pub federation_receipts_per_room_per_second: u64,
    pub registration: RateLimit,
    pub registration_token_validity: RateLimit,
    pub login_address: RateLimit,
    pub login_account: RateLimit,
    pub login_failed_attempts: RateLimit,
    /// Redactions by server admins; `None`: the message limit counts.
    pub admin_redaction: Option<RateLimit>,
    pub joins_local: RateLimit,
    pub joins_remote: RateLimit,
    pub joins_per_room: RateLimit,
    pub key_requests: RateLimit,
    pub threepid_validation: RateLimit,
    pub invites_per_room: RateLimit,
    pub invites_per_user: RateLimit,
    pub invites_per_issuer: RateLimit,
    pub third_party_invite: RateLimit,
    pub media_create: RateLimit,
    /// Bytes a second and bytes at once (`remote_media_download_*`).
    pub remote_media_downloads: RateLimit,
    pub presence_per_user: RateLimit,
    pub delayed_event_mgmt: RateLimit,
    pub room_creation: RateLimit,
    pub reports: RateLimit,
    pub user_directory: RateLimit,
    pub profile: RateLimit,
}

fn limit(root: &Section<'_>, path: &str, per_second: f64, burst_count: u64) -> RateLimit {
    let mut section = root.clone();
    for part in path.split('.') {
        section = section.child(part);
    }
    RateLimit {
        per_second: section.number("per_second").unwrap_or(per_second),
        burst_count: section.number("burst_count").map_or(burst_count, |n| n as u64),
    }
}

fn message(root: &Section<'_>) -> RateLimit {
    if root.has("rc_message") {
        return limit(root, "rc_message", 0.2, 10);
    }
    RateLimit {
        per_second: root.number("rc_messages_per_second").unwrap_or(0.2),
        burst_count: root.number("rc_message_burst_count").map_or(10, |n| n as u64),
    }
}

fn federation(root: &Section<'_>) -> FederationRateLimit {
    let (section, prefix) =
        if root.has("rc_federation") { (root.child("rc_federation"), "") } else { (root.clone(), "federation_rc_") };
    let get = |key: &str, default| section.count(&format!("{prefix}{key}"), default);
    FederationRateLimit {
        window_size_ms: get("window_size", 1000),
        sleep_limit: get("sleep_limit", 10),
        sleep_delay_ms: get("sleep_delay", 500),
        reject_limit: get("reject_limit", 50),
        concurrent: get("concurrent", 3),
    }
}

pub(crate) fn read(root: &Section<'_>) -> RateLimits {
    RateLimits {
        message: message(root),
        federation: federation(root),
        federation_receipts_per_room_per_second: root.count("federation_rr_transactions_per_room_per_second", 50),
        registration: limit(root, "rc_registration", 0.17, 3),
        registration_token_validity: limit(root, "rc_registration_token_validity", 0.1, 5),
        login_address: limit(root, "rc_login.address", 0.003, 5),
        login_account: limit(root, "rc_login.account", 0.003, 5),
        login_failed_attempts: limit(root, "rc_login.failed_attempts", 0.17, 3),
        admin_redaction: root.has("rc_admin_redaction").then(|| limit(root, "rc_admin_redaction", 0.17, 3)),
        joins_local: limit(root, "rc_joins.local", 0.1, 10),
        joins_remote: limit(root, "rc_joins.remote", 0.01, 10),
        joins_per_room: limit(root, "rc_joins_per_room", 1.0, 10),
        key_requests: limit(root, "rc_key_requests", 20.0, 100),
        threepid_validation: limit(root, "rc_3pid_validation", 0.003, 5),
        invites_per_room: limit(root, "rc_invites.per_room", 0.3, 10),
        invites_per_user: limit(root, "rc_invites.per_user", 0.003, 5),
        invites_per_issuer: limit(root, "rc_invites.per_issuer", 0.3, 10),
        third_party_invite: limit(root, "rc_third_party_invite", 0.0025, 5),
        media_create: limit(root, "rc_media_create", 10.0, 50),
        remote_media_downloads: RateLimit {
            per_second: root.size("remote_media_download_per_second").unwrap_or(87 << 10) as f64,
            burst_count: root.size("remote_media_download_burst_count").unwrap_or(500 << 20),
        },
        presence_per_user: limit(root, "rc_presence.per_user", 0.1, 1),
        delayed_event_mgmt: limit(root, "rc_delayed_event_mgmt", 1.0, 5),
        room_creation: limit(root, "rc_room_creation", 0.016, 10),
        reports: limit(root, "rc_reports", 1.0, 5),
        user_directory: limit(root, "rc_user_directory", 0.016, 200),
        profile: limit(root, "rc_profile", 1.0, 500),
    }
}
