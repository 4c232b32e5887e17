//! Single sign-on: from an identity at a provider to a user of ours, and back to the client with a login token
//! (spec: "Client login via SSO", "SSO during User-Interactive Authentication").

use crate::ui_auth::REQUEST_USER;
use crate::{Accounts, Registration};
use httpcrate::Uri;
use outgoing::escape;
use pages::context;
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};
use slog::{info, warn};
use types::{Error, Requester, Result};

/// A login token lives this long, milliseconds: the browser only carries it to the client.
const TOKEN_LIFETIME_MS: u64 = 120_000;

/// Id of the provider that is a CAS server, in `user_external_ids` too.
pub(crate) const CAS: &str = "cas";

/// Somewhere people can prove who they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    pub id: &'static str,
    /// For people.
    pub name: String,
    /// `mxc:` URI.
    pub icon: Option<String>,
    /// A hint to clients which button to show (spec: `identity_providers`).
    pub brand: Option<String>,
}

/// A page for a browser.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    pub html: String,
}

/// Where a browser goes next.
#[derive(Clone, Debug, PartialEq)]
pub enum SsoStep {
    Redirect(String),
    Show(Page),
}

/// Who somebody is, by a provider.
pub(crate) struct Identity {
    pub provider: &'static str,
    pub external_id: String,
    /// What a new user would be called.
    pub localpart: String,
    pub display_name: Option<String>,
}

/// What the person at the browser is shown of the address they are sent to.
fn display_url(url: &str) -> String {
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("https") => uri.authority().map(ToString::to_string).unwrap_or_default(),
        _ => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
    }
}

/// A URL with one more parameter in its query.
fn with_param(url: &str, name: &str, value: &str) -> String {
    let (before, fragment) = url.split_once('#').map_or((url, None), |(b, f)| (b, Some(f)));
    let joint = match before.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    let fragment = fragment.map(|f| format!("#{f}")).unwrap_or_default();
    format!("{before}{joint}{name}={}{fragment}", escape(value))
}

impl Accounts {
    /// The providers that are configured.
    pub fn providers(&self) -> Vec<Provider> {
        let cas = self.cx.config.cas.iter().map(|cas| Provider {
            id: CAS,
            name: cas.name.clone(),
            icon: cas.icon.clone(),
            brand: cas.brand.clone(),
        });
        cas.collect()
    }

    /// The configured providers that know a user.
    pub(crate) async fn providers_of(&self, user_id: &str) -> Result<Vec<Provider>> {
        let mut providers = self.providers();
        if !providers.is_empty() {
            let known = self.cx.store.external_ids(user_id).await?;
            providers.retain(|p| known.iter().any(|id| id.auth_provider == p.id));
        }
        Ok(providers)
    }

    /// Where a browser goes to log in; `provider` None: there is only one. `redirect_url`: where it comes back to.
    pub fn sso_redirect(&self, provider: Option<&str>, redirect_url: &str) -> Result<String> {
        let found = match provider {
            None => self.providers().into_iter().next(),
            Some(id) => self.providers().into_iter().find(|p| p.id == id),
        };
        if found.is_none() {
            return Err(match provider {
                None => Error::client(400, "M_UNRECOGNIZED", "Homeserver not configured for SSO."),
                Some(_) => Error::not_found("Unknown identity provider"),
            });
        }
        self.cas_redirect(&[("redirectUrl", redirect_url)])
    }

    /// The page that leads to the provider for stage `m.login.sso`.
    pub async fn sso_stage_page(&self, session: &str) -> Result<String> {
        let found = self.cx.store.ui_auth_session(session).await?;
        let found = found.ok_or_else(|| Error::bad_request(format!("Unknown session ID: {session}")))?;
        let user = found.server.get(REQUEST_USER).and_then(Value::as_str).unwrap_or_default();
        let provider = self.providers_of(user).await?.into_iter().next();
        let provider = provider.ok_or_else(|| Error::bad_request("User has no SSO identities"))?;
        let redirect_url = self.cas_redirect(&[("session", session)])?;
        let variables = context! {
            description => found.description,
            redirect_url,
            idp => context! {
                idp_id => provider.id,
                idp_name => provider.name,
                idp_icon => provider.icon,
                idp_brand => provider.brand,
            },
        };
        self.templates().render("sso_auth_confirm.html", variables)
    }

    /// A page that says what went wrong at the provider.
    pub(crate) fn sso_error(&self, status: u16, error: &str, description: &str) -> Result<SsoStep> {
        let html = self.templates().render("sso_error.html", context! { error, error_description => description })?;
        Ok(SsoStep::Show(Page { status, html }))
    }

