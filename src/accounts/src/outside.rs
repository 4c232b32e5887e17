//! What is asked of services outside: captchas, identity servers, the CAS server.

use crate::Accounts;
use crate::threepids::{Validated, threepid_creds};
use config::ip::IpRanges;
use httpcrate::{HeaderValue, Method, header};
use outgoing::{Answer, Call, Outgoing, Trust, escape};
use serde_json::{Map, Value, json};
use slog::{info, warn};
use types::{Error, Result};

/// Clients for requests that are not federation.
pub(crate) struct Outside {
    /// To services that the configuration names, wherever they are.
    pub trusted: Outgoing,
    /// To identity servers that a client names.
    named: Outgoing,
}

impl Outside {
    pub fn new(config: &config::Config) -> Self {
        let ranges = &config.server.ip_ranges;
        let trust = if config.tls.insecure { Trust::Anyone } else { Trust::System };
        Self {
            trusted: Outgoing::with(IpRanges::default(), IpRanges::default(), trust.clone()),
            named: Outgoing::with(ranges.federation_deny.clone(), ranges.federation_allow.clone(), trust),
        }
    }
}

/// 400 M_UNKNOWN unless the text is a host with maybe a port and a path: no query, no user, no scheme.
fn check_id_server(id_server: &str) -> Result<()> {
    let host = id_server.split('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.-_~%:[]".contains(c);
    if <&ruma::ServerName>::try_from(host).is_err() || !id_server.chars().all(plain) {
        return Err(Error::bad_request("id_server must be a valid hostname with optional port and path components"));
    }
    Ok(())
}

/// What an identity server refused, as it said it.
fn refusal(answer: &Answer) -> Error {
    let body = answer.json().unwrap_or_default();
    let text = |key: &str, or: &str| body.get(key).and_then(Value::as_str).unwrap_or(or).to_owned();
    Error::client(answer.status.as_u16(), text("errcode", "M_UNKNOWN"), text("error", "The identity server refused"))
}

impl Accounts {
    /// Stage `m.login.recaptcha`. `client`: address of the client.
    pub(crate) async fn check_captcha_stage(&self, auth: &Map<String, Value>, client: &str) -> Result<Value> {
        let response = auth.get("response").and_then(Value::as_str);
        let response =
            response.ok_or_else(|| Error::client(400, "M_CAPTCHA_NEEDED", "Captcha response is required"))?;
        let Some(captcha) = &self.cx.config.registration.captcha else {
            return Err(Error::bad_request("Captchas are not enabled on this homeserver"));
        };
        let fields = [("secret", captcha.private_key.expose()), ("response", response), ("remoteip", client)];
        let answer = self.outside().trusted.post_form(&captcha.siteverify_api, &fields).await?.json()?;
        let success = answer.get("success").and_then(Value::as_bool).unwrap_or(false);
        info!(self.cx.log, "captcha"; "success" => success, "host" => answer.get("hostname").and_then(Value::as_str));
        if success {
            return Ok(Value::Bool(true));
        }
        Err(Error::client(401, "M_UNAUTHORIZED", "Captcha authentication failed"))
    }

    /// Stage `m.login.msisdn`, which the identity server of `account_threepid_delegates.msisdn` checks.
    pub(crate) async fn check_msisdn_stage(&self, auth: &Map<String, Value>) -> Result<Value> {
        let creds = threepid_creds(auth)?;
        if self.cx.config.registration.msisdn_delegate.is_none() {
            return Err(Error::bad_request("Phone number verification is not enabled on this homeserver"));
        }
        let unproven = || Error::client(401, "M_UNAUTHORIZED", "Unable to get validated threepid");
        let found = self.validated_msisdn(creds.secret, creds.sid).await?.ok_or_else(unproven)?;
        if found.medium != "msisdn" {
            return Err(unproven());
        }
        Ok(json!({
            "medium": found.medium,
            "address": found.address,
            "validated_at": found.validated_at,
            "threepid_creds": auth.get("threepid_creds"),
        }))
    }

    /// What the identity server for phone numbers says of a session.
    pub(crate) async fn validated_msisdn(&self, secret: &str, sid: &str) -> Result<Option<Validated>> {
        let Some(delegate) = &self.cx.config.registration.msisdn_delegate else { return Ok(None) };
        let query = [("sid", sid), ("client_secret", secret)].map(|(k, v)| format!("{k}={}", escape(v))).join("&");
        let url = format!("{}/_matrix/identity/api/v1/3pid/getValidated3pid?{query}", delegate.trim_end_matches('/'));
        let answer = self.outside().trusted.get(&url).await?;
        if !answer.status.is_success() {
            info!(self.cx.log, "phone number not validated"; "status" => answer.status.as_u16());
            return Ok(None);
        }
        // Old identity servers answer 200 with an error.
        Ok(crate::threepids::validated_by_stage(&answer.json()?))
    }

    /// Lets the identity server for phone numbers send a message. Returns its answer, and where the token goes.
    pub async fn request_msisdn_token(&self, body: &Map<String, Value>) -> Result<Value> {
        let mut answer = self.msisdn_delegate("requestToken", body, None).await?;
        answer["submit_url"] = json!(format!(
            "{}_matrix/client/unstable/add_threepid/msisdn/submit_token",
            self.cx.config.server.public_baseurl
        ));
        Ok(answer)
    }

    /// Hands a token from a message to the identity server for phone numbers.
    pub async fn submit_msisdn_token(&self, body: &Map<String, Value>) -> Result<Value> {
        self.msisdn_delegate("submitToken", body, Some("Error contacting the identity server")).await
    }

    /// `masked`: said instead of what the identity server says.
    async fn msisdn_delegate(
        &self,
        what: &str,
        body: &Map<String, Value>,
        masked: Option<&'static str>,
    ) -> Result<Value> {
        let Some(delegate) = &self.cx.config.registration.msisdn_delegate else {
            let message = "This homeserver is not validating phone numbers. Use an identity server instead.";
            return Err(Error::bad_request(message));
        };
        let url = format!("{}/_matrix/identity/api/v1/validate/msisdn/{what}", delegate.trim_end_matches('/'));
        let answer = self.outside().trusted.post_json(&url, &Value::Object(body.clone())).await?;
        match (answer.status.is_success(), masked) {
            (true, _) => answer.json(),
            (false, Some(message)) => Err(Error::bad_request(message)),
            (false, None) => Err(refusal(&answer)),
        }
    }

    /// Lets an identity server tie an address to a user (spec: `POST /account/3pid/bind`).
    pub async fn bind_threepid(
        &self,
        user_id: &str,
        id_server: &str,
        id_token: &str,
        sid: &str,
        secret: &str,
    ) -> Result<()> {
        check_id_server(id_server)?;
        let url = format!("https://{id_server}/_matrix/identity/v2/3pid/bind");
        let body = json!({"sid": sid, "client_secret": secret, "mxid": user_id});
        let bearer = HeaderValue::from_str(&format!("Bearer {id_token}"))
            .map_err(|_| Error::invalid_param("id_access_token: has characters that no token has"))?;
        let call = Call::new(Method::POST, url)
            .body("application/json", body.to_string())
            .header(header::AUTHORIZATION, bearer);
        let answer = self.outside().named.request(call).await.map_err(|e| self.out_of_reach(id_server, &e))?;
        if !answer.status.is_success() {
            return Err(refusal(&answer));
        }
        let bound = answer.json()?;
        let text = |key: &str| bound.get(key).and_then(Value::as_str);
        let (Some(medium), Some(address)) = (text("medium"), text("address")) else {
            return Err(Error::client(502, "M_UNKNOWN", "The identity server did not say what it bound"));
        };
        self.cx.store.add_bound_threepid(user_id, medium, address, id_server).await
    }

    /// Asks identity servers to forget whose address this is: the one named, else all that were asked to bind it.
    /// False if none could be asked, or one can't do it.
    pub async fn unbind_threepid(
        &self,
        user_id: &str,
        medium: &str,
        address: &str,
        id_server: Option<&str>,
    ) -> Result<bool> {
        let servers: Vec<String> = match id_server {
            Some(named) => vec![named.to_owned()],
            None => {
                let bound = self.cx.store.bound_threepids(user_id).await?;
                bound.into_iter().filter(|(m, a, _)| m == medium && a == address).map(|(_, _, s)| s).collect()
            }
        };
        let mut all = !servers.is_empty();
        for server in &servers {
            all &= self.unbind_at(user_id, medium, address, server).await?;
        }
        Ok(all)
    }

    /// Asks every identity server that was asked to bind an address of a user to forget it.
    pub(crate) async fn unbind_all(&self, user_id: &str, id_server: Option<&str>) -> Result<bool> {
        let mut all = true;
        for (medium, address, server) in self.cx.store.bound_threepids(user_id).await? {
            all &= self.unbind_at(user_id, &medium, &address, id_server.unwrap_or(&server)).await?;
        }
        Ok(all)
    }

    async fn unbind_at(&self, user_id: &str, medium: &str, address: &str, id_server: &str) -> Result<bool> {
        check_id_server(id_server)?;
        let path = "/_matrix/identity/v2/3pid/unbind";
        let content = json!({"mxid": user_id, "threepid": {"medium": medium, "address": address}});
        // Signed as a request of this server, for the identity server knows no access token of the user's.
        let authorization = HeaderValue::from_str(&self.fed.authorization("POST", id_server, path, Some(&content))?)?;
        let call = Call::new(Method::POST, format!("https://{id_server}{path}"))
            .body("application/json", content.to_string())
            .header(header::AUTHORIZATION, authorization);
        let answer = self.outside().named.request(call).await.map_err(|e| self.out_of_reach(id_server, &e))?;
        let done = answer.status.is_success();
        if !done {
            warn!(self.cx.log, "identity server did not unbind"; "server" => id_server, "status" => answer.status.as_u16());
            if !matches!(answer.status.as_u16(), 400 | 404 | 501) {
                return Err(Error::client(500, "M_UNKNOWN", "Failed to contact identity server"));
            }
        }
        self.cx.store.delete_bound_threepid(user_id, medium, address, id_server).await?;
        Ok(done)
    }

    fn out_of_reach(&self, id_server: &str, e: &Error) -> Error {
        warn!(self.cx.log, "identity server not reached"; "server" => id_server, "error" => %e);
        Error::client(500, "M_UNKNOWN", "Failed to contact identity server")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_servers_are_hosts_with_maybe_a_path() {
        for good in ["id.example.com", "id.example.com:8090", "[::1]:80", "id.example.com/a/b"] {
            assert!(check_id_server(good).is_ok(), "{good}");
        }
        for wrong in ["", "id.example.com?x", "id.example.com/a#b", "user@id.example.com", "https://id", "id example"] {
            assert!(check_id_server(wrong).is_err(), "{wrong}");
        }
    }
}
