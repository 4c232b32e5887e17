//! Other servers: who is spoken to, how patiently, and with which certificates.

use std::path::PathBuf;

use crate::read::Section;
use crate::rooms::glob;
use crate::yaml::{Node, Value};

/// Settings of federation; durations in milliseconds.
#[derive(Clone, Debug)]
pub struct Federation {
    /// `federation_domain_whitelist`; `None`: everybody.
    pub domain_whitelist: Option<Vec<String>>,
    /// `federation_whitelist_endpoint_enabled`.
    pub whitelist_endpoint_enabled: bool,
    /// `federation_metrics_domains`.
    pub metrics_domains: Vec<String>,
    /// `allow_profile_lookup_over_federation`.
    pub allow_profile_lookup: bool,
    /// `allow_device_name_lookup_over_federation`.
    pub allow_device_name_lookup: bool,
    /// `federation.client_timeout`.
    pub client_timeout_ms: u64,
    /// `federation.max_long_retry_delay`.
    pub max_long_retry_delay_ms: u64,
    /// `federation.max_short_retry_delay`.
    pub max_short_retry_delay_ms: u64,
    /// `federation.max_long_retries`.
    pub max_long_retries: u64,
    /// `federation.max_short_retries`.
    pub max_short_retries: u64,
    /// `federation.destination_min_retry_interval`.
    pub destination_min_retry_interval_ms: u64,
    /// `federation.destination_retry_multiplier`.
    pub destination_retry_multiplier: u64,
    /// `federation.destination_max_retry_interval`.
    pub destination_max_retry_interval_ms: u64,
}

impl Federation {
    /// Whether the whitelist, if there is one, has the server.
    pub fn allows(&self, server_name: &str) -> bool {
        self.domain_whitelist.as_ref().is_none_or(|list| list.iter().any(|name| name == server_name))
    }
}

/// Certificates: our own and what is asked of others'.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `tls_certificate_path`.
    pub certificate: Option<PathBuf>,
    /// `tls_private_key_path`.
    pub private_key: Option<PathBuf>,
    /// `federation_verify_certificates`.
    pub verify_certificates: bool,
    /// `federation_certificate_verification_whitelist`.
    verification_whitelist: Vec<regex::Regex>,
    /// `federation_client_minimum_tls_version`: `1`, `1.1`, `1.2`, `1.3`.
    pub minimum_version: String,
    /// `federation_custom_ca_list`: trusted instead of the system's; `None`: the system's.
    pub custom_ca: Option<Vec<PathBuf>>,
    /// `use_insecure_ssl_client_just_for_testing_do_not_use`.
    pub insecure: bool,
}

impl Tls {
    /// Whether the certificate of this server has to be valid.
    pub fn must_verify(&self, host: &str) -> bool {
        self.verify_certificates
            && !self.insecure
            && !self.verification_whitelist.iter().any(|glob| glob.is_match(host))
    }
}

pub(crate) fn read(root: &Section<'_>) -> Federation {
    let section = root.child("federation");
    Federation {
        domain_whitelist: root.some("federation_domain_whitelist").map(|_| root.strings("federation_domain_whitelist")),
        whitelist_endpoint_enabled: root.flag("federation_whitelist_endpoint_enabled", false),
        metrics_domains: root.strings("federation_metrics_domains"),
        allow_profile_lookup: root.flag("allow_profile_lookup_over_federation", true),
        allow_device_name_lookup: root.flag("allow_device_name_lookup_over_federation", false),
        client_timeout_ms: section.duration_or("client_timeout", 60_000),
        max_long_retry_delay_ms: section.duration_or("max_long_retry_delay", 60_000),
        max_short_retry_delay_ms: section.duration_or("max_short_retry_delay", 2_000),
        max_long_retries: section.count("max_long_retries", 10),
        max_short_retries: section.count("max_short_retries", 3),
        destination_min_retry_interval_ms: section.duration_or("destination_min_retry_interval", 600_000),
        destination_retry_multiplier: section.count("destination_retry_multiplier", 2),
        // The column is a bigint.
        destination_max_retry_interval_ms: section
            .duration_or("destination_max_retry_interval", 7 * 86_400_000)
            .min(1 << 62),
    }
}

pub(crate) fn read_tls(root: &Section<'_>, any_tls_listener: bool) -> Tls {
    let certificate = root.file("tls_certificate_path");
    let private_key = root.file("tls_private_key_path");
    if any_tls_listener {
        for (key, path) in [("tls_certificate_path", &certificate), ("tls_private_key_path", &private_key)] {
            if path.is_none() {
                root.error(key, "missing, though a listener has tls: true; allowed: a PEM file");
            }
        }
    }
    let custom_ca: Option<Vec<PathBuf>> = root
        .some("federation_custom_ca_list")
        .map(|_| root.strings("federation_custom_ca_list").into_iter().map(PathBuf::from).collect());
    if custom_ca.as_ref().is_some_and(Vec::is_empty) {
        root.error("federation_custom_ca_list", "an empty list; allowed: PEM files, or no such key");
    }
    for path in custom_ca.iter().flatten() {
        if let Err(e) = std::fs::metadata(path) {
            root.error("federation_custom_ca_list", format!("can't read {}: {e}", path.display()));
        }
    }
    Tls {
        certificate,
        private_key,
        verify_certificates: root.flag("federation_verify_certificates", true),
        verification_whitelist: root
            .strings("federation_certificate_verification_whitelist")
            .iter()
            .filter_map(|g| glob(g))
            .collect(),
        minimum_version: minimum_version(root),
        custom_ca,
        insecure: root.flag("use_insecure_ssl_client_just_for_testing_do_not_use", false),
    }
}

/// Written as text or as a number.
fn minimum_version(root: &Section<'_>) -> String {
    let key = "federation_client_minimum_tls_version";
    let text = match root.some(key).map(|n| &n.value) {
        None => "1".to_owned(),
        Some(Value::Int(n)) => n.to_string(),
        Some(Value::Float(f)) => f.to_string(),
        Some(_) => root.string_or(key, "1"),
    };
    if !["1", "1.1", "1.2", "1.3"].contains(&text.as_str()) {
        root.error(key, format!("found {text:?}; allowed: 1, 1.1, 1.2, 1.3"));
    }
    text
}

/// `turn_*`.
#[derive(Clone, Debug)]
pub struct Turn {
    /// `turn_uris`.
    pub uris: Vec<String>,
    /// `turn_shared_secret[_path]`.
    pub shared_secret: Option<crate::secret::Secret>,
    /// `turn_username`.
    pub username: Option<String>,
    /// `turn_password`.
    pub password: Option<crate::secret::Secret>,
    /// `turn_user_lifetime`, milliseconds.
    pub user_lifetime_ms: u64,
    /// `turn_allow_guests`.
    pub allow_guests: bool,
}

pub(crate) fn read_turn(root: &Section<'_>) -> Turn {
    let uris = match root.some("turn_uris") {
        Some(Node { value: Value::Str(uri), .. }) => vec![uri.clone()],
        _ => root.strings("turn_uris"),
    };
    Turn {
        uris,
        shared_secret: root.secret("turn_shared_secret").filter(|s| !s.is_empty()),
        username: root.nonempty("turn_username"),
        password: root.nonempty("turn_password").map(crate::secret::Secret::new),
        user_lifetime_ms: root.duration_or("turn_user_lifetime", 3_600_000),
        allow_guests: root.flag("turn_allow_guests", true),
    }
}
