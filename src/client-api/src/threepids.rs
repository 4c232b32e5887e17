//! E-mail addresses and phone numbers (spec: "Adding Account Administrative Contact Information").

use crate::pages;
use crate::proof::{address, prove};
use accounts::{Purpose, TokenRequest, canonical_email, check_client_secret};
use app::App;
use http::{On, Reply, Route, Rq, route};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::{Error, Requester, Result};

const RESET_SUBMIT: &str = "/_synapse/client/password_reset/email/submit_token";

pub fn routes() -> Vec<Route<App>> {
    let mut all = requests();
    all.extend([
        route("GET", "ThreepidRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid").user(list),
        route("POST", "ThreepidRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid").user(add_old),
        route("POST", "ThreepidAddRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid/add")
            .on(On::Main)
            .user(add),
        route("POST", "ThreepidBindRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid/bind")
            .on(On::Main)
            .user(bind),
        route("POST", "ThreepidUnbindRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid/unbind")
            .on(On::Main)
            .user(unbind),
        route("POST", "ThreepidDeleteRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid/delete")
            .on(On::Main)
            .user(delete),
    ]);
    all
}

/// Asking for tokens, and handing them in.
fn requests() -> Vec<Route<App>> {
    let ask = |name, path| route("POST", name, path).on(On::Main);
    vec![
        ask("EmailRegisterRequestTokenRestServlet", "/_matrix/client/(r0|v3|unstable)/register/email/requestToken")
            .open(register_email),
        ask("MsisdnRegisterRequestTokenRestServlet", "/_matrix/client/(r0|v3|unstable)/register/msisdn/requestToken")
            .open(register_msisdn),
        ask(
            "EmailPasswordRequestTokenRestServlet",
            "/_matrix/client/(r0|v3|unstable)/account/password/email/requestToken",
        )
        .open(reset_email),
        ask("EmailThreepidRequestTokenRestServlet", "/_matrix/client/(r0|v3|unstable)/account/3pid/email/requestToken")
            .open(add_email),
        ask(
            "MsisdnThreepidRequestTokenRestServlet",
            "/_matrix/client/(r0|v3|unstable)/account/3pid/msisdn/requestToken",
        )
        .open(add_msisdn),
        route("GET", "RegistrationSubmitTokenServlet", "/_matrix/client/unstable/registration/{medium}/submit_token")
            .on(On::Main)
            .open(submit_registration),
        route("GET", "AddThreepidEmailSubmitTokenServlet", "/_matrix/client/unstable/add_threepid/email/submit_token")
            .on(On::Main)
            .open(submit_add),
        ask("AddThreepidMsisdnSubmitTokenServlet", "/_matrix/client/unstable/add_threepid/msisdn/submit_token")
            .open(submit_msisdn),
        route("GET", "PasswordResetSubmitTokenResource", RESET_SUBMIT).on(On::Main).open(confirm_reset),
        route("POST", "PasswordResetSubmitTokenResource", RESET_SUBMIT).on(On::Main).open(submit_reset),
    ]
}

/// 400 M_FORBIDDEN if `enable_3pid_changes` is off.
fn check_changes(app: &App) -> Result<()> {
    if app.cx.config.registration.enable_3pid_changes {
        return Ok(());
    }
    Err(Error::client(400, "M_FORBIDDEN", "3PID changes are disabled on this server"))
}

#[derive(Deserialize)]
struct EmailToken {
    client_secret: String,
    email: String,
    send_attempt: i64,
    #[serde(default)]
    next_link: Option<String>,
}

async fn email_token(app: &App, rq: &Rq, purpose: Purpose) -> Result<Value> {
    let body: EmailToken = rq.json()?;
    check_client_secret(&body.client_secret)?;
    let ask = TokenRequest {
        address: canonical_email(&body.email)?,
        client_secret: body.client_secret,
        send_attempt: body.send_attempt,
        next_link: body.next_link.filter(|l| !l.is_empty()),
    };
    Ok(json!({"sid": app.accounts.request_email_token(purpose, &ask, &address(rq)).await?}))
}

async fn register_email(app: App, rq: Rq) -> Result<Value> {
    if !app.accounts.can_verify_email() {
        return Err(Error::bad_request("Email-based registration has been disabled on this server"));
    }
    if !app.cx.config.registration.enabled {
        return Err(Error::forbidden("Registration is disabled on this homeserver"));
    }
    email_token(&app, &rq, Purpose::Register).await
}

async fn reset_email(app: App, rq: Rq) -> Result<Value> {
    if !app.accounts.can_verify_email() {
        return Err(Error::bad_request("Email-based password resets have been disabled on this server"));
    }
    email_token(&app, &rq, Purpose::ResetPassword).await
}

