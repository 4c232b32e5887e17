//! Finding out whose login it is.

use crate::ratelimit::Count;
use crate::threepids::canonical_email;
use crate::{Accounts, NewSession, Session};
use config::AppService;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value};
use slog::info;
use types::{Error, Result};

const WRONG: &str = "Invalid username or password";

/// A proven identity, before the session is opened.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub user_id: String,
    pub auth_provider_id: Option<String>,
    pub auth_provider_session_id: Option<String>,
}

/// Who logs in, as a login's `identifier` says or its older fields.
#[derive(Clone, Debug, PartialEq)]
enum Identifier {
    User(String),
    Threepid { medium: String, address: String },
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str).filter(|s| !s.is_empty())
}

fn identifier(body: &Map<String, Value>) -> Result<Identifier> {
    if let (Some(medium), Some(address)) = (text(body, "medium"), text(body, "address")) {
        return Ok(Identifier::Threepid { medium: medium.to_owned(), address: address.to_owned() });
    }
    if let Some(user) = text(body, "user") {
        return Ok(Identifier::User(user.to_owned()));
    }
    let id = match body.get("identifier") {
        Some(Value::Object(id)) if !id.is_empty() => id,
        _ => return Err(Error::invalid_param("Invalid login submission")),
    };
    match id.get("type").and_then(Value::as_str) {
        None => Err(Error::missing_param("'identifier' dict has no key 'type'")),
        Some("m.id.user") => {
            let user = text(id, "user").ok_or_else(|| Error::bad_request("User identifier is missing 'user' key"))?;
            Ok(Identifier::User(user.to_owned()))
        }
        Some("m.id.thirdparty") => match (text(id, "medium"), text(id, "address")) {
            (Some(medium), Some(address)) => {
                Ok(Identifier::Threepid { medium: medium.to_owned(), address: address.to_owned() })
            }
            _ => Err(Error::bad_request("Invalid thirdparty identifier")),
        },
        Some("m.id.phone") => phone(id),
        Some(_) => Err(Error::bad_request("Unknown login identifier type")),
    }
}

/// Phone numbers are understood in international form only.
fn phone(id: &Map<String, Value>) -> Result<Identifier> {
    let number = text(id, "phone").or_else(|| text(id, "number"));
    let (Some(_), Some(number)) = (text(id, "country"), number) else {
        return Err(Error::invalid_param("Invalid phone-type identifier"));
    };
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    Ok(Identifier::Threepid { medium: "msisdn".into(), address: digits })
}

impl Accounts {
    /// The user who proves with `m.login.password` who they are. `reauth`: in interactive authentication, where other
    /// settings count and no attempts are limited.
    pub async fn password_login(&self, body: &Map<String, Value>, reauth: bool) -> Result<String> {
        let kind = body.get("type").and_then(Value::as_str);
        let kind = kind.ok_or_else(|| Error::invalid_param("Bad parameter: type"))?;
        let auth = &self.cx.config.auth;
        if kind != "m.login.password" {
            identifier(body)?;
            return Err(Error::bad_request(format!("Unknown login type {kind}")));
        }
        if !(if reauth { auth.password_reauth } else { auth.password_login }) {
            return Err(Error::bad_request("Password login has been disabled."));
        }
        let password = body.get("password").and_then(Value::as_str);
        let password = password.ok_or_else(|| Error::invalid_param("Bad parameter: password"))?;
        let user = match identifier(body)? {
            Identifier::User(user) => user,
            Identifier::Threepid { medium, address } => self.threepid_login(&medium, &address, reauth).await?,
        };
        if !auth.localdb_enabled {
            return Err(Error::bad_request(format!("Unknown login type {kind}")));
        }
        let user_id = self.qualify(&user);
        let key = user_id.to_lowercase();
        let attempts = &self.limits().login_failed_attempts;
        if !reauth {
            attempts.peek(&key, self.cx.now_ms())?;
        }
        match self.check_password(&user_id, password).await? {
            Some(user_id) => Ok(user_id),
            None => {
                info!(self.cx.log, "wrong password"; "user" => &user_id);
                if !reauth {
                    let _counted = attempts.check(&key, self.cx.now_ms());
                }
                Err(Error::forbidden(WRONG))
            }
        }
    }

    async fn threepid_login(&self, medium: &str, address: &str, reauth: bool) -> Result<String> {
        let address = if medium == "email" { canonical_email(address)? } else { address.to_owned() };
        let key = format!("{medium} {address}");
        let attempts = &self.limits().login_failed_attempts;
        if !reauth {
            attempts.peek(&key, self.cx.now_ms())?;
        }
        match self.cx.store.threepid_owner(medium, &address).await? {
            Some(user_id) => Ok(user_id),
            None => {
                if !reauth {
                    let _counted = attempts.check(&key, self.cx.now_ms());
                }
                Err(Error::forbidden(WRONG))
            }
        }
    }

    /// The account with this id (or, if there is just one, with this id but for case).
    pub async fn find_user(&self, user_id: &str) -> Result<Option<(String, Option<String>)>> {
        let mut found = self.cx.store.users_ignoring_case(user_id).await?;
        if found.len() == 1 {
            return Ok(found.pop());
        }
        Ok(found.into_iter().find(|(name, _)| name == user_id))
    }

    async fn check_password(&self, user_id: &str, password: &str) -> Result<Option<String>> {
        let Some((user_id, Some(hash))) = self.find_user(user_id).await? else { return Ok(None) };
        Ok(self.password_fits(password, &hash).await?.then_some(user_id))
    }

