//! Signing keys, our own and (as a key server) others' (spec: "Retrieving server keys").

use app::App;
use http::{Json, Resource, Route, Rq, route};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use types::{Error, Result};

/// Servers in one question.
const MAX_SERVERS: usize = 1_000;

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "LocalKey", "/_matrix/key/v2/server(|/{key_id})").resource(Resource::Keys).open(own),
        route("GET", "RemoteKey", "/_matrix/key/v2/query/{server}(|/{key_id})").resource(Resource::Keys).open(of_one),
        route("POST", "RemoteKey", "/_matrix/key/v2/query").resource(Resource::Keys).open(of_many),
    ]
}

/// The key id in the path is ignored, as the specification says.
async fn own(app: App, _: Rq) -> Result<Value> {
    app.fed.own_keys()
}

#[derive(Serialize)]
struct Keys {
    server_keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Query {
    server_keys: BTreeMap<String, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize)]
struct Criteria {
    /// Milliseconds.
    minimum_valid_until_ts: Option<i64>,
}

async fn of_one(app: App, rq: Rq) -> Result<Json<Keys>> {
    let server = rq.arg("server")?;
    if ruma::ServerName::parse(server).is_err() {
        return Err(Error::invalid_param(format!("server is not a server name: {server:?}")));
    }
    let least = rq.int_param("minimum_valid_until_ts")?;
    let ids = rq.arg_opt("key_id").map(|id| (id.to_owned(), least)).into_iter().collect();
    let query = BTreeMap::from([(server.to_owned(), ids)]);
    Ok(Json(Keys { server_keys: app.fed.notarise(query).await? }))
}

async fn of_many(app: App, rq: Rq) -> Result<Json<Keys>> {
    let query: Query = rq.json()?;
    if query.server_keys.len() > MAX_SERVERS {
        return Err(Error::too_large(format!("server_keys asks for more than {MAX_SERVERS} servers")));
    }
    let ids = |ids: BTreeMap<String, Criteria>| ids.into_iter().map(|(id, c)| (id, c.minimum_valid_until_ts)).collect();
    let valid = query.server_keys.into_iter().filter(|(server, _)| ruma::ServerName::parse(server.as_str()).is_ok());
    let query = valid.map(|(server, wanted)| (server, ids(wanted))).collect();
    Ok(Json(Keys { server_keys: app.fed.notarise(query).await? }))
}
