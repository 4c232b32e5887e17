//! Sending messages to devices.

use crate::Devices;
use config::StreamGroup;
use ruma::UserId;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::to_device::ToDeviceMessages;
use types::{Error, Requester, Result, credentials};

/// Largest content of one message, and about the largest `m.direct_to_device`, in bytes of canonical JSON.
const MAX_SIZE: usize = 65_536;

/// Messages for other servers by destination, user and device.
type Remote = BTreeMap<String, ToDeviceMessages>;

impl Devices {
    /// Sends messages (user → device, or `*` → content) of one type.
    pub async fn send_to_device(
        &self,
        who: &Requester,
        kind: &str,
        messages: BTreeMap<String, BTreeMap<String, Value>>,
    ) -> Result<()> {
        let (local, remote) = self.sort_out(who, kind, messages)?;
        let owner = self.cx.owner(StreamGroup::ToDevice, "");
        if owner != &*self.cx.instance {
            return self.hand_to_writer(owner, who, kind, &local, &remote).await;
        }
        let edus: Vec<(String, Value)> = remote
            .into_iter()
            .flat_map(|(host, messages)| {
                let edus = split(messages);
                edus.into_iter().map(move |m| (host.clone(), m))
            })
            .map(|(host, m)| (host, edu(who, kind, &m)))
            .collect();
        self.cx.store.add_to_device(&local, &edus, self.cx.now_ms()).await?;
        Ok(())
    }

    fn sort_out(
        &self,
        who: &Requester,
        kind: &str,
        messages: BTreeMap<String, BTreeMap<String, Value>>,
    ) -> Result<(ToDeviceMessages, Remote)> {
        let (mut local, mut remote) = (ToDeviceMessages::new(), Remote::new());
        for (user_id, by_device) in messages {
            let Ok(user) = UserId::parse(user_id.as_str()) else { continue };
            for (device, content) in &by_device {
                let size = content.to_string().len();
                if size > MAX_SIZE {
                    return Err(Error::too_large(format!(
                        "To-device message for {user_id}:{device} is too large to send ({size} > {MAX_SIZE})"
                    )));
                }
            }
            if by_device.is_empty() {
                continue;
            }
            if user.server_name() == self.cx.store.server_name {
                let wrap = |content| json!({"content": content, "type": kind, "sender": who.user_id});
                local.insert(user_id, by_device.into_iter().map(|(d, content)| (d, wrap(content))).collect());
            } else {
                let server = user.server_name().to_string();
                remote.entry(server).or_default().insert(user_id, by_device);
            }
        }
        Ok((local, remote))
    }

    /// The writer is a Synapse process: to it the messages look as if a server (ours) had sent them.
    async fn hand_to_writer(
        &self,
        owner: &str,
        who: &Requester,
        kind: &str,
        local: &ToDeviceMessages,
        remote: &Remote,
    ) -> Result<()> {
        if !remote.is_empty() {
            return Err(Error::unavailable("This process cannot send to devices of other servers"));
        }
        let contents: ToDeviceMessages = local
            .iter()
            .map(|(user, devices)| {
                (user.clone(), devices.iter().map(|(d, m)| (d.clone(), m["content"].clone())).collect())
            })
            .collect();
        let mut payload = Map::new();
        payload.insert("origin".into(), json!(self.cx.store.server_name));
        payload.insert("content".into(), edu(who, kind, &contents));
        self.cx.peers.call(owner, "fed_send_edu", &["m.direct_to_device"], true, payload).await?;
        Ok(())
    }

    /// Messages that came from another server.
    pub async fn receive_to_device(&self, origin: &str, content: &Value) -> Result<()> {
        let text = |key: &str| {
            content[key].as_str().ok_or_else(|| Error::bad_json(format!("m.direct_to_device: {key} must be a string")))
        };
        let (sender, kind, message_id) = (text("sender")?, text("type")?, text("message_id")?);
        if sender.split_once(':').map(|(_, server)| server) != Some(origin) {
            return Ok(());
        }
        let mut local = ToDeviceMessages::new();
        for (user_id, by_device) in content["messages"].as_object().into_iter().flatten() {
            let ours = user_id.split_once(':').is_some_and(|(_, s)| s == self.cx.store.server_name.as_str());
            if !ours {
                return Err(Error::bad_request("Not a user here"));
            }
            let wrap = |(device, content): (&String, &Value)| {
                (device.clone(), json!({"content": content, "type": kind, "sender": sender}))
            };
            let devices: BTreeMap<String, Value> = by_device.as_object().into_iter().flatten().map(wrap).collect();
            if !devices.is_empty() {
                local.insert(user_id.clone(), devices);
            }
        }
        self.cx.store.add_to_device_from_remote(origin, message_id, &local, self.cx.now_ms()).await?;
        Ok(())
    }
}

/// Content of an `m.direct_to_device`.
fn edu(who: &Requester, kind: &str, messages: &ToDeviceMessages) -> Value {
    json!({
        "sender": who.user_id,
        "type": kind,
        "message_id": credentials::letters(16),
        "messages": messages,
        "org.matrix.opentracing_context": "{}",
    })
}

/// Splits messages so that each part is about [`MAX_SIZE`] bytes at most.
fn split(messages: ToDeviceMessages) -> Vec<ToDeviceMessages> {
    let mut parts = Vec::new();
    let (mut part, mut size) = (ToDeviceMessages::new(), 0);
    for (user, devices) in messages {
        for (device, content) in devices {
            let more = user.len() + device.len() + content.to_string().len() + 16;
            if size > 0 && size + more > MAX_SIZE {
                parts.push(std::mem::take(&mut part));
                size = 0;
            }
            size += more;
            part.entry(user.clone()).or_default().insert(device, content);
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lose_nothing_and_stay_small() {
        let content = |n: usize| (format!("D{n}"), json!({"x": "y".repeat(20_000)}));
        let messages: ToDeviceMessages =
            ["@a:y", "@b:y"].map(|u| (u.to_owned(), (0..5).map(content).collect())).into_iter().collect();
        let parts = split(messages.clone());
        assert!(parts.iter().all(|p| serde_json::to_string(p).is_ok_and(|s| s.len() <= MAX_SIZE)));
        let mut joined = ToDeviceMessages::new();
        for part in parts {
            for (user, devices) in part {
                joined.entry(user).or_default().extend(devices);
            }
        }
        assert_eq!(joined, messages);
    }
}
