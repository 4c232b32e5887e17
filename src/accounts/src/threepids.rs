//! E-mail addresses and phone numbers of users (spec: "Adding Account Administrative Contact Information").

use crate::Accounts;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};
use slog::{error, info};
use std::time::Duration;
use store::threepid_sessions::{ThreepidSession, ThreepidToken};
use store::threepids::Threepid;
use types::{Error, Result, credentials};

/// Longest e-mail address, in bytes.
const MAX_EMAIL: usize = 500;

/// Why somebody shows that an address is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Register,
    ResetPassword,
    Add,
}

/// A request for a token to be sent to an address.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Canonical e-mail address or phone number.
    pub address: String,
    pub client_secret: String,
    /// A message is sent only if this is higher than before.
    pub send_attempt: i64,
    /// Where the browser goes afterwards.
    pub next_link: Option<String>,
}

/// An address that was shown to be somebody's.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// `email` or `msisdn`.
    pub medium: String,
    /// Canonical.
    pub address: String,
    /// Milliseconds.
    pub validated_at: i64,
}

impl Purpose {
    /// The template of the mail, and the path its link leads to.
    fn mail(self) -> (&'static str, &'static str) {
        match self {
            Purpose::Register => ("registration", "_matrix/client/unstable/registration/email/submit_token"),
            Purpose::ResetPassword => ("password_reset", "_synapse/client/password_reset/email/submit_token"),
            Purpose::Add => ("add_threepid", "_matrix/client/unstable/add_threepid/email/submit_token"),
        }
    }
}

/// An e-mail address as it is stored: lower-cased, and the local part folded. 400 M_INVALID_PARAM if it is none.
pub fn canonical_email(address: &str) -> Result<String> {
    let address = address.trim();
    match address.split_once('@') {
        Some((local, domain))
            if !local.is_empty() && !domain.is_empty() && !domain.contains('@') && address.len() <= MAX_EMAIL =>
        {
            Ok(format!("{}@{}", local.to_lowercase(), domain.to_lowercase()))
        }
        _ => Err(Error::invalid_param("Unable to parse email address")),
    }
}

/// 400 M_INVALID_PARAM unless the text is a client secret by the specification's grammar.
pub fn check_client_secret(secret: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'=' | b'_' | b'-');
    if secret.is_empty() || secret.len() > 255 || !secret.bytes().all(fits) {
        return Err(Error::invalid_param("Invalid client_secret parameter"));
    }
    Ok(())
}

/// 400 M_THREEPID_IN_USE.
pub(crate) fn in_use(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::client(400, "M_THREEPID_IN_USE", message)
}

/// `next_link` with the session's id, which the client doesn't have when the message is sent.
fn link_with_sid(link: &str, sid: &str) -> String {
    format!("{link}{}sid={sid}", if link.contains('?') { '&' } else { '?' })
}

impl Accounts {
    /// Whether e-mail addresses can be verified.
    pub fn can_verify_email(&self) -> bool {
        self.mailer().is_some()
    }

    /// 403 M_THREEPID_DENIED unless `allowed_local_3pids` has the address.
    pub fn check_threepid_allowed(&self, medium: &str, address: &str, message: &'static str) -> Result<()> {
        let allowed = &self.cx.config.registration.allowed_local_3pids;
        let matches = |pattern: &str| regex::Regex::new(&format!("^(?:{pattern})")).is_ok_and(|r| r.is_match(address));
        if allowed.is_empty() || allowed.iter().any(|(m, pattern)| m == medium && matches(pattern)) {
            return Ok(());
        }
        Err(Error::client(403, "M_THREEPID_DENIED", message))
    }

    /// Counts a request for a message against `rc_3pid_validation`, by client and by address.
    pub fn limit_token_requests(&self, medium: &str, address: &str, client: &str) -> Result<()> {
        let limiter = &self.limits().threepid_validation;
        limiter.check(&format!("client {medium} {client}"), self.cx.now_ms())?;
        limiter.check(&format!("address {medium} {address}"), self.cx.now_ms())
    }

