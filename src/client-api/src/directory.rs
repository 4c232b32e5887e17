//! The public room directory.

use app::App;
use http::reply::{IntoReply, Json};
use http::route::{Access, App as _};
use http::{On, Reply, Route, Rq, route};
use rooms::directory::Listing;
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::directory::Network;
use types::{Error, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let public = "/_matrix/client/(api/v1|r0|v3|unstable)/publicRooms";
    let listed = "/_matrix/client/(api/v1|r0|v3|unstable)/directory/list/room/{room_id}";
    let network = "/_matrix/client/(api/v1|r0|v3|unstable)/directory/list/appservice/{network_id}/{room_id}";
    let r = |method, name, path| route(method, name, path);
    vec![
        r("GET", "PublicRoomListRestServlet", public).open(get),
        r("POST", "PublicRoomListRestServlet", public).guest(search),
        r("GET", "ClientDirectoryListServer", listed).on(On::Main).open(visibility),
        r("PUT", "ClientDirectoryListServer", listed).on(On::Main).user(set_visibility),
        r("PUT", "ClientAppserviceDirectoryListServer", network).on(On::Main).user(set_on_network),
        r("DELETE", "ClientAppserviceDirectoryListServer", network).on(On::Main).user(remove_from_network),
    ]
}

/// The server whose directory is asked for; None: ours.
fn other_server(app: &App, rq: &Rq) -> Result<Option<OwnedServerName>> {
    match rq.param("server") {
        Some(server) if server != app.cx.config.server.name.as_str() => {
            let server =
                server.try_into().map_err(|_| Error::invalid_param(format!("Invalid server name: {server}")))?;
            Ok(Some(server))
        }
        _ => Ok(None),
    }
}

async fn get(app: App, rq: Rq) -> Result<Reply> {
    let open = app.cx.config.directory.public_rooms_without_auth;
    let asks_elsewhere = rq.param("server").is_some();
    if rq.access_token().is_some() || !open || asks_elsewhere {
        app.authenticate(&rq, Access::Guest).await?;
    }
    let limit = rq.int_param("limit")?;
    if limit.is_some_and(|l| l < 0) {
        return Err(Error::invalid_param("Query parameter 'limit' must be a positive integer."));
    }
    if let Some(server) = other_server(&app, &rq)? {
        let mut query = Map::new();
        query.extend(limit.filter(|l| *l != 0).map(|l| ("limit".to_owned(), l.into())));
        query.extend(rq.param("since").map(|s| ("since".to_owned(), s.into())));
        return app.rooms.public_rooms_of(&server, &Value::Object(query)).await?.into_reply();
    }
    let listing = Listing {
        network: Network::Main,
        search: None,
        room_types: None,
        since: rq.param("since").map(str::to_owned),
        // 0 stands for no limit.
        limit: limit.filter(|l| *l != 0),
    };
    Json(app.rooms.public_rooms(&listing).await?).into_reply()
}

#[derive(Deserialize)]
struct Search {
    limit: Option<i64>,
    since: Option<String>,
    filter: Option<SearchFilter>,
    #[serde(default)]
    include_all_networks: bool,
    third_party_instance_id: Option<String>,
}

#[derive(Deserialize, Default)]
struct SearchFilter {
    generic_search_term: Option<String>,
    #[serde(alias = "org.matrix.msc3827.room_types")]
    room_types: Option<Vec<Option<String>>>,
}

async fn search(app: App, _who: Requester, rq: Rq) -> Result<Reply> {
    let body: Search = rq.json()?;
    if let Some(server) = other_server(&app, &rq)? {
        return app.rooms.public_rooms_of(&server, &rq.json()?).await?.into_reply();
    }
    let network = match (body.include_all_networks, body.third_party_instance_id) {
        (true, Some(_)) => return Err(Error::bad_request("Can't use include_all_networks with an explicit network")),
        (true, None) => Network::Any,
        (false, None) => Network::Main,
        (false, Some(id)) => Network::named(&id)?,
    };
    let filter = body.filter.unwrap_or_default();
    let listing = Listing {
        network,
        search: filter.generic_search_term,
        room_types: filter.room_types,
        since: body.since,
        limit: body.limit.filter(|l| *l != 0),
    };
    Json(app.rooms.public_rooms(&listing).await?).into_reply()
}

async fn visibility(app: App, rq: Rq) -> Result<Value> {
    let room = app.store.room(rq.arg("room_id")?).await?.ok_or_else(|| Error::not_found("Unknown room"))?;
    Ok(json!({"visibility": if room.is_public { "public" } else { "private" }}))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Visibility {
    #[default]
    Public,
    Private,
}

#[derive(Deserialize)]
struct VisibilityBody {
    #[serde(default)]
    visibility: Visibility,
}

impl VisibilityBody {
    fn is_public(rq: &Rq) -> Result<bool> {
        let body: VisibilityBody = rq.json()?;
        Ok(matches!(body.visibility, Visibility::Public))
    }
}

async fn set_visibility(app: App, who: Requester, rq: Rq) -> Result<()> {
    let public = VisibilityBody::is_public(&rq)?;
    app.rooms.set_listed(&who, &rq.room_id()?, public).await
}

async fn set_on_network(app: App, who: Requester, rq: Rq) -> Result<()> {
    let public = VisibilityBody::is_public(&rq)?;
    edit_network(app, who, rq, public).await
}

async fn remove_from_network(app: App, who: Requester, rq: Rq) -> Result<()> {
    edit_network(app, who, rq, false).await
}

async fn edit_network(app: App, who: Requester, rq: Rq, public: bool) -> Result<()> {
    let Some(service) = &who.app_service else {
        return Err(Error::forbidden("Only appservices can edit the appservice published room list"));
    };
    app.store.set_public_on_network(rq.arg("room_id")?, service, rq.arg("network_id")?, public).await
}
