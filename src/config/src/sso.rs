//! Single sign-on: CAS.

use std::path::PathBuf;

use crate::read::Section;
use crate::yaml::Value;

/// `sso`: what all ways of single sign-on share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sso {
    /// `client_whitelist`: beginnings of URLs that a browser is sent back to without asking.
    pub client_whitelist: Vec<String>,
    /// `update_profile_information`: take the name over at each login.
    pub update_profile_information: bool,
    /// `template_dir` (outdated): where templates are looked for after `templates.custom_template_directory`.
    pub template_dir: Option<PathBuf>,
}

/// `cas_config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cas {
    /// `server_url`, without a slash at the end.
    pub server_url: String,
    /// `protocol_version`: 1, 2 or 3.
    pub protocol_version: Option<u8>,
    /// `displayname_attribute`.
    pub displayname_attribute: Option<String>,
    /// `required_attributes`: an attribute, and the value it must have (any if None).
    pub required_attributes: Vec<(String, Option<String>)>,
    /// `enable_registration`.
    pub enable_registration: bool,
    /// `allow_numeric_ids` with `numeric_ids_prefix`: what is put before names that are numbers.
    pub numeric_prefix: Option<String>,
    /// `idp_name`.
    pub name: String,
    /// `idp_icon`.
    pub icon: Option<String>,
    /// `idp_brand`.
    pub brand: Option<String>,
}

pub(crate) fn read(root: &Section<'_>, public_baseurl: &str) -> Sso {
    for (key, what) in [("oidc_config", "OpenID Connect"), ("saml2_config", "SAML")] {
        if root.some(key).is_some_and(|n| n.value.truthy()) && root.child(key).flag("enabled", key != "oidc_config") {
            root.warn(key, format_args!("logging in by {what} is not built; ignored"));
        }
    }
    if !root.list("oidc_providers").is_empty() {
        root.warn("oidc_providers", "logging in by OpenID Connect is not built; ignored");
    }
    let section = root.child("sso");
    let mut client_whitelist = section.strings("client_whitelist");
    // The server's own login page leads to itself; asking there would be pointless.
    client_whitelist.push(format!("{public_baseurl}_matrix/static/client/login"));
    Sso {
        client_whitelist,
        update_profile_information: section.flag("update_profile_information", false),
        template_dir: section.file("template_dir"),
    }
}

pub(crate) fn read_cas(root: &Section<'_>) -> Option<Cas> {
    let section = root.child("cas_config");
    if section.map.is_empty() || !section.flag("enabled", true) {
        return None;
    }
    let Some(server_url) = section.nonempty("server_url") else {
        section.error("server_url", "missing; allowed: the URL of the CAS server");
        return None;
    };
    let prefix = section.nonempty("numeric_ids_prefix");
    if prefix.as_ref().is_some_and(|p| !p.chars().all(char::is_alphanumeric)) {
        section.error("numeric_ids_prefix", "has something other than letters and digits; allowed: letters and digits");
    }
    Some(Cas {
        server_url: server_url.trim_end_matches('/').to_owned(),
        protocol_version: section.int("protocol_version", 1, 3).map(|v| v as u8),
        displayname_attribute: section.nonempty("displayname_attribute"),
        required_attributes: required_attributes(&section),
        enable_registration: section.flag("enable_registration", true),
        numeric_prefix: section.flag("allow_numeric_ids", false).then(|| prefix.unwrap_or_else(|| "u".to_owned())),
        name: section.string_or("idp_name", "CAS"),
        icon: section.nonempty("idp_icon"),
        brand: section.nonempty("idp_brand"),
    })
}

fn required_attributes(section: &Section<'_>) -> Vec<(String, Option<String>)> {
    let attributes = section.child("required_attributes");
    let mut all = Vec::new();
    for (name, node) in attributes.map.iter() {
        match &node.value {
            Value::Null => all.push((name.to_owned(), None)),
            Value::Str(value) => all.push((name.to_owned(), Some(value.clone()))),
            other => attributes
                .error(name, format!("found {}; allowed: a string, or nothing for any value", other.describe())),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Log;
    use crate::yaml::parse;

    fn cas(text: &str) -> (Option<Cas>, usize) {
        let log = Log::default();
        let Value::Map(map) = parse(text, 0).expect("YAML").value else { panic!("a mapping") };
        let cas = read_cas(&Section::root(&log, &map));
        let errors = log.errors.borrow().len();
        (cas, errors)
    }

    #[test]
    fn cas_is_on_when_configured() {
        assert!(matches!(cas("x: 1"), (None, 0)));
        assert!(matches!(cas("cas_config: {enabled: false, server_url: a}"), (None, 0)));
        assert!(matches!(cas("cas_config: {enabled: true}"), (None, 1)));
        let (found, errors) =
            cas("cas_config: {server_url: 'https://cas/', required_attributes: {a: b, c: ~}, allow_numeric_ids: 1}");
        let found = found.expect("CAS");
        assert_eq!((found.server_url.as_str(), errors), ("https://cas", 0));
        assert_eq!(found.required_attributes, [("a".into(), Some("b".into())), ("c".into(), None)]);
        assert_eq!(found.numeric_prefix.as_deref(), Some("u"));
    }
}
