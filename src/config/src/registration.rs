//! Making accounts, passwords, sessions and their tokens.

use crate::read::Section;
use crate::secret::Secret;
use crate::yaml::{Node, Value};

/// Settings of registration.
#[derive(Clone, Debug)]
pub struct Registration {
    /// `enable_registration`: anybody may register.
    pub enabled: bool,
    /// `enable_registration_without_verification`.
    pub without_verification: bool,
    /// `registration_shared_secret[_path]`.
    pub shared_secret: Option<Secret>,
    /// `registration_requires_token`.
    pub requires_token: bool,
    /// `enable_registration_token_3pid_bypass`.
    pub token_3pid_bypass: bool,
    /// `registrations_require_3pid`.
    pub require_3pid: Vec<String>,
    /// `disable_msisdn_registration`.
    pub disable_msisdn: bool,
    /// `allowed_local_3pids` as (medium, regular expression).
    pub allowed_local_3pids: Vec<(String, String)>,
    /// `enable_3pid_lookup`.
    pub enable_3pid_lookup: bool,
    /// `enable_3pid_changes`.
    pub enable_3pid_changes: bool,
    /// `account_threepid_delegates.msisdn`.
    pub msisdn_delegate: Option<String>,
    /// `allow_guest_access`.
    pub allow_guest_access: bool,
    /// `recaptcha_private_key` with what belongs to it: captchas can be checked.
    pub captcha: Option<Captcha>,
    /// `enable_registration_captcha`: whoever registers solves one.
    pub captcha_required: bool,
    /// `bcrypt_rounds`.
    pub bcrypt_rounds: u32,
    /// `auto_join_rooms`.
    pub auto_join_rooms: Vec<String>,
    /// `autocreate_auto_join_rooms`.
    pub autocreate_auto_join_rooms: bool,
    /// `autocreate_auto_join_rooms_federated`.
    pub autocreate_auto_join_rooms_federated: bool,
    /// `autocreate_auto_join_room_preset`.
    pub autocreate_auto_join_room_preset: Preset,
    /// `auto_join_mxid_localpart`.
    pub auto_join_mxid_localpart: Option<String>,
    /// `auto_join_rooms_for_guests`.
    pub auto_join_rooms_for_guests: bool,
    /// `enable_set_displayname`.
    pub enable_set_displayname: bool,
    /// `enable_set_avatar_url`.
    pub enable_set_avatar_url: bool,
    /// `inhibit_user_in_use_error`.
    pub inhibit_user_in_use_error: bool,
    /// `allow_underscore_prefixed_localpart`.
    pub allow_underscore_prefixed_localpart: bool,
    /// `dont_notify_new_devices_for`.
    pub dont_notify_new_devices_for: Vec<String>,
    /// `user_types.default_user_type`.
    pub default_user_type: Option<String>,
    /// `user_types.extra_user_types`.
    pub extra_user_types: Vec<String>,
}

/// reCAPTCHA.
#[derive(Clone, Debug)]
pub struct Captcha {
    /// `recaptcha_public_key`.
    pub public_key: String,
    /// `recaptcha_private_key`.
    pub private_key: Secret,
    /// `recaptcha_siteverify_api`.
    pub siteverify_api: String,
}

/// A preset of createRoom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preset {
    /// `private_chat`
    PrivateChat,
    /// `trusted_private_chat`
    TrustedPrivateChat,
    /// `public_chat`
    PublicChat,
}

/// The presets by name.
pub(crate) const PRESETS: &[(&str, Preset)] = &[
    ("public_chat", Preset::PublicChat),
    ("private_chat", Preset::PrivateChat),
    ("trusted_private_chat", Preset::TrustedPrivateChat),
];

/// Lifetimes of sessions and tokens in milliseconds; `None` is for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// `session_lifetime`.
    pub session_lifetime_ms: Option<u64>,
    /// `refreshable_access_token_lifetime`; `None`: refresh tokens are not given out.
    pub refreshable_access_token_lifetime_ms: Option<u64>,
    /// `nonrefreshable_access_token_lifetime`.
    pub nonrefreshable_access_token_lifetime_ms: Option<u64>,
    /// `refresh_token_lifetime`.
    pub refresh_token_lifetime_ms: Option<u64>,
}

/// `password_config`, `ui_auth`, `login_via_existing_session`.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Passwords may be used to log in.
    pub password_login: bool,
    /// Passwords may be used in user-interactive authentication.
    pub password_reauth: bool,
    /// `password_config.localdb_enabled`.
    pub localdb_enabled: bool,
    /// `password_config.pepper`.
    pub pepper: Secret,
    /// `password_config.policy`, if it is enabled.
    pub policy: Option<PasswordPolicy>,
    /// `ui_auth.session_timeout`, milliseconds.
    pub ui_auth_session_timeout_ms: u64,
    /// `login_via_existing_session`; `None`: disabled.
    pub login_via_existing_session: Option<LoginViaExisting>,
}

