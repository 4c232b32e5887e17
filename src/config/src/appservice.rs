//! Application services: the registration files named by `app_service_config_files`.

use std::path::PathBuf;
use std::sync::Arc;

use regex::Regex;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use crate::ip::IpRanges;
use crate::read::Section;
use crate::secret::Secret;
use crate::yaml;

/// One registered application service.
#[derive(Clone, Debug)]
pub struct AppService {
    /// Unique name.
    pub id: String,
    /// Where it takes transactions; `None`: it wants none.
    pub url: Option<String>,
    /// Token it calls us with.
    pub as_token: Secret,
    /// Token we call it with.
    pub hs_token: Secret,
    /// `sender_localpart` on this server: whom it acts as unless it says otherwise.
    pub sender: OwnedUserId,
    /// Users it is interested in.
    pub users: Vec<Namespace>,
    /// Room aliases it is interested in.
    pub aliases: Vec<Namespace>,
    /// Rooms it is interested in.
    pub rooms: Vec<Namespace>,
    /// Whether rate limits hold for it.
    pub rate_limited: bool,
    /// Third-party protocols it bridges.
    pub protocols: Vec<String>,
    /// Addresses it may call from; `None`: any.
    pub ip_ranges: Option<IpRanges>,
    /// `receive_ephemeral`.
    pub ephemeral: bool,
    /// `de.sorunome.msc2409.push_ephemeral`.
    pub unstable_ephemeral: bool,
    /// `org.matrix.msc3202`: device lists and key counts in transactions.
    pub msc3202: bool,
    /// `io.element.msc4190`: manages devices of its users itself.
    pub msc4190: bool,
}

/// Names that match from their beginning.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Nobody else may use these names.
    pub exclusive: bool,
    regex: Regex,
}

impl Namespace {
    /// Whether a name begins with a match, as in Python's `re.match`.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

impl AppService {
    /// Whether a user is its sender or in its namespace.
    pub fn is_interested_in_user(&self, user_id: &str) -> bool {
        self.sender.as_str() == user_id || self.users.iter().any(|n| n.matches(user_id))
    }

    /// Whether nobody else may register this user id. Only the first namespace that matches counts.
    pub fn is_exclusive_user(&self, user_id: &str) -> bool {
        self.sender.as_str() == user_id || self.users.iter().find(|n| n.matches(user_id)).is_some_and(|n| n.exclusive)
    }

