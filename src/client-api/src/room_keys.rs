//! Server-side key backups (spec: "Server-side key backups").

use app::App;
use http::{Route, Rq, route};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::key_backup::RoomKey;
use types::{Error, Requester, Result};

/// Of all rooms, of one room, of one session.
const KEYS: &str = "/_matrix/client/(r0|v3|unstable)/room_keys/keys(|/{room_id}|/{room_id}/{session_id})";
const VERSION: &str = "/_matrix/client/(r0|v3|unstable)/room_keys/version/{version}";
const VERSIONS: &str = "/_matrix/client/(r0|v3|unstable)/room_keys/version";

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("PUT", "RoomKeysServlet", KEYS).user(put_keys),
        route("GET", "RoomKeysServlet", KEYS).user(get_keys),
        route("DELETE", "RoomKeysServlet", KEYS).user(delete_keys),
        route("GET", "RoomKeysNewVersionServlet", VERSIONS).user(newest),
        route("POST", "RoomKeysNewVersionServlet", VERSIONS).user(create),
        route("GET", "RoomKeysVersionServlet", VERSION).user(get_version),
        route("PUT", "RoomKeysVersionServlet", VERSION).user(put_version),
        route("DELETE", "RoomKeysVersionServlet", VERSION).user(delete_version),
    ]
}

/// `KeyBackupData`.
#[derive(Deserialize)]
struct KeyData {
    first_message_index: i32,
    forwarded_count: i32,
    is_verified: bool,
    session_data: Value,
}

#[derive(Deserialize)]
struct Room {
    sessions: BTreeMap<String, KeyData>,
}

#[derive(Deserialize)]
struct Rooms {
    rooms: BTreeMap<String, Room>,
}

fn version(rq: &Rq) -> Result<&str> {
    rq.param("version").ok_or_else(|| Error::missing_param("Missing string query parameter 'version'"))
}

/// The keys of a body, which may be of all rooms, of the room or of the session in the path.
fn uploaded(rq: &Rq) -> Result<Vec<RoomKey>> {
    let rooms = match (rq.arg_opt("room_id"), rq.arg_opt("session_id")) {
        (Some(room), Some(session)) => {
            let sessions = BTreeMap::from([(session.to_owned(), rq.json()?)]);
            BTreeMap::from([(room.to_owned(), Room { sessions })])
        }
        (Some(room), None) => BTreeMap::from([(room.to_owned(), rq.json()?)]),
        _ => rq.json::<Rooms>()?.rooms,
    };
    let mut keys = Vec::new();
    for (room_id, room) in rooms {
        for (session_id, k) in room.sessions {
            keys.push(RoomKey {
                room_id: room_id.clone(),
                session_id,
                first_message_index: k.first_message_index,
                forwarded_count: k.forwarded_count,
                is_verified: k.is_verified,
                session_data: k.session_data,
            });
        }
    }
    Ok(keys)
}

async fn put_keys(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let keys = uploaded(&rq)?;
    app.devices.upload_backup_keys(who.user_id.as_str(), version(&rq)?, &keys).await
}

async fn get_keys(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let (room, session) = (rq.arg_opt("room_id"), rq.arg_opt("session_id"));
    let keys = app.devices.backup_keys(who.user_id.as_str(), version(&rq)?, room, session).await?;
    if session.is_some() {
        let key = keys.first().ok_or_else(|| Error::not_found("No room_keys found"))?;
        return Ok(key.to_json());
    }
    let mut rooms: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for key in &keys {
        rooms.entry(&key.room_id).or_default().insert(key.session_id.clone(), key.to_json());
    }
    if let Some(room) = room {
        return Ok(json!({"sessions": rooms.remove(room).unwrap_or_default()}));
    }
    let rooms: BTreeMap<&str, Value> = rooms.into_iter().map(|(r, s)| (r, json!({"sessions": s}))).collect();
    Ok(json!({"rooms": rooms}))
}

async fn delete_keys(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let (room, session) = (rq.arg_opt("room_id"), rq.arg_opt("session_id"));
    app.devices.delete_backup_keys(who.user_id.as_str(), version(&rq)?, room, session).await
}

async fn newest(app: App, who: Requester, _: Rq) -> Result<Value> {
    app.devices.backup_info(who.user_id.as_str(), None).await
}

#[derive(Deserialize)]
struct Create {
    algorithm: String,
    auth_data: Value,
}

async fn create(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let Create { algorithm, auth_data } = rq.json()?;
    let version = app.devices.create_backup(who.user_id.as_str(), &algorithm, &auth_data).await?;
    Ok(json!({"version": version}))
}

async fn get_version(app: App, who: Requester, rq: Rq) -> Result<Value> {
    app.devices.backup_info(who.user_id.as_str(), Some(rq.arg("version")?)).await
}

async fn put_version(app: App, who: Requester, rq: Rq) -> Result<()> {
    let info: Map<String, Value> = rq.json()?;
    app.devices.update_backup(who.user_id.as_str(), rq.arg("version")?, &info).await
}

async fn delete_version(app: App, who: Requester, rq: Rq) -> Result<()> {
    app.devices.delete_backup(who.user_id.as_str(), rq.arg("version")?).await
}
