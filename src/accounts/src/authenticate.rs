//! Whose request it is.

use crate::{Accounts, macaroon};
use config::AppService;
use ruma::OwnedUserId;
use std::net::IpAddr;
use types::{Error, Requester, Result};

/// What a request brings along to prove who sends it.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    pub token: &'a str,
    /// Query parameter `user_id`: whom an application service acts as.
    pub user_id: Option<&'a str>,
    /// Query parameter `device_id`: the device it acts as.
    pub device_id: Option<&'a str>,
    pub ip: Option<IpAddr>,
    pub user_agent: &'a str,
}

/// Who is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Registered users and application services.
    Users,
    /// Guests too.
    Guests,
    /// Registered users, even if the token has expired or the account is locked (logout).
    Locked,
}

/// Device id of all guests.
pub(crate) const GUEST_DEVICE: &str = "guest_device";

fn unknown_token(message: &'static str, soft_logout: bool) -> Error {
    Error::unknown_token(message).with("soft_logout", soft_logout)
}

impl Accounts {
    /// The user behind a token, after all checks, and notes where they were seen.
    pub async fn authenticate(&self, c: Credentials<'_>, allow: Allow) -> Result<Requester> {
        let who = match self.app_service_by_token(c.token) {
            Some(service) if allowed_from(service, c.ip) => self.app_service_user(service, &c).await?,
            _ => self.token_user(c.token, allow).await?,
        };
        self.note_seen(&who, &c);
        if who.is_guest && allow != Allow::Guests {
            return Err(Error::client(403, "M_GUEST_ACCESS_FORBIDDEN", "Guest access not allowed"));
        }
        Ok(who)
    }

    /// The owner of an ordinary token or a guest's.
    pub(crate) async fn token_user(&self, token: &str, allow: Allow) -> Result<Requester> {
        let store = &self.cx.store;
        let who = match store.access_token(token).await? {
            Some(found) => {
                let expired = found.valid_until_ms.is_some_and(|until| until < self.cx.now_ms());
                if expired && allow != Allow::Locked {
                    return Err(unknown_token("Access token has expired", true));
                }
                store.mark_access_token_used(&found).await?;
                Requester {
                    user_id: parse_user(&found.user_id)?,
                    access_token_id: Some(found.id),
                    is_guest: found.is_guest,
                    scope: Vec::new(),
                    shadow_banned: found.shadow_banned,
                    device_id: found.device_id.clone(),
                    app_service: None,
                    authenticated_entity: found.owner.clone(),
                }
            }
            None => self.guest(token).await?,
        };
        if allow != Allow::Locked {
            self.refuse_locked(who.user_id.as_str()).await?;
        }
        Ok(who)
    }

    /// 401 M_USER_LOCKED if an administrator locked the account.
    pub async fn refuse_locked(&self, user_id: &str) -> Result<()> {
        match self.cx.store.user(user_id).await? {
            Some(user) if user.locked => {
                Err(Error::client(401, "M_USER_LOCKED", "User account has been locked").with("soft_logout", true))
            }
            _ => Ok(()),
        }
    }

    async fn guest(&self, token: &str) -> Result<Requester> {
        let invalid = || unknown_token("Invalid access token passed.", false);
        let key = self.cx.config.keys.macaroon.expose();
        let user_id = macaroon::verify_guest_token(token, key, self.cx.now_ms()).ok_or_else(invalid)?;
        match self.cx.store.user(&user_id).await? {
            None => return Err(unknown_token("Unknown user_id", false)),
            Some(user) if !user.is_guest => {
                return Err(unknown_token("Guest access token used for regular user", false));
            }
            Some(_) => {}
        }
        let mut who = Requester::for_user(&parse_user(&user_id)?);
        who.is_guest = true;
        who.device_id = Some(GUEST_DEVICE.to_owned());
        Ok(who)
    }

    async fn app_service_user(&self, service: &AppService, c: &Credentials<'_>) -> Result<Requester> {
        let user_id = match c.user_id {
            Some(user_id) => {
                self.may_act_as(service, user_id).await?;
                OwnedUserId::try_from(user_id)
                    .map_err(|_| Error::invalid_param(format!("user_id is not a user id: {user_id:?}")))?
            }
            None => service.sender.clone(),
        };
        if let Some(device_id) = c.device_id
            && self.cx.store.device(user_id.as_str(), device_id).await?.is_none()
        {
            return Err(Error::client(
                400,
                "M_UNKNOWN_DEVICE",
                format!("Application service trying to use a device that doesn't exist ('{device_id}' for {user_id})"),
            ));
        }
        let mut who = Requester::for_user(&user_id);
        who.device_id = c.device_id.map(str::to_owned);
        who.app_service = Some(service.id.clone());
        Ok(who)
    }

    async fn may_act_as(&self, service: &AppService, user_id: &str) -> Result<()> {
        if service.sender.as_str() == user_id {
            return Ok(());
        }
        if !service.is_interested_in_user(user_id) {
            return Err(Error::forbidden(format!("Application service cannot masquerade as this user ({user_id}).")));
        }
        if self.cx.store.user(user_id).await?.is_none() {
            return Err(Error::forbidden(format!("Application service has not registered this user ({user_id})")));
        }
        Ok(())
    }
}

fn allowed_from(service: &AppService, ip: Option<IpAddr>) -> bool {
    match (&service.ip_ranges, ip) {
        (Some(ranges), Some(ip)) => ranges.contains(ip),
        (Some(_), None) => false,
        (None, _) => true,
    }
}

fn parse_user(user_id: &str) -> Result<OwnedUserId> {
    OwnedUserId::try_from(user_id).map_err(|_| Error::internal(format!("stored user id {user_id:?} is none")))
}
