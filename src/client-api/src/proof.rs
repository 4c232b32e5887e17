//! Requests whose sender must prove who they are once more.

use accounts::{Proven, UiAuth};
use app::App;
use http::Rq;
use serde_json::{Map, Value};
use types::{Requester, Result};

/// What interactive authentication needs to know of a request. `description`: what is being done, for people.
pub fn ui_auth<'a>(rq: &'a Rq, description: &'a str) -> UiAuth<'a> {
    let uri = if rq.raw_query.is_empty() { rq.path.clone() } else { format!("{}?{}", rq.path, rq.raw_query) };
    UiAuth { uri, method: rq.method.as_str(), ip: address(rq), user_agent: rq.user_agent(), description }
}

/// The client's address as text; empty if it is not known.
pub fn address(rq: &Rq) -> String {
    rq.ip.map(|ip| ip.to_string()).unwrap_or_default()
}

/// Passes if the account's owner proved that it is them; 401 with the ways to do so otherwise.
/// The result's `params` are the body without `auth`.
pub async fn prove(app: &App, who: &Requester, rq: &Rq, description: &str, can_skip: bool) -> Result<Proven> {
    let body: Map<String, Value> = rq.json_or_empty()?;
    app.accounts.prove_owner(who, &ui_auth(rq, description), body, can_skip).await
}