    /// Logs in whom a provider identified: the user that belongs to the identity, the user of that name, or a new
    /// one if `may_register`.
    pub(crate) async fn finish_sso_login(
        &self,
        identity: Identity,
        may_register: bool,
        redirect_url: &str,
        client: &str,
    ) -> Result<SsoStep> {
        let Some((user_id, new_user)) = self.user_of(&identity, may_register, client).await? else {
            return self.sso_error(400, "mapping_error", "User does not exist and registrations are disabled");
        };
        if self.cx.store.user(user_id.as_str()).await?.is_some_and(|u| u.deactivated) {
            let html = self.templates().render("sso_account_deactivated.html", context! {})?;
            return Ok(SsoStep::Show(Page { status: 403, html }));
        }
        let token = self.make_login_token(&user_id, TOKEN_LIFETIME_MS, Some(identity.provider)).await?;
        let target = with_param(redirect_url, "loginToken", &token);
        if self.cx.config.sso.client_whitelist.iter().any(|start| redirect_url.starts_with(start)) {
            return Ok(SsoStep::Redirect(target));
        }
        let profile = self.cx.store.profile(user_id.as_str()).await?.unwrap_or_default();
        let variables = context! {
            display_url => display_url(redirect_url),
            redirect_url => target,
            new_user,
            user_id => user_id.as_str(),
            user_profile => context! { display_name => profile.displayname, avatar_url => profile.avatar_url },
        };
        let html = self.templates().render("sso_redirect_confirm.html", variables)?;
        Ok(SsoStep::Show(Page { status: 200, html }))
    }

    /// The user behind an identity, and whether they are new. None: there is none and may be none.
    async fn user_of(
        &self,
        identity: &Identity,
        may_register: bool,
        client: &str,
    ) -> Result<Option<(OwnedUserId, bool)>> {
        let _one_at_a_time = self.inner.mapping.lock().await;
        let store = &self.cx.store;
        let mut known = store.user_by_external_id(identity.provider, &identity.external_id).await?;
        if known.is_none() {
            // Users from before identities were noted.
            let user_id = self.qualify(&identity.localpart);
            if let Some((user_id, _)) = store.users_ignoring_case(&user_id).await?.into_iter().next() {
                store.add_external_id(identity.provider, &identity.external_id, &user_id).await?;
                known = Some(user_id);
            }
        }
        if let Some(user_id) = known {
            let user_id = UserId::parse(user_id)?;
            self.take_name_over(&user_id, identity).await;
            return Ok(Some((user_id, false)));
        }
        if !may_register {
            return Ok(None);
        }
        let user_id = self
            .register(Registration {
                localpart: Some(identity.localpart.clone()),
                displayname: identity.display_name.clone(),
                address: Some(client.to_owned()),
                ..Registration::default()
            })
            .await?;
        store.add_external_id(identity.provider, &identity.external_id, user_id.as_str()).await?;
        info!(self.cx.log, "account made by single sign-on"; "user" => %user_id, "provider" => identity.provider);
        Ok(Some((user_id, true)))
    }

    /// Sets the name a provider has for a user, if `sso.update_profile_information` says so.
    async fn take_name_over(&self, user_id: &UserId, identity: &Identity) {
        let Some(name) = identity.display_name.as_ref().filter(|_| self.cx.config.sso.update_profile_information)
        else {
            return;
        };
        let set = async {
            let profile = self.cx.store.profile(user_id.as_str()).await?.unwrap_or_default();
            if profile.displayname.as_ref() == Some(name) {
                return Ok(());
            }
            let who = Requester::for_user(user_id);
            self.set_profile_field_as(&who, user_id, "displayname", Some(json!(name)), true).await
        };
        if let Err(e) = set.await {
            warn!(self.cx.log, "name not taken over from the provider"; "user" => %user_id, "error" => %e);
        }
    }

    /// Completes stage `m.login.sso` of a session if the provider identified the very user.
    pub(crate) async fn finish_sso_stage(&self, provider: &str, external_id: &str, session: &str) -> Result<SsoStep> {
        let user_id = self.cx.store.user_by_external_id(provider, external_id).await?;
        let wanted = self.ui_auth_data(session, REQUEST_USER).await?;
        let wanted = wanted.as_ref().and_then(Value::as_str).unwrap_or_default();
        let fits = user_id.as_deref() == Some(wanted);
        // A stage done by somebody else is noted as done by nobody.
        let result = json!(if fits { wanted } else { "" });
        self.cx.store.complete_ui_auth_stage(session, crate::ui_auth::SSO, &result).await?;
        let html = match fits {
            true => self.templates().render("sso_auth_success.html", context! {})?,
            false => self.templates().render("sso_auth_bad_user.html", context! { user_id_to_verify => wanted })?,
        };
        Ok(SsoStep::Show(Page { status: 200, html }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_joins_the_query() {
        for (url, expected) in [
            ("https://a", "https://a?t=x"),
            ("https://a/?", "https://a/?t=x"),
            ("https://a/?b=%20#c", "https://a/?b=%20&t=x#c"),
            ("app:/done", "app:/done?t=x"),
        ] {
            assert_eq!(with_param(url, "t", "x"), expected);
        }
        assert_eq!(with_param("https://a", "t", "&"), "https://a?t=%26");
    }

    #[test]
    fn people_see_the_host_or_what_is_before_the_query() {
        assert_eq!(display_url("https://me:pw@a.example/b?c#d"), "me:pw@a.example");
        assert_eq!(display_url("app://x/y?z=secret"), "app://x/y");
    }
}
