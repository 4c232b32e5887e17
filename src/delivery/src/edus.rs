//! Ephemeral data as other servers read it (spec: "EDUs").

use crate::Sender;
use crate::queue::Edu;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::PresenceRow;
use store::cross_signing::{CrossSigningKeys, public_key};
use store::e2e_keys::DeviceKeys;
use types::Result;

pub(crate) fn typing(room_id: &str, user_id: &str, typing: bool) -> Edu {
    Edu { kind: "m.typing".into(), content: json!({"room_id": room_id, "user_id": user_id, "typing": typing}) }
}

/// `data`: `{"ts": …}`.
pub(crate) fn receipt(
    room_id: &str,
    kind: &str,
    user_id: &str,
    event_id: &str,
    thread: Option<&str>,
    data: &Value,
) -> Edu {
    let mut data = data.clone();
    if let Some(thread) = thread {
        data["thread_id"] = thread.into();
    }
    let of_user = json!({user_id: {"event_ids": [event_id], "data": data}});
    Edu { kind: "m.receipt".into(), content: json!({room_id: {kind: of_user}}) }
}

pub(crate) fn presence(row: &PresenceRow, now_ms: i64) -> Edu {
    let mut push = json!({
        "user_id": row.user_id,
        "presence": row.state,
        "last_active_ago": (now_ms - row.last_active_ts).max(0),
    });
    if row.state == "online" {
        push["currently_active"] = row.currently_active.into();
    }
    if let Some(status) = &row.status_msg {
        push["status_msg"] = status.as_str().into();
    }
    Edu { kind: "m.presence".into(), content: json!({"push": [push]}) }
}

impl Sender {
    /// Device changes for a server, and up to where these are; None if there are none.
    pub(crate) async fn device_edus(&self, destination: &str, limit: usize) -> Result<(Vec<Edu>, Option<i64>)> {
        let store = &self.cx.store;
        // A cross-signing key takes two.
        let pokes = store.outbound_device_pokes(destination, (limit / 2) as i64).await?;
        let Some(upto) = pokes.last().map(|(_, _, at)| *at) else { return Ok((Vec::new(), None)) };
        let users: Vec<String> = pokes.iter().map(|(u, _, _)| u.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let pairs: Vec<(String, String)> = pokes.iter().map(|(u, d, _)| (u.clone(), d.clone())).collect();
        let mut before = store.last_device_pokes(destination, &users).await?;
        let devices = store.device_keys(&[], &pairs, true).await?;
        let signing = store.cross_signing_keys(&users, None).await?;
        let (mut edus, mut updates) = (Vec::new(), BTreeMap::new());
        for (user, device, at) in pokes {
            if let Some((part, key)) = cross_signing_key(&signing, &user, &device) {
                let update: &mut Value = updates.entry(user.clone()).or_insert_with(|| json!({"user_id": user}));
                update[part] = Value::Object(key.clone());
                continue;
            }
            let known = devices.get(&user).and_then(|d| d.get(&device));
            let names = self.cx.config.federation.allow_device_name_lookup;
            let content = device_update(&user, &device, at, before.insert(user.clone(), at), known, names);
            edus.push(Edu { kind: "m.device_list_update".into(), content });
        }
        for content in updates.into_values() {
            edus.push(Edu { kind: "m.signing_key_update".into(), content: content.clone() });
            // The name from before it was in the specification, which Synapse still sends.
            edus.push(Edu { kind: "org.matrix.signing_key_update".into(), content });
        }
        Ok((edus, Some(upto)))
    }
}

/// The cross-signing key with this public key, and its name in a `m.signing_key_update`.
fn cross_signing_key<'a>(
    keys: &'a HashMap<String, CrossSigningKeys>,
    user: &str,
    public: &str,
) -> Option<(&'static str, &'a Map<String, Value>)> {
    let theirs = keys.get(user)?;
    [("master", "master_key"), ("self_signing", "self_signing_key")].into_iter().find_map(|(kind, part)| {
        let key = theirs.get(kind)?;
        (public_key(key) == Some(public)).then_some((part, key))
    })
}

fn device_update(
    user: &str,
    device: &str,
    at: i64,
    before: Option<i64>,
    known: Option<&DeviceKeys>,
    names: bool,
) -> Value {
    let previous: Vec<i64> = before.into_iter().collect();
    let mut content = json!({"user_id": user, "device_id": device, "stream_id": at, "prev_id": previous});
    match known {
        None => content["deleted"] = true.into(),
        Some(known) => {
            if let Some(keys) = &known.keys {
                content["keys"] = Value::Object(keys.clone());
            }
            if let Some(name) = known.display_name.as_deref().filter(|_| names) {
                content["device_display_name"] = name.into();
            }
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_of_a_device_refer_to_the_one_before() {
        let known = DeviceKeys { display_name: Some("Phone".into()), keys: None };
        let update = device_update("@a:b", "D", 7, Some(5), Some(&known), false);
        assert_eq!(update, json!({"user_id": "@a:b", "device_id": "D", "stream_id": 7, "prev_id": [5]}));
        let update = device_update("@a:b", "D", 7, None, None, true);
        assert_eq!(update["deleted"], true);
        assert_eq!(update["prev_id"], json!([]));
        let named = device_update("@a:b", "D", 7, None, Some(&known), true);
        assert_eq!(named["device_display_name"], "Phone");
    }

    #[test]
    fn receipts_name_their_thread() {
        let edu = receipt("!r", "m.read", "@a:b", "$e", Some("main"), &json!({"ts": 1}));
        assert_eq!(
            edu.content,
            json!({"!r": {"m.read": {"@a:b": {"event_ids": ["$e"], "data": {"ts": 1, "thread_id": "main"}}}}})
        );
    }
}
