//! New accounts.

use crate::{Accounts, login};
use config::AppService;
use ruma::{OwnedUserId, UserId};
use slog::info;
use std::sync::Arc;
use store::users::NewUser;
use types::{Error, Result};

/// Longest user id, in characters.
const MAX_USER_ID: usize = 255;

/// Stages that show that an address is somebody's.
const ADDRESS_STAGES: [&str; 2] = ["m.login.email.identity", "m.login.msisdn"];

/// An account to be made.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// None: a number is given.
    pub localpart: Option<String>,
    pub password_hash: Option<String>,
    /// Token of the guest who becomes this account.
    pub guest_access_token: Option<String>,
    pub make_guest: bool,
    pub admin: bool,
    pub user_type: Option<String>,
    /// None: the localpart.
    pub displayname: Option<String>,
    /// Where the request came from; None: not limited by address.
    pub address: Option<String>,
    /// Limits on the count of users don't hold, and no approval is needed.
    pub by_admin: bool,
}

/// Stages somebody may complete to register: each inner list is one way.
pub type Flows = Vec<Vec<String>>;

impl Accounts {
    /// The ways to register, by configuration.
    pub fn registration_flows(&self) -> Flows {
        let registration = &self.cx.config.registration;
        let asks = |medium: &str| registration.require_3pid.iter().any(|m| m == medium);
        let (email, msisdn) = ("m.login.email.identity".to_owned(), "m.login.msisdn".to_owned());
        let needs_email = asks("email");
        let needs_msisdn = asks("msisdn") && !registration.disable_msisdn;
        let can_email = self.can_verify_email();
        let can_msisdn = registration.msisdn_delegate.is_some() && !registration.disable_msisdn;
        let mut flows: Flows = Vec::new();
        if !needs_email && !needs_msisdn {
            flows.push(vec!["m.login.dummy".to_owned()]);
        }
        if can_email && !needs_msisdn {
            flows.push(vec![email.clone()]);
        }
        if can_msisdn && !needs_email {
            flows.push(vec![msisdn.clone()]);
        }
        if can_email && can_msisdn {
            flows.push(vec![msisdn, email]);
        }
        if registration.token_3pid_bypass {
            flows.push(vec!["m.login.registration_token".to_owned()]);
        }
        if self.cx.config.consent.as_ref().is_some_and(|c| c.require_at_registration) {
            flows.iter_mut().for_each(|f| f.insert(0, "m.login.terms".to_owned()));
        }
        if registration.captcha_required {
            flows.iter_mut().for_each(|f| f.insert(0, crate::ui_auth::RECAPTCHA.to_owned()));
        }
        if registration.requires_token {
            for flow in flows.iter_mut().filter(|f| !f.iter().any(|s| s == "m.login.registration_token")) {
                flow.insert(0, "m.login.registration_token".to_owned());
            }
        }
        flows
    }

