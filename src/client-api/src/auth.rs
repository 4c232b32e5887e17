//! Pages for stages of interactive authentication that a client cannot show itself (spec: "Fallback").

use crate::pages::{field, html, page};
use crate::proof::address;
use ::pages::context;
use app::App;
use http::{Reply, Route, Rq, route};
use types::{Error, Result};

const PATH: &str = "/_matrix/client/(r0|v3|unstable)/auth/{stage}/fallback/web";

const RECAPTCHA: &str = "m.login.recaptcha";
const SSO: &str = "m.login.sso";
const TERMS: &str = "m.login.terms";
const TOKEN: &str = "m.login.registration_token";

pub fn routes() -> Vec<Route<App>> {
    vec![route("GET", "AuthRestServlet", PATH).open(show), route("POST", "AuthRestServlet", PATH).open(submit)]
}

fn unknown_stage() -> Error {
    Error::client(404, "M_UNKNOWN", "Unknown auth stage type")
}

/// A form for one stage. `error`: what went wrong with the last try.
fn form(app: &App, stage: &str, session: &str, error: Option<&str>) -> Result<Reply> {
    let config = &app.cx.config;
    let (template, more) = match (stage, &config.registration.captcha, &config.consent) {
        (RECAPTCHA, Some(captcha), _) => ("recaptcha.html", context! { sitekey => &captcha.public_key }),
        (TERMS, _, Some(consent)) => {
            let terms_url = format!("{}_matrix/consent?v={}", config.server.public_baseurl, consent.version);
            ("terms.html", context! { terms_url })
        }
        (TOKEN, ..) => ("registration_token.html", context! {}),
        _ => return Err(unknown_stage()),
    };
    let myurl = format!("/_matrix/client/v3/auth/{stage}/fallback/web");
    let variables = context! { session, myurl, ..more };
    // Templates ask whether there is an error, not which.
    match error {
        None => page(app, 200, template, variables),
        Some(error) => page(app, 200, template, context! { error, ..variables }),
    }
}

async fn show(app: App, rq: Rq) -> Result<Reply> {
    let session = field(&rq, "session").ok_or_else(|| Error::bad_request("No session supplied"))?;
    match rq.arg("stage")? {
        SSO => Ok(html(200, app.accounts.sso_stage_page(&session).await?)),
        stage => form(&app, stage, &session, None),
    }
}

async fn submit(app: App, rq: Rq) -> Result<Reply> {
    let session = field(&rq, "session").ok_or_else(|| Error::bad_request("No session supplied"))?;
    let stage = rq.arg("stage")?;
    let filled = match stage {
        RECAPTCHA if app.cx.config.registration.captcha.is_some() => {
            let response = field(&rq, "g-recaptcha-response");
            Some(("response", response.ok_or_else(|| Error::bad_request("No captcha response supplied"))?))
        }
        TERMS if app.cx.config.consent.is_some() => None,
        TOKEN => {
            let token = field(&rq, "token");
            let missing = || Error::missing_param("Missing required string query parameter 'token'");
            Some(("token", token.ok_or_else(missing)?))
        }
        _ => return Err(unknown_stage()),
    };
    let filled = filled.as_ref().map(|(name, value)| (*name, value.as_str()));
    match app.accounts.complete_stage(stage, &session, filled, &address(&rq)).await {
        Ok(()) => page(&app, 200, "auth_success.html", context! {}),
        Err(Error::Client(e)) => form(&app, stage, &session, Some(&e.message)),
        Err(e) => Err(e),
    }
}