    /// 400 M_INVALID_PARAM for links to files, and to servers that `next_link_domain_whitelist` lacks.
    pub fn check_next_link(&self, link: &str) -> Result<()> {
        let uri = link.parse::<httpcrate::Uri>();
        let host = uri.as_ref().ok().and_then(|u| u.host().map(str::to_ascii_lowercase));
        let is_file = link.trim_start().get(..5).is_some_and(|s| s.eq_ignore_ascii_case("file:"));
        let listed = match &self.cx.config.server.next_link_domain_whitelist {
            None => true,
            Some(list) => host.is_some_and(|host| list.iter().any(|d| d.eq_ignore_ascii_case(&host))),
        };
        if is_file || !listed {
            return Err(Error::invalid_param("'next_link' domain not included in whitelist, or not http(s)"));
        }
        Ok(())
    }

    /// Sends a mail with a token; returns the session's id (`sid`). `client`: address of the client.
    pub async fn request_email_token(&self, purpose: Purpose, ask: &TokenRequest, client: &str) -> Result<String> {
        let denied = match purpose {
            Purpose::Register => "Your email domain is not authorized to register on this server",
            _ => "Your email domain is not authorized on this server",
        };
        if purpose != Purpose::ResetPassword {
            self.check_threepid_allowed("email", &ask.address, denied)?;
        }
        if let Some(link) = &ask.next_link {
            self.check_next_link(link)?;
        }
        self.limit_token_requests("email", &ask.address, client)?;
        let owner = self.cx.store.threepid_owner("email", &ask.address).await?;
        let refused = match (purpose, owner) {
            (Purpose::ResetPassword, None) => Some(Error::client(400, "M_THREEPID_NOT_FOUND", "Email not found")),
            (Purpose::Register | Purpose::Add, Some(_)) => Some(in_use("Email is already in use")),
            _ => None,
        };
        match refused {
            None => self.send_email_token(purpose, ask).await,
            Some(e) => {
                self.inhibit(e).await?;
                if purpose == Purpose::Register {
                    let subject = self.cx.config.email.as_ref().map(|e| e.subjects.email_already_in_use.clone());
                    self.send_mail(&ask.address, &subject.unwrap_or_default(), "already_in_use", pages::context! {})
                        .await?;
                }
                Ok(credentials::letters(16))
            }
        }
    }

