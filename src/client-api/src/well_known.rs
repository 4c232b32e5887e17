//! Where the server is found (spec: "Well-known URIs").

use app::App;
use http::{Reply, Route, Rq, route};
use httpcrate::StatusCode;
use serde_json::{Map, Value, json};
use types::{Error, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "ClientWellKnownResource", "/.well-known/matrix/client").open(get_client),
        route("GET", "ServerWellKnownResource", "/.well-known/matrix/server").open(get_server),
    ]
}

/// What clients are told, if `public_baseurl` is set.
pub fn client(app: &App) -> Option<Value> {
    let server = &app.cx.config.server;
    if !server.serve_client_wellknown {
        return None;
    }
    let mut all = Map::new();
    all.insert("m.homeserver".into(), json!({"base_url": server.public_baseurl}));
    if let Some(identity) = &server.default_identity_server {
        all.insert("m.identity_server".into(), json!({"base_url": identity}));
    }
    for (key, value) in &server.extra_well_known_client_content {
        all.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Some(Value::Object(all))
}

async fn get_client(app: App, _: Rq) -> Result<Value> {
    client(&app).ok_or_else(|| Error::not_found(".well-known not available"))
}

async fn get_server(app: App, _: Rq) -> Result<Reply> {
    let server = &app.cx.config.server;
    if !server.serve_server_wellknown {
        let text = "404: this server does not say where it is\n";
        return Ok(Reply::bytes(StatusCode::NOT_FOUND, "text/plain", text.into()));
    }
    let port = server.name.port().unwrap_or(443);
    Reply::json(&json!({"m.server": format!("{}:{port}", server.name.host())}))
}