    /// Whether nobody else may make this alias.
    pub fn is_exclusive_alias(&self, alias: &str) -> bool {
        self.aliases.iter().find(|n| n.matches(alias)).is_some_and(|n| n.exclusive)
    }
}

/// The file as written.
#[derive(Deserialize)]
struct File {
    id: String,
    url: Option<String>,
    as_token: String,
    hs_token: String,
    sender_localpart: String,
    namespaces: Namespaces,
    #[serde(default)]
    rate_limited: Option<serde_json::Value>,
    #[serde(default)]
    protocols: Option<Vec<String>>,
    #[serde(default)]
    ip_range_whitelist: Option<Vec<String>>,
    #[serde(default)]
    receive_ephemeral: bool,
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    unstable_ephemeral: bool,
    #[serde(default, rename = "org.matrix.msc3202")]
    msc3202: bool,
    #[serde(default, rename = "io.element.msc4190")]
    msc4190: bool,
}

#[derive(Deserialize)]
struct Namespaces {
    #[serde(default)]
    users: Vec<Pattern>,
    #[serde(default)]
    aliases: Vec<Pattern>,
    #[serde(default)]
    rooms: Vec<Pattern>,
}

#[derive(Deserialize)]
struct Pattern {
    exclusive: bool,
    regex: String,
}

/// Reads all registrations; mistakes are noted under `app_service_config_files`.
pub(crate) fn read(root: &Section<'_>, server_name: &str) -> Vec<Arc<AppService>> {
    let mut all: Vec<Arc<AppService>> = Vec::new();
    for path in root.strings("app_service_config_files").into_iter().map(PathBuf::from) {
        let refuse = |why: String| root.error("app_service_config_files", format!("{}: {why}", path.display()));
        let service = match load(&path, server_name) {
            Ok(service) => service,
            Err(why) => {
                refuse(why);
                continue;
            }
        };
        if all.iter().any(|s| s.id == service.id) {
            refuse(format!("id {:?} is used by another application service", service.id));
        } else if all.iter().any(|s| s.as_token == service.as_token) {
            refuse("as_token is used by another application service".into());
        } else {
            all.push(Arc::new(service));
        }
    }
    all
}

fn load(path: &PathBuf, server_name: &str) -> Result<AppService, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let node = yaml::parse(&text, 0).map_err(|e| format!("line {}: {}", e.line, e.message))?;
    let file: File = serde_json::from_value(node.value.to_json()).map_err(|e| e.to_string())?;
    if file.id.contains('|') {
        return Err("id: may not contain |".into());
    }
    let sender = UserId::parse(format!("@{}:{server_name}", file.sender_localpart))
        .map_err(|_| format!("sender_localpart: {:?} makes no user id", file.sender_localpart))?;
    let ip_ranges = file.ip_range_whitelist.filter(|l| !l.is_empty()).map(ranges).transpose()?;
    Ok(AppService {
        id: file.id,
        url: file.url.filter(|u| !u.is_empty()).map(|u| u.trim_end_matches('/').to_owned()),
        as_token: Secret::new(file.as_token),
        hs_token: Secret::new(file.hs_token),
        sender,
        users: namespaces("users", file.namespaces.users)?,
        aliases: namespaces("aliases", file.namespaces.aliases)?,
        rooms: namespaces("rooms", file.namespaces.rooms)?,
        rate_limited: file.rate_limited.and_then(|v| v.as_bool()).unwrap_or(true),
        protocols: file.protocols.unwrap_or_default(),
        ip_ranges,
        ephemeral: file.receive_ephemeral,
        unstable_ephemeral: file.unstable_ephemeral,
        msc3202: file.msc3202,
        msc4190: file.msc4190,
    })
}

fn namespaces(what: &str, patterns: Vec<Pattern>) -> Result<Vec<Namespace>, String> {
    patterns
        .into_iter()
        .map(|p| {
            let regex = Regex::new(&format!("^(?:{})", p.regex)).map_err(|e| format!("namespaces.{what}: {e}"))?;
            Ok(Namespace { exclusive: p.exclusive, regex })
        })
        .collect()
}

fn ranges(texts: Vec<String>) -> Result<IpRanges, String> {
    let mut ranges = IpRanges::default();
    for text in texts {
        if !ranges.add(&text) {
            return Err(format!("ip_range_whitelist: {text:?} is neither an address nor a network"));
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_namespace_decides() {
        let patterns = vec![
            Pattern { exclusive: false, regex: "@_irc_guest.*".into() },
            Pattern { exclusive: true, regex: "@_irc_".into() },
        ];
        let service = AppService {
            id: "irc".into(),
            url: None,
            as_token: Secret::new("a"),
            hs_token: Secret::new("h"),
            sender: ruma::user_id!("@bot:hs").to_owned(),
            users: namespaces("users", patterns).unwrap(),
            aliases: vec![],
            rooms: vec![],
            rate_limited: true,
            protocols: vec![],
            ip_ranges: None,
            ephemeral: false,
            unstable_ephemeral: false,
            msc3202: false,
            msc4190: false,
        };
        assert!(!service.is_exclusive_user("@_irc_guest1:hs"));
        assert!(service.is_exclusive_user("@_irc_alice:hs"));
        assert!(!service.is_interested_in_user("@alice:hs"));
        assert!(service.is_exclusive_user("@bot:hs"));
    }
}
