//! Answers to browsers.

use app::App;
use http::{Reply, Rq};
use httpcrate::header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS};
use httpcrate::{HeaderValue, StatusCode};
use types::Result;

/// An HTML page, which must not be shown inside another.
pub fn html(status: u16, html: String) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = Reply::bytes(status, "text/html; charset=utf-8", html.into());
    reply.headers.push((X_FRAME_OPTIONS, HeaderValue::from_static("DENY")));
    reply.headers.push((CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors 'none';")));
    reply
}

/// A page made from a template.
pub fn page(app: &App, status: u16, template: &str, variables: pages::Value) -> Result<Reply> {
    Ok(html(status, app.accounts.templates().render(template, variables)?))
}

/// A field of a submitted form, or else of the query. None if empty.
pub fn field(rq: &Rq, name: &str) -> Option<String> {
    let form: Vec<(String, String)> = serde_urlencoded::from_bytes(&rq.body).unwrap_or_default();
    let in_form = form.into_iter().find(|(n, _)| n == name).map(|(_, v)| v);
    in_form.or_else(|| rq.param(name).map(str::to_owned)).filter(|v| !v.is_empty())
}
