//! What other servers ask: profiles, aliases, public rooms, spaces, devices, versions.

use app::App;
use http::reply::Json;
use http::{Route, Rq, route};
use rooms::directory::{Listing, PublicRooms};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::directory::Network;
use types::{Error, OwnedRoomAliasId, OwnedServerName, OwnedUserId, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let public = "/_matrix/federation/v1/publicRooms";
    vec![
        route("GET", "FederationQueryServlet", "/_matrix/federation/v1/query/{query_type}").server(query),
        route("GET", "PublicRoomList", public).server(public_rooms),
        route("POST", "PublicRoomList", public).server(search_rooms),
        route("GET", "FederationRoomHierarchyServlet", "/_matrix/federation/v1/hierarchy/{room_id}").server(hierarchy),
        route("GET", "RoomComplexityServlet", "/_matrix/federation/unstable/rooms/{room_id}/complexity")
            .server(complexity),
        route("GET", "FederationVersionServlet", "/_matrix/federation/v1/version").open(version),
        route("GET", "FederationUserDevicesQueryServlet", "/_matrix/federation/v1/user/devices/{user_id}")
            .server(devices),
        route("POST", "FederationClientKeysQueryServlet", "/_matrix/federation/v1/user/keys/query").server(keys),
        route("POST", "FederationClientKeysClaimServlet", "/_matrix/federation/v1/user/keys/claim").server(claim),
    ]
}

fn param<'a>(rq: &'a Rq, name: &str) -> Result<&'a str> {
    rq.param(name).ok_or_else(|| Error::missing_param(format!("Query parameter {name} is missing")))
}

async fn query(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    match rq.arg("query_type")? {
        "profile" => profile(&app, &rq).await,
        "directory" => directory(&app, &rq).await,
        other => Err(Error::not_found(format!("No handler for query type {other:?} of {origin}"))),
    }
}

async fn profile(app: &App, rq: &Rq) -> Result<Value> {
    if !app.cx.config.federation.allow_profile_lookup {
        return Err(Error::forbidden("Profile lookup over federation is disabled on this homeserver"));
    }
    let user_id =
        OwnedUserId::try_from(param(rq, "user_id")?).map_err(|_| Error::invalid_param("user_id is not a user id"))?;
    if user_id.server_name() != app.cx.config.server.name {
        return Err(Error::bad_request("User is not hosted on this homeserver"));
    }
    let found = match rq.param("field") {
        Some(field) => app.accounts.profile_field(&user_id, field).await?,
        None => app.accounts.profile(&user_id).await?,
    };
    Ok(Value::Object(found))
}

async fn directory(app: &App, rq: &Rq) -> Result<Value> {
    let alias = OwnedRoomAliasId::try_from(param(rq, "room_alias")?)
        .map_err(|_| Error::invalid_param("room_alias is not a room alias"))?;
    if alias.server_name() != app.cx.config.server.name {
        return Err(Error::bad_request("Room Alias is not hosted on this homeserver"));
    }
    let (room_id, servers) = app.rooms.resolve_alias(&alias).await?;
    Ok(json!({"room_id": room_id, "servers": servers}))
}

fn check_public(app: &App) -> Result<()> {
    if app.cx.config.directory.public_rooms_over_federation {
        return Ok(());
    }
    Err(Error::forbidden("The public room list is not shared over federation"))
}

async fn public_rooms(app: App, _: OwnedServerName, rq: Rq) -> Result<Json<PublicRooms>> {
    check_public(&app)?;
    let limit = rq.int_param("limit")?.filter(|l| *l != 0);
    let network = match (rq.bool_param("include_all_networks")?, rq.param("third_party_instance_id")) {
        (Some(true), _) => Network::Any,
        (_, Some(id)) => Network::named(id)?,
        _ => Network::Main,
    };
    let listing =
        Listing { network, search: None, room_types: None, since: rq.param("since").map(str::to_owned), limit };
    Ok(Json(app.rooms.public_rooms(&listing).await?))
}

#[derive(Deserialize)]
struct Search {
    limit: Option<i64>,
    since: Option<String>,
    #[serde(default)]
    filter: Filter,
    #[serde(default)]
    include_all_networks: bool,
    third_party_instance_id: Option<String>,
}

#[derive(Deserialize, Default)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

async fn search_rooms(app: App, _: OwnedServerName, rq: Rq) -> Result<Json<PublicRooms>> {
    check_public(&app)?;
    let body: Search = rq.json()?;
    let network = match (body.include_all_networks, body.third_party_instance_id) {
        (true, _) => Network::Any,
        (false, Some(id)) => Network::named(&id)?,
        (false, None) => Network::Main,
    };
    let listing = Listing {
        network,
        search: body.filter.generic_search_term,
        room_types: body.filter.room_types,
        since: body.since,
        limit: body.limit.filter(|l| *l != 0),
    };
    Ok(Json(app.rooms.public_rooms(&listing).await?))
}

async fn hierarchy(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let suggested_only = rq.bool_param("suggested_only")?.unwrap_or(false);
    app.rooms.hierarchy_for_server(&origin, &rq.room_id()?, suggested_only).await
}

/// State events by which a room's complexity counts as 1.
const SIMPLE: f64 = 500.0;

async fn complexity(app: App, _: OwnedServerName, rq: Rq) -> Result<Value> {
    let room_id = rq.room_id()?;
    let rules = app.rooms.state_event(&room_id, "m.room.join_rules", "").await?;
    let public = rules.is_some_and(|e| e.content_str("join_rule").as_deref() == Some("public"));
    if !public && !app.rooms.is_world_readable(&room_id).await? {
        return Err(Error::client(404, "M_INVALID_PARAM", "Room not found"));
    }
    let events = app.store.current_state(&room_id).await?.len();
    Ok(json!({"v1": (events as f64 / SIMPLE * 100.0).round() / 100.0}))
}

async fn version(_: App, _: Rq) -> Result<Value> {
    Ok(json!({"server": {"name": "Plexus", "version": env!("CARGO_PKG_VERSION")}}))
}

async fn devices(app: App, _: OwnedServerName, rq: Rq) -> Result<Value> {
    let user_id = rq.user_id()?;
    if user_id.server_name() != app.cx.config.server.name {
        return Err(Error::bad_request("User is not hosted on this homeserver"));
    }
    app.devices.devices_for_server(user_id.as_str()).await
}

#[derive(Deserialize)]
struct KeyQuery {
    device_keys: BTreeMap<String, Vec<String>>,
}

async fn keys(app: App, _: OwnedServerName, rq: Rq) -> Result<Value> {
    let body: KeyQuery = rq.json()?;
    app.devices.keys_for_server(&body.device_keys).await
}

#[derive(Deserialize)]
struct Claim {
    one_time_keys: BTreeMap<String, BTreeMap<String, String>>,
}

async fn claim(app: App, _: OwnedServerName, rq: Rq) -> Result<Value> {
    let body: Claim = rq.json()?;
    let own = format!(":{}", app.cx.config.server.name);
    let one = |algorithm: String| BTreeMap::from([(algorithm, 1)]);
    let wanted = body.one_time_keys.into_iter().filter(|(user, _)| user.ends_with(&own));
    let wanted =
        wanted.map(|(user, devices)| (user, devices.into_iter().map(|(d, a)| (d, one(a))).collect())).collect();
    let mut found = app.devices.claim_keys(&wanted, false).await?;
    let keys = found.get_mut("one_time_keys").map(Value::take).unwrap_or(Value::Object(Map::new()));
    Ok(json!({"one_time_keys": keys}))
}