/// What a password must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// Fewest characters.
    pub minimum_length: u64,
    /// A digit.
    pub require_digit: bool,
    /// A lower-case letter.
    pub require_lowercase: bool,
    /// An upper-case letter.
    pub require_uppercase: bool,
    /// A character that is neither letter nor digit.
    pub require_symbol: bool,
}

/// `login_via_existing_session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginViaExisting {
    /// Ask for the password again.
    pub require_ui_auth: bool,
    /// Milliseconds a login token lives.
    pub token_timeout_ms: u64,
}

fn delegated(root: &Section<'_>) -> bool {
    root.child("matrix_authentication_service").flag("enabled", false)
}

pub(crate) fn read(root: &Section<'_>) -> Registration {
    let mut enabled = root.text_flag("enable_registration", false);
    if root.has("disable_registration") {
        enabled = !root.text_flag("disable_registration", false);
    }
    if root.flag("invite_3pid_guest", false) {
        root.error("invite_3pid_guest", "no longer supported; allowed: false");
    }
    let delegates = root.child("account_threepid_delegates");
    if delegates.has("email") {
        delegates.error("email", "no longer supported; allowed: a mail server under the key email");
    }
    if root.has("allow_underscore_prefixed_registration") {
        root.warn(
            "allow_underscore_prefixed_registration",
            "not read by Synapse either; it reads allow_underscore_prefixed_localpart",
        );
    }
    let types = root.child("user_types");
    let registration = Registration {
        enabled,
        without_verification: root.text_flag("enable_registration_without_verification", false),
        shared_secret: root.secret("registration_shared_secret").filter(|s| !s.is_empty()),
        requires_token: root.flag("registration_requires_token", false),
        token_3pid_bypass: root.flag("enable_registration_token_3pid_bypass", false),
        require_3pid: root.strings("registrations_require_3pid"),
        disable_msisdn: root.flag("disable_msisdn_registration", false),
        allowed_local_3pids: allowed_3pids(root),
        enable_3pid_lookup: root.flag("enable_3pid_lookup", true),
        enable_3pid_changes: root.flag("enable_3pid_changes", !delegated(root)),
        msisdn_delegate: delegates.nonempty("msisdn"),
        allow_guest_access: root.flag("allow_guest_access", false),
        captcha: captcha(root),
        captcha_required: root.flag("enable_registration_captcha", false),
        bcrypt_rounds: root.int("bcrypt_rounds", 4, 31).unwrap_or(12) as u32,
        auto_join_rooms: root.strings("auto_join_rooms"),
        autocreate_auto_join_rooms: root.flag("autocreate_auto_join_rooms", true),
        autocreate_auto_join_rooms_federated: root.flag("autocreate_auto_join_rooms_federated", true),
        autocreate_auto_join_room_preset: root
            .word("autocreate_auto_join_room_preset", PRESETS)
            .unwrap_or(Preset::PublicChat),
        auto_join_mxid_localpart: root.nonempty("auto_join_mxid_localpart"),
        auto_join_rooms_for_guests: root.flag("auto_join_rooms_for_guests", true),
        enable_set_displayname: root.flag("enable_set_displayname", true),
        enable_set_avatar_url: root.flag("enable_set_avatar_url", true),
        inhibit_user_in_use_error: root.flag("inhibit_user_in_use_error", false),
        allow_underscore_prefixed_localpart: root.flag("allow_underscore_prefixed_localpart", false),
        dont_notify_new_devices_for: root.strings("dont_notify_new_devices_for"),
        default_user_type: types.nonempty("default_user_type"),
        extra_user_types: types.strings("extra_user_types"),
    };
    check(root, &registration);
    registration
}

/// Rules between several settings.
fn check(root: &Section<'_>, registration: &Registration) {
    for alias in &registration.auto_join_rooms {
        if <&ruma::RoomAliasId>::try_from(alias.as_str()).is_err() {
            root.error("auto_join_rooms", format!("found {alias:?}; allowed: room aliases such as #room:example.com"));
        }
    }
    let private = registration.autocreate_auto_join_room_preset != Preset::PublicChat;
    if registration.autocreate_auto_join_rooms && private && registration.auto_join_mxid_localpart.is_none() {
        root.error(
            "auto_join_mxid_localpart",
            "missing; with this autocreate_auto_join_room_preset somebody must send the invitations",
        );
    }
    let verified =
        registration.captcha_required || !registration.require_3pid.is_empty() || registration.requires_token;
    if registration.enabled && !registration.without_verification && !verified {
        root.error(
            "enable_registration",
            "open to everybody without any check, which invites spam; allowed: registration_requires_token, a captcha, \
             registrations_require_3pid, or enable_registration_without_verification: true",
        );
    }
}