    /// Refuses, unless `request_token_inhibit_3pid_errors` hides which addresses are known: then it only takes a while.
    pub(crate) async fn inhibit(&self, e: Error) -> Result<()> {
        if !self.cx.config.server.request_token_inhibit_3pid_errors {
            return Err(e);
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..1000))).await;
        Ok(())
    }

    async fn send_email_token(&self, purpose: Purpose, ask: &TokenRequest) -> Result<String> {
        let Some(email) = &self.cx.config.email else { return Err(Error::internal("no e-mail configured")) };
        let store = &self.cx.store;
        let id = match store.open_threepid_session("email", &ask.address, &ask.client_secret).await? {
            Some(open) if ask.send_attempt <= open.last_send_attempt => return Ok(open.id),
            Some(open) => open.id,
            None => credentials::letters(16),
        };
        let token = credentials::letters(32);
        let (template, path) = purpose.mail();
        let link = format!(
            "{}{path}?token={token}&client_secret={}&sid={id}",
            self.cx.config.server.public_baseurl, ask.client_secret
        );
        let subject = match purpose {
            Purpose::ResetPassword => &email.subjects.password_reset,
            _ => &email.subjects.email_validation,
        };
        self.send_mail(&ask.address, subject, template, pages::context! { link }).await?;
        let session = ThreepidSession {
            id,
            medium: "email".into(),
            address: ask.address.clone(),
            last_send_attempt: ask.send_attempt,
            validated_at: None,
        };
        let token = ThreepidToken {
            token,
            next_link: ask.next_link.as_ref().map(|link| link_with_sid(link, &session.id)),
            expires: self.cx.now_ms() + email.validation_token_lifetime_ms as i64,
        };
        store.add_threepid_token(&session, &ask.client_secret, &token).await?;
        Ok(session.id)
    }

    /// 500 M_UNKNOWN, logged, if the mail server doesn't take it.
    async fn send_mail(&self, to: &str, subject: &str, template: &str, variables: pages::Value) -> Result<()> {
        let Some(mailer) = self.mailer() else { return Err(Error::internal("no e-mail configured")) };
        info!(self.cx.log, "sending a mail"; "template" => template);
        match mailer.send(to, subject, template, variables).await {
            Err(Error::Internal(e)) => {
                error!(self.cx.log, "cannot send a mail"; "template" => template, "error" => %e);
                Err(Error::client(500, "M_UNKNOWN", "An error was encountered when sending the email"))
            }
            other => other,
        }
    }

    /// Takes the token out of a mail. Returns where the browser goes next, if anywhere.
    pub async fn submit_email_token(&self, sid: &str, secret: &str, token: &str) -> Result<Option<String>> {
        let tell = !self.cx.config.server.request_token_inhibit_3pid_errors;
        self.cx.store.validate_threepid(sid, secret, token, self.cx.now_ms(), tell).await
    }

    /// The address that a session has shown to be somebody's: an e-mail address of ours, or what the identity server
    /// for phone numbers says. 400 M_THREEPID_AUTH_FAILED if there is none.
    pub async fn validated_threepid(&self, secret: &str, sid: &str) -> Result<Validated> {
        if self.can_verify_email()
            && let Some(found) = self.cx.store.validated_threepid_session("email", sid, secret).await?
        {
            let validated_at = found.validated_at.unwrap_or_default();
            return Ok(Validated { medium: found.medium, address: found.address, validated_at });
        }
        let found = self.validated_msisdn(secret, sid).await?;
        found.ok_or_else(|| Error::client(400, "M_THREEPID_AUTH_FAILED", "No validated 3pid session found"))
    }

    /// Stage `m.login.email.identity`. The session is used up.
    pub(crate) async fn check_email_stage(&self, auth: &Map<String, Value>) -> Result<Value> {
        let creds = threepid_creds(auth)?;
        if !self.can_verify_email() {
            return Err(Error::bad_request("Email address verification is not enabled on this homeserver"));
        }
        let found = self.cx.store.validated_threepid_session("email", creds.sid, creds.secret).await?;
        let found = found.ok_or_else(|| Error::client(401, "M_UNAUTHORIZED", "Unable to get validated threepid"))?;
        self.cx.store.delete_threepid_session(creds.sid).await?;
        Ok(json!({
            "medium": found.medium,
            "address": found.address,
            "validated_at": found.validated_at,
            "threepid_creds": auth.get("threepid_creds"),
        }))
    }

    /// The user whose address a stage verified. 404 if nobody has it.
    pub async fn owner_by_stage(&self, result: Option<&Value>) -> Result<OwnedUserId> {
        let validated = result.and_then(validated_by_stage).ok_or_else(|| Error::internal("Malformed threepid"))?;
        let owner = self.cx.store.threepid_owner(&validated.medium, &validated.address).await?;
        Ok(UserId::parse(owner.ok_or_else(|| Error::not_found("Email address not found"))?)?)
    }

    /// Refuses phone numbers that may not be used or are somebody's; `denied` and `used` are what is told. A `sid`
    /// that leads nowhere if it is not to be told that the number is somebody's.
    pub async fn check_new_msisdn(
        &self,
        number: &str,
        client: &str,
        denied: &'static str,
        used: &'static str,
    ) -> Result<Option<String>> {
        self.check_threepid_allowed("msisdn", number, denied)?;
        self.limit_token_requests("msisdn", number, client)?;
        if self.cx.store.threepid_owner("msisdn", number).await?.is_none() {
            return Ok(None);
        }
        self.inhibit(in_use(used)).await?;
        Ok(Some(credentials::letters(16)))
    }

    /// Makes an address one of a user's; whose it was before loses it.
    pub async fn add_threepid(&self, user_id: &UserId, validated: &Validated) -> Result<()> {
        let address = match validated.medium.as_str() {
            "email" => canonical_email(&validated.address)?,
            "msisdn" => validated.address.clone(),
            other => return Err(Error::invalid_param(format!("'{other}' is not a valid value for 'medium'"))),
        };
        let new = Threepid {
            medium: validated.medium.clone(),
            address,
            validated_at: validated.validated_at,
            added_at: self.cx.now_ms(),
        };
        info!(self.cx.log, "address added"; "user" => %user_id, "medium" => &new.medium);
        self.cx.store.add_threepid(user_id.as_str(), &new).await
    }

    /// Takes an address from a user, and with an e-mail address its notifications.
    pub async fn delete_threepid(&self, user_id: &str, medium: &str, address: &str) -> Result<()> {
        let address = if medium == "email" { canonical_email(address)? } else { address.to_owned() };
        self.cx.store.delete_threepids(user_id, Some((medium, &address))).await?;
        if medium == "email" {
            let pusher = store::devices::PusherKey { app_id: "m.email".into(), pushkey: address };
            self.drop_pushers(user_id, &[pusher]).await?;
        }
        Ok(())
    }
}

