//! Logging in by a CAS server (Apereo CAS protocol 1–3).

use crate::Accounts;
use crate::sso::{CAS, Identity, SsoStep};
use config::sso::Cas;
use outgoing::escape;
use slog::{info, warn};
use types::{Error, Result};

/// What a CAS server says of somebody.
#[derive(Debug, PartialEq)]
struct Found {
    user: String,
    /// A name may repeat; None: an empty element.
    attributes: Vec<(String, Option<String>)>,
}

/// What is wrong with an answer, as an id and in words.
type Wrong = (&'static str, &'static str);

/// Reads the answer to a ticket.
fn parse(text: &str) -> Result<Found, Wrong> {
    let not_xml = ("invalid_response", "CAS response is not XML");
    let document = roxmltree::Document::parse(text).map_err(|_| not_xml)?;
    let root = document.root_element();
    if root.tag_name().name() != "serviceResponse" {
        return Err(("missing_service_response", "root of CAS response is not serviceResponse"));
    }
    let success = root.children().find(roxmltree::Node::is_element);
    let success = success.filter(|n| n.tag_name().name() == "authenticationSuccess");
    let success = success.ok_or(("unsucessful_response", "Unsuccessful CAS response"))?;
    let child = |name: &'static str| success.children().find(move |n| n.tag_name().name() == name);
    let user = child("user").and_then(|n| n.text()).map(str::to_owned);
    let user = user.ok_or(("no_user", "CAS response does not contain user"))?;
    let attributes = child("attributes").map(|list| {
        let elements = list.children().filter(roxmltree::Node::is_element);
        elements.map(|n| (n.tag_name().name().to_owned(), n.text().map(str::to_owned))).collect()
    });
    Ok(Found { user, attributes: attributes.unwrap_or_default() })
}

/// A localpart for a name (spec: "Mapping from other character sets").
fn localpart(name: &str) -> String {
    let mut mapped = String::new();
    for (i, b) in name.bytes().map(|b| b.to_ascii_lowercase()).enumerate() {
        match b {
            b'_' if i == 0 => mapped.push_str("=5f"),
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/' | b'+' => mapped.push(char::from(b)),
            _ => mapped.push_str(&format!("={b:02x}")),
        }
    }
    mapped
}

/// Whether somebody has all that `required_attributes` asks for.
fn may_log_in(cas: &Cas, found: &Found) -> bool {
    cas.required_attributes
        .iter()
        .all(|(name, value)| found.attributes.iter().any(|(n, v)| n == name && (value.is_none() || v == value)))
}

impl Accounts {
    fn cas(&self) -> Result<&Cas> {
        let cas = self.cx.config.cas.as_ref();
        cas.ok_or_else(|| Error::client(400, "M_UNRECOGNIZED", "Homeserver not configured for SSO."))
    }

    /// Where the CAS server sends the browser back to.
    fn cas_service(&self, args: &[(&str, &str)]) -> String {
        let args: Vec<String> = args.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect();
        format!("{}_matrix/client/r0/login/cas/ticket?{}", self.cx.config.server.public_baseurl, args.join("&"))
    }

    /// The CAS server's login page. `args`: what the browser brings back.
    pub(crate) fn cas_redirect(&self, args: &[(&str, &str)]) -> Result<String> {
        Ok(format!("{}/login?service={}", self.cas()?.server_url, escape(&self.cas_service(args))))
    }

    /// A browser comes back from the CAS server with a ticket: for a login, which then goes on at `redirect_url`, or
    /// for stage `m.login.sso` of a session. `client`: address of the client.
    pub async fn cas_ticket(
        &self,
        ticket: &str,
        redirect_url: Option<&str>,
        session: Option<&str>,
        client: &str,
    ) -> Result<SsoStep> {
        let cas = self.cas()?;
        let mut args = Vec::new();
        args.extend(redirect_url.map(|url| ("redirectUrl", url)));
        args.extend(session.map(|id| ("session", id)));
        let path = if cas.protocol_version == Some(3) { "p3/proxyValidate" } else { "proxyValidate" };
        let service = escape(&self.cas_service(&args));
        let url = format!("{}/{path}?ticket={}&service={service}", cas.server_url, escape(ticket));
        let answer = match self.outside().trusted.get(&url).await {
            Ok(answer) if answer.status.is_success() => answer.text(),
            Ok(answer) => {
                let description = format!("The CAS server answered with status {}", answer.status.as_u16());
                return self.sso_error(401, "server_error", &description);
            }
            Err(e) => {
                warn!(self.cx.log, "CAS server not reached"; "error" => %e);
                return self.sso_error(401, "server_error", "The CAS server was not reached");
            }
        };
        let mut found = match parse(&answer) {
            Ok(found) => found,
            Err((error, description)) => {
                info!(self.cx.log, "CAS ticket not valid"; "error" => error);
                return self.sso_error(401, error, description);
            }
        };
        if let (Some(prefix), true) = (&cas.numeric_prefix, found.user.bytes().all(|b| b.is_ascii_digit())) {
            found.user.insert_str(0, prefix);
        }
        if let Some(session) = session {
            return self.finish_sso_stage(CAS, &found.user, session).await;
        }
        if !may_log_in(cas, &found) {
            return self.sso_error(400, "unauthorised", "You are not authorised to log in here.");
        }
        let redirect_url = redirect_url
            .ok_or_else(|| Error::missing_param("Missing string query parameter redirectUrl or session"))?;
        let named = |wanted: &String| {
            let first = found.attributes.iter().find(|(name, _)| name == wanted);
            first.and_then(|(_, value)| value.clone())
        };
        let identity = Identity {
            provider: CAS,
            localpart: localpart(&found.user),
            display_name: cas.displayname_attribute.as_ref().and_then(named),
            external_id: found.user,
        };
        self.finish_sso_login(identity, cas.enable_registration, redirect_url, client).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "<cas:serviceResponse xmlns:cas='http://www.yale.edu/tp/cas'><cas:authenticationSuccess>
        <cas:user>Jane</cas:user><cas:attributes><cas:mail>j@a</cas:mail><cas:mail/><cas:name>Jane D</cas:name></cas:attributes>
        </cas:authenticationSuccess></cas:serviceResponse>";

    #[test]
    fn answers_are_understood_or_refused() {
        let found = parse(GOOD).unwrap();
        assert_eq!(found.user, "Jane");
        let attribute = |n: &str, v: Option<&str>| (n.to_owned(), v.map(str::to_owned));
        assert_eq!(
            found.attributes,
            [attribute("mail", Some("j@a")), attribute("mail", None), attribute("name", Some("Jane D"))]
        );
        let failure = "<a:serviceResponse xmlns:a='x'><a:authenticationFailure code='I'/></a:serviceResponse>";
        assert_eq!(parse(failure).unwrap_err().0, "unsucessful_response");
        assert_eq!(parse("<html/>").unwrap_err().0, "missing_service_response");
        assert_eq!(parse("nonsense").unwrap_err().0, "invalid_response");
        let nobody = "<a:serviceResponse xmlns:a='x'><a:authenticationSuccess/></a:serviceResponse>";
        assert_eq!(parse(nobody).unwrap_err().0, "no_user");
    }

    #[test]
    fn names_become_localparts() {
        for (name, expected) in [
            ("cas_user!", "cas_user=21"),
            ("Jane Doe", "jane=20doe"),
            ("_x", "=5fx"),
            ("é", "=c3=a9"),
            ("a=b", "a=3db"),
        ] {
            assert_eq!(localpart(name), expected);
        }
    }
}
