//! Single sign-on (spec: "Client login via SSO"), by CAS.

use crate::pages;
use crate::proof::address;
use accounts::SsoStep;
use app::App;
use http::{Reply, Route, Rq, route};
use types::{Error, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "SsoRedirectServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/login/(cas|sso)/redirect")
            .open(redirect),
        route("GET", "SsoRedirectServlet", "/_matrix/client/(r0|v3)/login/sso/redirect/{idp_id}").open(redirect),
        route("GET", "CasTicketServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/login/cas/ticket").open(ticket),
    ]
}

async fn redirect(app: App, rq: Rq) -> Result<Reply> {
    if app.accounts.providers().is_empty() {
        return Err(Error::unrecognized("Unrecognized request"));
    }
    let redirect_url = rq.param("redirectUrl");
    let redirect_url =
        redirect_url.ok_or_else(|| Error::missing_param("Missing required string query parameter 'redirectUrl'"))?;
    Reply::redirect(&app.accounts.sso_redirect(rq.arg_opt("idp_id"), redirect_url)?)
}

async fn ticket(app: App, rq: Rq) -> Result<Reply> {
    if app.cx.config.cas.is_none() {
        return Err(Error::unrecognized("Unrecognized request"));
    }
    let present = |name: &str| rq.param(name).filter(|v| !v.is_empty());
    let ticket = rq.param("ticket");
    let ticket = ticket.ok_or_else(|| Error::missing_param("Missing required string query parameter 'ticket'"))?;
    let (redirect_url, session) = (present("redirectUrl"), present("session"));
    if redirect_url.is_none() && session.is_none() {
        return Err(Error::missing_param("Missing string query parameter redirectUrl or session"));
    }
    match app.accounts.cas_ticket(ticket, redirect_url, session, &address(&rq)).await? {
        SsoStep::Redirect(url) => Reply::redirect(&url),
        SsoStep::Show(page) => Ok(pages::html(page.status, page.html)),
    }
}
