//! Room aliases.

use app::App;
use http::{On, Route, Rq, route};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Error, OwnedRoomAliasId, OwnedRoomId, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let alias = "/_matrix/client/(api/v1|r0|v3|unstable)/directory/room/{room_alias}";
    let servlet = "ClientDirectoryServer";
    vec![
        route("GET", servlet, alias).open(get),
        route("PUT", servlet, alias).user(put),
        route("DELETE", servlet, alias).user(delete),
        route(
            "GET",
            "RoomAliasListServlet",
            "/_matrix/client/(r0|v3|unstable/org.matrix.msc2432)/rooms/{room_id}/aliases",
        )
        .on(On::RoomRead)
        .user(list),
    ]
}

fn alias(rq: &Rq) -> Result<OwnedRoomAliasId> {
    OwnedRoomAliasId::try_from(rq.arg("room_alias")?).map_err(|_| Error::invalid_param("Room alias invalid"))
}

async fn get(app: App, rq: Rq) -> Result<Value> {
    let (room_id, servers) = app.rooms.resolve_alias(&alias(&rq)?).await?;
    Ok(json!({"room_id": room_id, "servers": servers}))
}

#[derive(Deserialize)]
struct Target {
    room_id: String,
    /// Not in the specification: servers to join by.
    servers: Option<Vec<String>>,
}

async fn put(app: App, who: Requester, rq: Rq) -> Result<()> {
    let alias = alias(&rq)?;
    let target: Target = rq.json()?;
    let unknown = || Error::bad_request("Room does not exist");
    let room_id = OwnedRoomId::try_from(target.room_id).map_err(|_| unknown())?;
    app.store.room(room_id.as_str()).await?.ok_or_else(unknown)?;
    app.rooms.add_alias(&who, &alias, &room_id, target.servers, true).await
}

async fn delete(app: App, who: Requester, rq: Rq) -> Result<()> {
    app.rooms.delete_alias(&who, &alias(&rq)?).await
}

async fn list(app: App, who: Requester, rq: Rq) -> Result<Value> {
    Ok(json!({"aliases": app.rooms.aliases_for(&who, &rq.room_id()?).await?}))
}
