//! Spaces and rooms as other servers describe them.

use super::{path, unanswered, with_param};
use crate::Rooms;
use crate::summary::Shown;
use futures::FutureExt;
use ruma::OwnedServerName;
use serde_json::Value;

/// Servers asked about one room.
const MAX_SERVERS: usize = 3;

impl Rooms {
    /// A room nobody of this server is in, as its servers describe it. `told`: what another server said already, which
    /// is enough where the children are not wanted. None: nobody tells us.
    pub(crate) async fn shown_abroad(
        &self,
        room_id: &str,
        via: &[String],
        told: Option<Value>,
        suggested_only: bool,
        is_last: bool,
    ) -> Option<Shown> {
        if let Some(Value::Object(entry)) = told {
            let is_space = entry.get("room_type").and_then(Value::as_str) == Some("m.space");
            if is_last || !is_space {
                return Some(Shown { entry, ..Shown::default() });
            }
        }
        let servers: Vec<OwnedServerName> =
            via.iter().filter_map(|s| s.as_str().try_into().ok()).take(MAX_SERVERS).collect();
        let suggested = if suggested_only { "true" } else { "false" };
        let path = with_param(path("v1/hierarchy", &[room_id]), "suggested_only", suggested);
        let path = &path;
        let ask = |server: OwnedServerName| {
            async move { self.fed.get(server.as_str(), path).await.map_err(unanswered) }.boxed()
        };
        let go_on = ["M_NOT_FOUND", "M_UNRECOGNIZED", "M_FORBIDDEN", "M_UNKNOWN"];
        let mut answer = self.first_answer("get the hierarchy", &servers, &go_on, ask).await.ok()?;
        let Value::Object(mut entry) = answer.get_mut("room")?.take() else { return None };
        if entry.get("room_id").and_then(Value::as_str) != Some(room_id) {
            return None;
        }
        let children = match entry.remove("children_state") {
            Some(Value::Array(children)) => children.into_iter().filter(is_child).collect(),
            _ => Vec::new(),
        };
        let of = |key: &str| answer.get(key).and_then(Value::as_array).into_iter().flatten();
        let told = of("children").filter_map(|c| Some((c.get("room_id")?.as_str()?.to_owned(), c.clone()))).collect();
        let hidden = of("inaccessible_children").filter_map(|c| c.as_str().map(str::to_owned)).collect();
        Some(Shown { entry, children, told, hidden })
    }
}

/// A child event with servers to reach it by.
fn is_child(event: &Value) -> bool {
    let via = event["content"]["via"].as_array();
    event["type"] == "m.space.child"
        && event["state_key"].is_string()
        && via.is_some_and(|v| !v.is_empty() && v.iter().all(Value::is_string))
}