/// `threepid_creds` of a stage.
pub(crate) struct Creds<'a> {
    pub sid: &'a str,
    pub secret: &'a str,
}

/// The credentials in a stage's dictionary. 400 names the missing key.
pub(crate) fn threepid_creds(auth: &Map<String, Value>) -> Result<Creds<'_>> {
    let creds = auth.get("threepid_creds").ok_or_else(|| Error::missing_param("Missing threepid_creds"))?;
    let text = |names: [&str; 2]| names.iter().find_map(|n| creds.get(*n)).and_then(Value::as_str);
    let secret = text(["client_secret", "clientSecret"])
        .ok_or_else(|| Error::missing_param("Missing param client_secret in creds"))?;
    check_client_secret(secret)?;
    let sid = text(["sid", "sid"]).ok_or_else(|| Error::missing_param("Missing param session_id in creds"))?;
    Ok(Creds { sid, secret })
}

/// The result of a stage that verified an address.
pub fn validated_by_stage(result: &Value) -> Option<Validated> {
    let text = |key: &str| result.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Validated {
        medium: text("medium")?,
        address: text("address")?,
        validated_at: result.get("validated_at").and_then(Value::as_i64)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_folded() {
        assert_eq!(canonical_email(" Foo@Example.COM ").unwrap(), "foo@example.com");
        for wrong in ["foo", "a@b@c", "@b", "a@", &format!("{}@b", "a".repeat(500))] {
            assert_eq!(canonical_email(wrong).unwrap_err().errcode(), Some("M_INVALID_PARAM"), "{wrong}");
        }
    }

    #[test]
    fn client_secrets_have_a_grammar() {
        assert!(check_client_secret("aZ09.=_-").is_ok());
        for wrong in ["", "a b", "ä", &"a".repeat(256)] {
            assert!(check_client_secret(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn links_get_the_session() {
        assert_eq!(link_with_sid("https://a/", "x"), "https://a/?sid=x");
        assert_eq!(link_with_sid("https://a/?b=c", "x"), "https://a/?b=c&sid=x");
    }

    #[test]
    fn credentials_name_what_is_missing() {
        let creds = |v: Value| threepid_creds(v.as_object().unwrap()).map(|c| (c.sid.to_owned(), c.secret.to_owned()));
        let good = creds(json!({"threepid_creds": {"sid": "s", "clientSecret": "c"}})).unwrap();
        assert_eq!(good, ("s".into(), "c".into()));
        assert_eq!(creds(json!({})).unwrap_err().errcode(), Some("M_MISSING_PARAM"));
        assert_eq!(creds(json!({"threepid_creds": {"sid": "s"}})).unwrap_err().errcode(), Some("M_MISSING_PARAM"));
    }
}
