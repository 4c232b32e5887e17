//! Pages for stages of interactive authentication that a client cannot show itself (spec: "Fallback").

use app::App;
use http::{Reply, Route, Rq, route};
use httpcrate::StatusCode;
use types::{Error, Result};

const PATH: &str = "/_matrix/client/(r0|v3|unstable)/auth/{stage}/fallback/web";

const TERMS: &str = "m.login.terms";
const TOKEN: &str = "m.login.registration_token";

pub fn routes() -> Vec<Route<App>> {
    vec![route("GET", "AuthRestServlet", PATH).open(show), route("POST", "AuthRestServlet", PATH).open(submit)]
}

fn html(body: String) -> Reply {
    let page = format!("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Authentication</title></head><body>{body}</body></html>");
    Reply::bytes(StatusCode::OK, "text/html; charset=utf-8", page.into())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Fields of the query or of a submitted form.
fn field(rq: &Rq, name: &str) -> Option<String> {
    let form: Vec<(String, String)> = serde_urlencoded::from_bytes(&rq.body).unwrap_or_default();
    let in_form = form.into_iter().find(|(n, _)| n == name).map(|(_, v)| v);
    in_form.or_else(|| rq.param(name).map(str::to_owned)).filter(|v| !v.is_empty())
}

/// A form for one stage. `hint`: what went wrong with the last try.
fn form(app: &App, stage: &str, session: &str, hint: Option<&str>) -> Result<Reply> {
    let hint = hint.map(|h| format!("<p role=\"alert\">{}</p>", escape(h))).unwrap_or_default();
    let session = escape(session);
    let hidden = format!("<input type=\"hidden\" name=\"session\" value=\"{session}\">");
    match (stage, &app.cx.config.consent) {
        (TERMS, Some(consent)) => {
            let url = format!("{}_matrix/consent?v={}", app.cx.config.server.public_baseurl, consent.version);
            let (url, name) = (escape(&url), escape(&consent.policy_name));
            Ok(html(format!(
                "{hint}<form method=\"post\"><p>Please read and accept the <a href=\"{url}\">{name}</a>.</p>{hidden}<button>Accept</button></form>"
            )))
        }
        (TOKEN, _) => Ok(html(format!(
            "{hint}<form method=\"post\"><label>Registration token <input name=\"token\" autocomplete=\"off\"></label>{hidden}<button>Continue</button></form>"
        ))),
        _ => Err(Error::client(404, "M_UNKNOWN", "Unknown auth stage type")),
    }
}

async fn show(app: App, rq: Rq) -> Result<Reply> {
    let session = field(&rq, "session").ok_or_else(|| Error::bad_request("No session supplied"))?;
    form(&app, rq.arg("stage")?, &session, None)
}

async fn submit(app: App, rq: Rq) -> Result<Reply> {
    let session = field(&rq, "session").ok_or_else(|| Error::bad_request("No session supplied"))?;
    let stage = rq.arg("stage")?;
    let done = match stage {
        TERMS if app.cx.config.consent.is_some() => app.accounts.complete_stage(stage, &session).await,
        TOKEN => {
            let token = field(&rq, "token");
            let token = token.ok_or_else(|| Error::missing_param("Missing required string query parameter 'token'"))?;
            app.accounts.complete_token_stage(&session, &token).await
        }
        _ => return Err(Error::client(404, "M_UNKNOWN", "Unknown auth stage type")),
    };
    match done {
        Ok(()) => Ok(html(
            "<p>Thank you. You may close this window.</p><script>if(window.onAuthDone){window.onAuthDone()}else if(window.opener){window.opener.postMessage('authDone','*')}</script>".to_owned(),
        )),
        Err(Error::Client(e)) => form(&app, stage, &session, Some(&e.message)),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        assert_eq!(escape("\"><script>"), "&quot;&gt;&lt;script&gt;");
    }
}
