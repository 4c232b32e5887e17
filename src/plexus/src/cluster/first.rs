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
    /// The room with the first message; `None` until that is sent.
    pub room_id: Option<String>,
    /// The first message.
    pub event_id: Option<String>,
}

fn path(plan: &Plan) -> PathBuf {
    plan.secrets_dir().join("first-user.json")
}

/// The first user, if there is one already.
pub fn known(plan: &Plan) -> Option<First> {
    serde_json::from_slice(&std::fs::read(path(plan)).ok()?).ok()
}

fn remember(plan: &Plan, first: &First) -> Result<(), String> {
    let path = path(plan);
    let text = serde_json::to_string_pretty(first).map_err(|e| e.to_string())?;
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    if !write_new(&path, &text, 0o600).map_err(failed)? {
        std::fs::write(&path, text).map_err(failed)?;
    }
    Ok(())
}

/// Registers the user `admin` through the proxy and sends a message as them. What an earlier, failed try did isn't
/// done again.
pub async fn make(plan: &Plan, client: &Client) -> Result<First, String> {
    let scheme = if plan.file.nginx.tls_certificate.is_some() { "https" } else { "http" };
    let target = Target::Url(format!("{scheme}://{}:{}", plan.file.bind_address, plan.file.base_port));
    let mut first = known(plan).unwrap_or_else(|| First {
        user_id: format!("@admin:{}", plan.file.server_name),
        password: random_text(16),
        room_id: None,
        event_id: None,
    });
    // Written before the user exists: a password nobody knows would be worse than one nobody has.
    remember(plan, &first)?;
    let token = token(plan, client, &target, &first).await?;
    let body = json!({"name": "First room", "preset": "private_chat"});
    let room =
        expect(client.post(&target, "/_matrix/client/v3/createRoom", Some(&token), &body).await?, "making a room")?;
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
    first.room_id = Some(room_id);
    first.event_id = Some(event_id);
    remember(plan, &first)?;
    Ok(first)
}

/// Registers the user, or logs in if an earlier try has registered them.
async fn token(plan: &Plan, client: &Client, target: &Target, first: &First) -> Result<String, String> {
    let secret_file = plan.secrets_dir().join("registration");
    let secret = std::fs::read_to_string(&secret_file).map_err(|e| format!("{}: {e}", secret_file.display()))?;
    let user = NewUser { name: "admin", password: &first.password, admin: true, user_type: None };
    match register(client, target, secret.trim(), &user)
        .await
        .map_err(|e| format!("registering the first user: {e}"))?
    {
        Registered::Made(answer) => get(&answer, "access_token"),
        Registered::Exists => {
            let body = json!({
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "admin"},
                "password": first.password,
            });
            let answer = expect(
                client.post(target, "/_matrix/client/v3/login", None, &body).await?,
                "logging in as the first user",
            )?;
            get(&answer, "access_token")
        }
    }
}

fn get(value: &serde_json::Value, key: &str) -> Result<String, String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key} in the answer"))
}

fn expect((status, body): (u16, serde_json::Value), what: &str) -> Result<serde_json::Value, String> {
    if status == 200 { Ok(body) } else { Err(format!("{what}: the server answered {status} {body}")) }
}