    /// The user an application service logs in.
    pub fn app_service_login(&self, service: &AppService, body: &Map<String, Value>) -> Result<String> {
        if service.msc4190 {
            let message = "This appservice has MSC4190 enabled, so appservice login cannot be used.";
            return Err(Error::client(400, "M_APPSERVICE_LOGIN_UNSUPPORTED", message));
        }
        let Some(Value::Object(id)) = body.get("identifier") else {
            return Err(Error::invalid_param("Invalid identifier in login submission"));
        };
        if id.get("type").and_then(Value::as_str) != Some("m.id.user") {
            return Err(Error::invalid_param("Unknown login identifier type"));
        }
        let user = id.get("user").and_then(Value::as_str);
        let user_id = self.qualify(user.ok_or_else(|| Error::invalid_param("Invalid user in identifier"))?);
        if !service.is_interested_in_user(&user_id) {
            return Err(Error::forbidden("Invalid access_token"));
        }
        Ok(user_id)
    }

    /// The user a login token was made for; the token is used up.
    pub async fn token_login(&self, token: &str) -> Result<Login> {
        let found = self.cx.store.consume_login_token(token, self.cx.now_ms()).await?;
        let found = found.ok_or_else(|| Error::forbidden("Invalid login token"))?;
        Ok(Login {
            user_id: found.user_id,
            auth_provider_id: found.auth_provider_id,
            auth_provider_session_id: found.auth_provider_session_id,
        })
    }

    /// Opens the session of a proven login, unless the account may not be used.
    /// `limited`: counts against `rc_login.account`.
    pub async fn complete_login(
        &self,
        login: Login,
        mut new: NewSession,
        limited: bool,
    ) -> Result<(OwnedUserId, Session)> {
        if limited {
            self.limits().login_account.check(&login.user_id.to_lowercase(), self.cx.now_ms())?;
        }
        let user_id = <&UserId>::try_from(login.user_id.as_str())
            .map_err(|_| Error::invalid_param(format!("user: {:?} makes no user id", login.user_id)))?;
        let user = self.cx.store.user(user_id.as_str()).await?;
        let Some(user) = user else { return Err(Error::forbidden("Invalid user")) };
        if user.deactivated {
            return Err(Error::client(403, "M_USER_DEACTIVATED", "This account has been deactivated"));
        }
        self.refuse_locked(user_id.as_str()).await?;
        if new.device_id.as_ref().is_some_and(|d| d.chars().count() > 512) {
            return Err(Error::invalid_param("device_id cannot be longer than 512 characters."));
        }
        if self.requires_approval() && !user.approved {
            return Err(not_approved("This account is pending approval by a server administrator."));
        }
        new.auth_provider_id = login.auth_provider_id;
        new.auth_provider_session_id = login.auth_provider_session_id;
        let session = self.open_session(user_id, new).await?;
        Ok((user_id.to_owned(), session))
    }

    /// MSC3866: new accounts wait for an administrator.
    pub fn requires_approval(&self) -> bool {
        self.approves() && self.msc3866("require_approval_for_new_accounts")
    }

    /// MSC3866: administrators may approve accounts.
    pub fn approves(&self) -> bool {
        self.msc3866("enabled")
    }

    fn msc3866(&self, key: &str) -> bool {
        let msc = self.cx.config.experimental.0.get("msc3866");
        msc.and_then(|m| m.get(key)).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A token with which a device of the user may log in once. `provider`: where the user proved who they are.
    pub async fn make_login_token(&self, user_id: &UserId, lives_ms: u64, provider: Option<&str>) -> Result<String> {
        let token = types::credentials::login_token();
        self.cx.store.add_login_token(user_id.as_str(), &token, self.cx.now_ms() + lives_ms as i64, provider).await?;
        Ok(token)
    }

    /// Counts a failed proof in interactive authentication; `Count::No` only checks.
    pub(crate) fn limit_failed_proof(&self, user_id: &str, count: Count) -> Result<()> {
        let limiter = &self.limits().login_failed_attempts;
        let key = format!("ui-auth {user_id}");
        if count == Count::Yes { limiter.check(&key, self.cx.now_ms()) } else { limiter.peek(&key, self.cx.now_ms()) }
    }
}

/// 403 M_USER_AWAITING_APPROVAL.
pub(crate) fn not_approved(message: &'static str) -> Error {
    Error::client(403, "ORG.MATRIX.MSC3866_USER_AWAITING_APPROVAL", message)
        .with("approval_notice_medium", "org.matrix.msc3866.none")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(body: Value) -> Result<Identifier> {
        identifier(body.as_object().unwrap())
    }

    #[test]
    fn identifiers_old_and_new() {
        let alice = Identifier::User("alice".into());
        assert_eq!(parse(json!({"user": "alice"})).unwrap(), alice);
        assert_eq!(parse(json!({"identifier": {"type": "m.id.user", "user": "alice"}})).unwrap(), alice);
        let mail = Identifier::Threepid { medium: "email".into(), address: "a@b".into() };
        assert_eq!(parse(json!({"medium": "email", "address": "a@b"})).unwrap(), mail);
        assert_eq!(parse(json!({})).unwrap_err().errcode(), Some("M_INVALID_PARAM"));
        assert_eq!(parse(json!({"identifier": {"user": "x"}})).unwrap_err().errcode(), Some("M_MISSING_PARAM"));
    }
}