fn medium_not_supported(message: &'static str) -> Error {
    Error::client(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", message)
}

const NO_EMAIL: &str = "Adding an email to your account is disabled on this server";

async fn add_email(app: App, rq: Rq) -> Result<Value> {
    check_changes(&app)?;
    if !app.accounts.can_verify_email() {
        return Err(medium_not_supported(NO_EMAIL));
    }
    email_token(&app, &rq, Purpose::Add).await
}

#[derive(Deserialize)]
struct MsisdnToken {
    client_secret: String,
    country: String,
    phone_number: String,
    send_attempt: i64,
    #[serde(default)]
    next_link: Option<String>,
}

/// A phone number without its plus sign. Numbers are understood in international form only.
fn canonical_msisdn(number: &str) -> Result<String> {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    if !number.trim_start().starts_with('+') || !(5..=15).contains(&digits.len()) {
        return Err(Error::invalid_param("phone_number: must be a number in international form (+49…)"));
    }
    Ok(digits)
}

/// `denied`, `used`: what those are told whose number may not be used, or is used already.
async fn msisdn_token(app: &App, rq: &Rq, denied: &'static str, used: &'static str) -> Result<Value> {
    let body: MsisdnToken = rq.json()?;
    check_client_secret(&body.client_secret)?;
    let number = canonical_msisdn(&body.phone_number)?;
    if let Some(link) = body.next_link.as_ref().filter(|l| !l.is_empty()) {
        app.accounts.check_next_link(link)?;
    }
    if let Some(sid) = app.accounts.check_new_msisdn(&number, &address(rq), denied, used).await? {
        return Ok(json!({"sid": sid}));
    }
    let mut ask = Map::from_iter([
        ("country".to_owned(), json!(body.country)),
        ("phone_number".to_owned(), json!(body.phone_number)),
        ("client_secret".to_owned(), json!(body.client_secret)),
        ("send_attempt".to_owned(), json!(body.send_attempt)),
    ]);
    ask.extend(body.next_link.map(|link| ("next_link".to_owned(), json!(link))));
    app.accounts.request_msisdn_token(&ask).await
}

async fn register_msisdn(app: App, rq: Rq) -> Result<Value> {
    if app.cx.config.registration.msisdn_delegate.is_none() {
        return Err(Error::bad_request("Registration by phone number is not supported on this homeserver"));
    }
    let denied = "Phone numbers are not authorized to register on this server";
    msisdn_token(&app, &rq, denied, "Phone number is already in use").await
}

async fn add_msisdn(app: App, rq: Rq) -> Result<Value> {
    if app.cx.config.registration.msisdn_delegate.is_none() {
        let message = "Adding phone numbers to user account is not supported by this homeserver";
        return Err(medium_not_supported(message));
    }
    let denied = "Account phone numbers are not authorized on this server";
    msisdn_token(&app, &rq, denied, "MSISDN is already in use").await
}

#[derive(Deserialize)]
struct MsisdnSubmit {
    client_secret: String,
    sid: String,
    token: String,
}

async fn submit_msisdn(app: App, rq: Rq) -> Result<Value> {
    let body: MsisdnSubmit = rq.json()?;
    check_client_secret(&body.client_secret)?;
    let ask = Map::from_iter([
        ("client_secret".to_owned(), json!(body.client_secret)),
        ("sid".to_owned(), json!(body.sid)),
        ("token".to_owned(), json!(body.token)),
    ]);
    app.accounts.submit_msisdn_token(&ask).await
}

/// What the link in a mail carries.
struct Link {
    sid: String,
    token: String,
    client_secret: String,
}

impl Link {
    fn of(rq: &Rq) -> Result<Self> {
        let field = |name: &str| {
            let missing = || Error::missing_param(format!("Missing required string query parameter '{name}'"));
            pages::field(rq, name).ok_or_else(missing)
        };
        let link = Self { sid: field("sid")?, token: field("token")?, client_secret: field("client_secret")? };
        check_client_secret(&link.client_secret)?;
        Ok(link)
    }
}

/// Takes a token; `template`: the pages are `<template>_success.html` and `<template>_failure.html`.
async fn submit(app: &App, rq: &Rq, template: &str) -> Result<Reply> {
    let link = Link::of(rq)?;
    match app.accounts.submit_email_token(&link.sid, &link.client_secret, &link.token).await {
        Ok(Some(next)) if !next.to_ascii_lowercase().starts_with("file:") => Reply::redirect(&next),
        Ok(_) => pages::page(app, 200, &format!("{template}_success.html"), ::pages::context! {}),
        Err(Error::Client(e)) => {
            let variables = ::pages::context! { failure_reason => e.message };
            pages::page(app, e.status, &format!("{template}_failure.html"), variables)
        }
        Err(e) => Err(e),
    }
}

async fn submit_registration(app: App, rq: Rq) -> Result<Reply> {
    if rq.arg("medium")? != "email" {
        return Err(Error::bad_request("This medium is currently not supported for registration"));
    }
    if !app.accounts.can_verify_email() {
        return Err(Error::bad_request("Email-based registration is disabled on this server"));
    }
    submit(&app, &rq, "registration").await
}

async fn submit_add(app: App, rq: Rq) -> Result<Reply> {
    if !app.accounts.can_verify_email() {
        return Err(medium_not_supported(NO_EMAIL));
    }
    submit(&app, &rq, "add_threepid").await
}

/// Shows a button first: programs that look at the links in mails must not confirm anything.
async fn confirm_reset(app: App, rq: Rq) -> Result<Reply> {
    if !app.accounts.can_verify_email() {
        return Err(Error::unrecognized("Unrecognized request"));
    }
    let Link { sid, token, client_secret } = Link::of(&rq)?;
    pages::page(&app, 200, "password_reset_confirmation.html", ::pages::context! { sid, token, client_secret })
}

async fn submit_reset(app: App, rq: Rq) -> Result<Reply> {
    if !app.accounts.can_verify_email() {
        return Err(Error::unrecognized("Unrecognized request"));
    }
    submit(&app, &rq, "password_reset").await
}

async fn list(app: App, who: Requester, _: Rq) -> Result<Value> {
    Ok(json!({"threepids": app.store.threepids(who.user_id.as_str()).await?}))
}

#[derive(Deserialize)]
struct Session {
    client_secret: String,
    sid: String,
}

#[derive(Deserialize)]
struct AddOld {
    #[serde(alias = "threePidCreds")]
    three_pid_creds: Session,
}

async fn add_validated(app: &App, who: &Requester, session: &Session) -> Result<()> {
    check_client_secret(&session.client_secret)?;
    let validated = app.accounts.validated_threepid(&session.client_secret, &session.sid).await?;
    app.accounts.add_threepid(&who.user_id, &validated).await
}

/// Deprecated, without proof of who asks.
async fn add_old(app: App, who: Requester, rq: Rq) -> Result<()> {
    check_changes(&app)?;
    let body: AddOld = rq.json()?;
    add_validated(&app, &who, &body.three_pid_creds).await
}

async fn add(app: App, who: Requester, rq: Rq) -> Result<()> {
    check_changes(&app)?;
    let body: Session = rq.json()?;
    check_client_secret(&body.client_secret)?;
    prove(&app, &who, &rq, "add a third-party identifier to your account", false).await?;
    add_validated(&app, &who, &body).await
}

#[derive(Deserialize)]
struct Bind {
    client_secret: String,
    id_access_token: String,
    id_server: String,
    sid: String,
}

async fn bind(app: App, who: Requester, rq: Rq) -> Result<()> {
    let body: Bind = rq.json()?;
    check_client_secret(&body.client_secret)?;
    let user = who.user_id.as_str();
    app.accounts.bind_threepid(user, &body.id_server, &body.id_access_token, &body.sid, &body.client_secret).await
}

#[derive(Deserialize)]
struct Address {
    medium: String,
    address: String,
    #[serde(default)]
    id_server: Option<String>,
}

impl Address {
    fn of(rq: &Rq) -> Result<Self> {
        let body: Self = rq.json()?;
        if !matches!(body.medium.as_str(), "email" | "msisdn") {
            return Err(Error::bad_json("medium: must be email or msisdn"));
        }
        Ok(body)
    }
}

fn unbound(all: bool) -> Value {
    json!({"id_server_unbind_result": if all { "success" } else { "no-support" }})
}

async fn unbind(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let Address { medium, address, id_server } = Address::of(&rq)?;
    let user = who.user_id.as_str();
    Ok(unbound(app.accounts.unbind_threepid(user, &medium, &address, id_server.as_deref()).await?))
}

async fn delete(app: App, who: Requester, rq: Rq) -> Result<Value> {
    check_changes(&app)?;
    let Address { medium, address, id_server } = Address::of(&rq)?;
    let user = who.user_id.as_str();
    let all = app.accounts.unbind_threepid(user, &medium, &address, id_server.as_deref()).await?;
    app.accounts.delete_threepid(user, &medium, &address).await?;
    Ok(unbound(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_are_international() {
        assert_eq!(canonical_msisdn("+49 (30) 1234-56").unwrap(), "4930123456");
        for wrong in ["030 123456", "+12", "", "+1234567890123456"] {
            assert_eq!(canonical_msisdn(wrong).unwrap_err().errcode(), Some("M_INVALID_PARAM"), "{wrong}");
        }
    }
}