fn allowed_3pids(root: &Section<'_>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for section in root.maps("allowed_local_3pids") {
        let (Some(medium), Some(pattern)) = (section.string("medium"), section.string("pattern")) else {
            section.error("", "needs medium and pattern");
            continue;
        };
        if let Err(e) = regex::Regex::new(&pattern) {
            section.error("pattern", format!("no regular expression: {e}"));
        }
        all.push((medium, pattern));
    }
    all
}

fn captcha(root: &Section<'_>) -> Option<Captcha> {
    let public_key = root.secret("recaptcha_public_key");
    let private_key = root.secret("recaptcha_private_key").filter(|k| !k.is_empty());
    if root.flag("enable_registration_captcha", false) && (public_key.is_none() || private_key.is_none()) {
        root.error("enable_registration_captcha", "needs recaptcha_public_key and recaptcha_private_key");
    }
    Some(Captcha {
        public_key: public_key.map(|k| k.expose().to_owned()).unwrap_or_default(),
        private_key: private_key?,
        siteverify_api: root
            .string_or("recaptcha_siteverify_api", "https://www.recaptcha.net/recaptcha/api/siteverify"),
    })
}

/// Addresses may be asked for only if they can be verified.
pub(crate) fn check_verification(root: &Section<'_>, registration: &Registration, can_mail: bool) {
    let asks = |medium: &str| registration.require_3pid.iter().any(|m| m == medium);
    if asks("email") && !can_mail {
        root.error(
            "registrations_require_3pid",
            "asks for an e-mail address, which can't be verified; allowed: with a mail server under the key email",
        );
    }
    if asks("msisdn") && !registration.disable_msisdn && registration.msisdn_delegate.is_none() {
        root.error(
            "registrations_require_3pid",
            "asks for a phone number, which can't be verified; allowed: with account_threepid_delegates.msisdn",
        );
    }
}

/// Synapse writes its default of no end as `infinity` in the documentation only; the word isn't read.
pub(crate) fn read_sessions(root: &Section<'_>) -> Sessions {
    let refreshable = if root.has("refreshable_access_token_lifetime") {
        root.duration("refreshable_access_token_lifetime")
    } else {
        Some(300_000)
    };
    let sessions = Sessions {
        session_lifetime_ms: root.duration("session_lifetime"),
        refreshable_access_token_lifetime_ms: refreshable,
        nonrefreshable_access_token_lifetime_ms: root.duration("nonrefreshable_access_token_lifetime"),
        refresh_token_lifetime_ms: root.duration("refresh_token_lifetime"),
    };
    let written = |key: &str, value: Option<u64>| value.filter(|_| root.has(key));
    for (key, value) in [
        ("refreshable_access_token_lifetime", sessions.refreshable_access_token_lifetime_ms),
        ("nonrefreshable_access_token_lifetime", sessions.nonrefreshable_access_token_lifetime_ms),
        ("refresh_token_lifetime", sessions.refresh_token_lifetime_ms),
    ] {
        if let (Some(session), Some(own)) = (sessions.session_lifetime_ms, written(key, value))
            && session < own
        {
            root.error(key, "longer than session_lifetime; allowed: at most that");
        }
    }
    sessions
}

pub(crate) fn read_auth(root: &Section<'_>) -> Auth {
    let section = root.child("password_config");
    let (login, reauth) = match section.node("enabled") {
        Some(Node { value: Value::Str(s), .. }) if s == "only_for_reauth" => (false, true),
        _ => {
            let on = section.flag("enabled", !delegated(root));
            (on, on)
        }
    };
    let policy = section.child("policy");
    let existing = root.child("login_via_existing_session");
    Auth {
        password_login: login,
        password_reauth: reauth,
        localdb_enabled: section.flag("localdb_enabled", true),
        pepper: Secret::new(section.string_or("pepper", "")),
        policy: policy.flag("enabled", false).then(|| PasswordPolicy {
            minimum_length: policy.count("minimum_length", 0),
            require_digit: policy.flag("require_digit", false),
            require_lowercase: policy.flag("require_lowercase", false),
            require_uppercase: policy.flag("require_uppercase", false),
            require_symbol: policy.flag("require_symbol", false),
        }),
        ui_auth_session_timeout_ms: root.child("ui_auth").duration_or("session_timeout", 0),
        login_via_existing_session: existing.flag("enabled", false).then(|| LoginViaExisting {
            require_ui_auth: existing.flag("require_ui_auth", true),
            token_timeout_ms: existing.duration_or("token_timeout", 300_000),
        }),
    }
}