    /// Refuses localparts that nobody, or not this client, may register.
    /// `registered`: what the same session registered before. `inhibit`: don't say that a name is taken.
    pub async fn check_username(
        &self,
        localpart: &str,
        guest_token: Option<&str>,
        registered: Option<&str>,
        inhibit: bool,
    ) -> Result<()> {
        let user_id = self.check_localpart(localpart)?;
        if let Some(registered) = registered {
            if registered == user_id.as_str() {
                return Ok(());
            }
            return Err(Error::bad_request("A different user ID has already been registered for this session"));
        }
        self.check_not_reserved(user_id.as_str(), None)?;
        if !self.cx.store.users_ignoring_case(user_id.as_str()).await?.is_empty() {
            match guest_token {
                Some(token) => {
                    let guest = self.token_user(token, crate::Allow::Guests).await?;
                    if !guest.is_guest || guest.user_id.localpart() != localpart {
                        return Err(Error::forbidden(
                            "Cannot register taken user ID without valid guest credentials for that user.",
                        ));
                    }
                }
                None if inhibit => {}
                None => return Err(Error::client(400, "M_USER_IN_USE", "User ID already taken.")),
            }
        }
        if guest_token.is_none() && localpart.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid("Numeric user IDs are reserved for guest users."));
        }
        Ok(())
    }

    fn check_localpart(&self, localpart: &str) -> Result<OwnedUserId> {
        let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'=' | b'_' | b'-' | b'.' | b'/' | b'+');
        if !localpart.bytes().all(fits) {
            return Err(invalid("User ID can only contain characters a-z, 0-9, or '=_-./+'"));
        }
        if localpart.is_empty() {
            return Err(invalid("User ID cannot be empty"));
        }
        if localpart.starts_with('_') && !self.cx.config.registration.allow_underscore_prefixed_localpart {
            return Err(invalid("User ID may not begin with _"));
        }
        let user_id = format!("@{localpart}:{}", self.server_name());
        if user_id.len() > MAX_USER_ID {
            return Err(invalid("User ID may not be longer than 255 characters"));
        }
        OwnedUserId::try_from(user_id).map_err(|_| invalid("User ID is not valid"))
    }

    /// 400 M_EXCLUSIVE for names of application services other than `by`, and of the server's own user.
    fn check_not_reserved(&self, user_id: &str, by: Option<&AppService>) -> Result<()> {
        let exclusive = |message: &'static str| Err(Error::client(400, "M_EXCLUSIVE", message));
        if let Some(notices) = &self.cx.config.server_notices
            && self.qualify(&notices.system_mxid_localpart) == user_id
        {
            return exclusive("This user ID is reserved.");
        }
        let others = self.cx.config.app_services.iter().filter(|s| by.is_none_or(|by| by.id != s.id));
        if others.into_iter().any(|s| s.is_exclusive_user(user_id)) {
            return exclusive("This user ID is reserved by an application service.");
        }
        Ok(())
    }

    /// Makes an account.
    pub async fn register(&self, new: Registration) -> Result<OwnedUserId> {
        if let Some(address) = &new.address {
            self.limits().registration.check(address, self.cx.now_ms())?;
        }
        if !new.by_admin {
            self.check_blocking(None).await?;
        }
        let user_id = match &new.localpart {
            Some(localpart) => {
                self.check_username(localpart, new.guest_access_token.as_deref(), None, false).await?;
                let user_id = self.check_localpart(localpart)?;
                let displayname = match (&new.guest_access_token, &new.displayname) {
                    (Some(_), _) => None,
                    (None, Some(name)) => Some(name.clone()),
                    (None, None) => Some(localpart.clone()),
                };
                let user_type = new.user_type.clone().or_else(|| self.cx.config.registration.default_user_type.clone());
                let row = NewUser { displayname, user_type, ..self.row(&user_id, &new) };
                self.cx.store.register_user(&row).await?;
                self.show_in_directory(&user_id).await?;
                user_id
            }
            None => self.register_number(&new).await?,
        };
        info!(self.cx.log, "account registered"; "user" => %user_id, "guest" => new.make_guest);
        self.auto_join(&user_id, new.make_guest).await;
        Ok(user_id)
    }

    /// An account with a number for a name; numbers that are taken are passed over.
    async fn register_number(&self, new: &Registration) -> Result<OwnedUserId> {
        for _ in 0..10 {
            let number = self.cx.store.next_user_number().await?.to_string();
            let user_id = UserId::parse(format!("@{number}:{}", self.server_name()))?;
            self.check_not_reserved(user_id.as_str(), None)?;
            let displayname = new.displayname.clone().or(Some(number));
            let row = NewUser { displayname, ..self.row(&user_id, new) };
            match self.cx.store.register_user(&row).await {
                Err(Error::Client(_)) => continue,
                other => return other.map(|()| user_id),
            }
        }
        Err(Error::internal("no free number for a user id in ten tries"))
    }

    fn row(&self, user_id: &UserId, new: &Registration) -> NewUser {
        NewUser {
            user_id: user_id.to_owned(),
            password_hash: new.password_hash.clone(),
            was_guest: new.guest_access_token.is_some(),
            make_guest: new.make_guest,
            appservice_id: None,
            displayname: None,
            admin: new.admin,
            user_type: None,
            shadow_banned: false,
            approved: new.by_admin || !self.requires_approval(),
            stats: self.cx.config.operations.stats_enabled,
            now_s: self.cx.now_ms() / 1000,
        }
    }

    /// Registers a user of an application service (`m.login.application_service`).
    pub async fn register_ghost(&self, localpart: &str, token: &str) -> Result<(OwnedUserId, Arc<AppService>)> {
        let user_id = UserId::parse(format!("@{localpart}:{}", self.server_name()))
            .map_err(|_| invalid(format!("username: {localpart:?} makes no user id")))?;
        let service = self
            .app_service_by_token(token)
            .cloned()
            .ok_or_else(|| Error::unknown_token("Unrecognised access token").with("soft_logout", false))?;
        if !service.is_interested_in_user(user_id.as_str()) {
            let message = "Invalid user localpart for this application service.";
            return Err(Error::client(400, "M_EXCLUSIVE", message));
        }
        self.check_not_reserved(user_id.as_str(), Some(&service))?;
        let row = NewUser {
            password_hash: Some(String::new()),
            displayname: Some(localpart.to_owned()),
            appservice_id: service.is_exclusive_user(user_id.as_str()).then(|| service.id.clone()),
            ..self.row(&user_id, &Registration::default())
        };
        self.cx.store.register_user(&row).await?;
        Ok((user_id, service))
    }

    /// Refuses addresses that somebody proved to have but that may not, or cannot, be a new account's.
    pub async fn check_new_addresses(&self, stages: &serde_json::Map<String, serde_json::Value>) -> Result<()> {
        for stage in ADDRESS_STAGES {
            let Some(validated) = stages.get(stage).and_then(crate::validated_by_stage) else { continue };
            let message = "Third party identifiers (email/phone numbers) are not authorized on this server";
            self.check_threepid_allowed(&validated.medium, &validated.address, message)?;
            if self.cx.store.threepid_owner(&validated.medium, &validated.address).await?.is_some() {
                return Err(crate::threepids::in_use(format!("{} is already in use", validated.medium)));
            }
        }
        Ok(())
    }

    /// What is to follow a registration by interactive authentication: `stages` that were completed.
    pub async fn after_ui_registration(
        &self,
        user_id: &UserId,
        stages: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<()> {
        for stage in ADDRESS_STAGES {
            if let Some(validated) = stages.get(stage).and_then(crate::validated_by_stage) {
                self.add_threepid(user_id, &validated).await?;
            }
        }
        if let (true, Some(consent)) = (stages.contains_key("m.login.terms"), &self.cx.config.consent) {
            self.cx.store.set_consent_version(user_id.as_str(), &consent.version, self.cx.now_ms()).await?;
            self.auto_join_after_consent(user_id).await;
        }
        Ok(())
    }

    /// 403 if new accounts wait for an administrator's approval.
    pub fn check_approval_of_new(&self) -> Result<()> {
        if self.requires_approval() {
            let message = "This account needs to be approved by an administrator before it can be used.";
            return Err(login::not_approved(message));
        }
        Ok(())
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::client(400, "M_INVALID_USERNAME", message)
}
