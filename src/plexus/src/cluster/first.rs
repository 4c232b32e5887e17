//! The first user of a new cluster and the first message.

use std::path::PathBuf;

use config::generate::{random_text, write_new};
use config::plan::Plan;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Client, Target};
use crate::users::{NewUser, Registered, register};

/// What a new cluster's owner gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct First {
    /// Full user id.
    pub user_id: String,
    /// Password.
    pub password: String,
    /// The room with the first message.
    pub room_id: String,
    /// The first message.
    pub event_id: String,
}

fn path(plan: &Plan) -> PathBuf {
    plan.secrets_dir().join("first-user.json")
}

/// The first user, if there is one already.
pub fn known(plan: &Plan) -> Option<First> {
    serde_json::from_slice(&std::fs::read(path(plan)).ok()?).ok()
}

/// Registers the user `admin` through the proxy and sends a message as them.
pub async fn make(plan: &Plan, client: &Client) -> Result<First, String> {
    let target = Target::Url(format!("http{}://{}:{}", if plan.file.nginx.tls_certificate.is_some() { "s" } else { "" }, plan.file.bind_address, plan.file.base_port));
    let secret_file = plan.secrets_dir().join("registration");
    let secret = std::fs::read_to_string(&secret_file).map_err(|e| format!("{}: {e}", secret_file.display()))?;
    let password = random_text(16);
    let user = NewUser { name: "admin", password: &password, admin: true, user_type: None };
    let answer = match register(client, &target, secret.trim(), &user).await.map_err(|e| format!("registering the first user: {e}"))? {
        Registered::Made(answer) => answer,
        Registered::Exists => return Err("a user admin exists, but not by this command".into()),
    };
    let get = |value: &serde_json::Value, key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key} in the answer {value}"));
    let token = get(&answer, "access_token")?;
    let body = json!({"name": "First room", "preset": "private_chat"});
    let room = expect(client.post(&target, "/_matrix/client/v3/createRoom", Some(&token), &body).await?, "making a room")?;
    let room_id = get(&room, "room_id")?;
    let body = json!({"msgtype": "m.text", "body": "Hello from your new homeserver."});
    let send = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/first");
    let sent = expect(client.put(&target, &send, Some(&token), &body).await?, "sending a message")?;
    let event_id = get(&sent, "event_id")?;
    let read = format!("/_matrix/client/v3/rooms/{room_id}/event/{event_id}");
    let seen = expect(client.get(&target, &read, Some(&token)).await?, "reading the message")?;
    if seen["content"]["body"] != body["body"] {
        return Err(format!("the message read isn't the one sent: {seen}"));
    }
    let first = First { user_id: get(&answer, "user_id")?, password, room_id, event_id };
    let text = serde_json::to_string_pretty(&first).map_err(|e| e.to_string())?;
    write_new(&path(plan), &text, 0o600).map_err(|e| format!("{}: {e}", path(plan).display()))?;
    Ok(first)
}

fn expect((status, body): (u16, serde_json::Value), what: &str) -> Result<serde_json::Value, String> {
    if status == 200 { Ok(body) } else { Err(format!("{what}: the server answered {status} {body}")) }
}
