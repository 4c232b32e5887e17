//! To-device messages: `device_inbox` (for our users), `device_federation_outbox` (for other servers),
//! `device_federation_inbox` (which messages of other servers we have seen).

use crate::{Row, Store, Stream, Tx, transaction};
use serde_json::Value;
use std::collections::BTreeMap;
use types::Result;

/// Messages by user and device; the device `*` alone means all of a user's devices.
pub type ToDeviceMessages = BTreeMap<String, BTreeMap<String, Value>>;

/// One way of addressing: parallel arrays for `unnest`.
#[derive(Default)]
struct Addressed {
    users: Vec<String>,
    devices: Vec<String>,
    texts: Vec<String>,
}

impl Addressed {
    /// Splits messages in those to single devices and those to all devices of a user.
    fn split(messages: &ToDeviceMessages) -> (Self, Self) {
        let (mut single, mut all) = (Self::default(), Self::default());
        for (user, by_device) in messages {
            let wildcard = by_device.len() == 1 && by_device.contains_key("*");
            let target = if wildcard { &mut all } else { &mut single };
            for (device, message) in by_device {
                target.users.push(user.clone());
                target.devices.push(device.clone());
                target.texts.push(message.to_string());
            }
        }
        (single, all)
    }
}

const INSERT_TO_SINGLE: &str = "
    INSERT INTO device_inbox (user_id, device_id, stream_id, message_json, instance_name)
    SELECT d.user_id, d.device_id, $1, m.message, $2
    FROM unnest($3::text[], $4::text[], $5::text[]) AS m(user_id, device_id, message)
    JOIN devices d ON d.user_id = m.user_id AND d.device_id = m.device_id AND NOT COALESCE(d.hidden, false)
    RETURNING user_id";

const INSERT_TO_ALL: &str = "
    INSERT INTO device_inbox (user_id, device_id, stream_id, message_json, instance_name)
    SELECT d.user_id, d.device_id, $1, m.message, $2
    FROM unnest($3::text[], $4::text[]) AS m(user_id, message)
    JOIN devices d ON d.user_id = m.user_id AND NOT COALESCE(d.hidden, false)
    RETURNING user_id";

impl Tx {
    /// Puts messages in the inboxes of our users' devices; unknown devices are passed over.
    async fn add_to_inbox(&mut self, store: &Store, messages: &ToDeviceMessages) -> Result<i64> {
        let (single, all) = Addressed::split(messages);
        let id = self.next(&store.streams, Stream::ToDevice).await?;
        let mut rows = Vec::new();
        if !single.users.is_empty() {
            let params: crate::Params<'_> = &[&id, &store.instance(), &single.users, &single.devices, &single.texts];
            rows.extend(self.query(INSERT_TO_SINGLE, params).await?);
        }
        if !all.users.is_empty() {
            rows.extend(self.query(INSERT_TO_ALL, &[&id, &store.instance(), &all.users, &all.texts]).await?);
        }
        let mut users: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
        users.sort_unstable();
        users.dedup();
        for entity in users {
            self.announce(Stream::ToDevice, id, Row::ToDevice { entity });
        }
        Ok(id)
    }
}

impl Store {
    /// Messages of one of our users: to inboxes, and as `m.direct_to_device` contents by destination.
    /// Returns the position after which a sync sees them.
    pub async fn add_to_device(
        &self,
        local: &ToDeviceMessages,
        remote: &[(String, Value)],
        now_ms: i64,
    ) -> Result<i64> {
        transaction!(self, "add_local_messages_from_client_to_device_inbox", |tx| {
            let mut at = self.streams.current(Stream::ToDevice);
            if !local.is_empty() {
                at = tx.add_to_inbox(self, local).await?;
            }
            if !remote.is_empty() {
                let ids = tx.next_n(&self.streams, Stream::ToDevice, remote.len()).await?;
                let destinations: Vec<&str> = remote.iter().map(|(d, _)| d.as_str()).collect();
                let contents: Vec<String> = remote.iter().map(|(_, c)| c.to_string()).collect();
                let sql = "INSERT INTO device_federation_outbox
                               (destination, stream_id, queued_ts, messages_json, instance_name)
                           SELECT t.destination, t.id, $1, t.content, $2
                           FROM unnest($3::bigint[], $4::text[], $5::text[]) AS t(id, destination, content)";
                tx.run(sql, &[&now_ms, &self.instance(), &ids, &destinations, &contents]).await?;
                for (id, (destination, _)) in ids.into_iter().zip(remote) {
                    tx.announce(Stream::ToDevice, id, Row::ToDevice { entity: destination.clone() });
                    at = id;
                }
            }
            Ok(at)
        })
    }

    /// Messages another server sent; a message id that was seen before is ignored (None).
    pub async fn add_to_device_from_remote(
        &self,
        origin: &str,
        message_id: &str,
        messages: &ToDeviceMessages,
        now_ms: i64,
    ) -> Result<Option<i64>> {
        transaction!(self, "add_messages_from_remote_to_device_inbox", |tx| {
            let sql = "SELECT 1 FROM device_federation_inbox WHERE origin = $1 AND message_id = $2";
            if tx.query_opt(sql, &[&origin, &message_id]).await?.is_some() {
                return Ok(None);
            }
            let sql = "INSERT INTO device_federation_inbox (origin, message_id, received_ts, instance_name)
                       VALUES ($1, $2, $3, $4)";
            tx.run(sql, &[&origin, &message_id, &now_ms, &self.instance()]).await?;
            Ok(Some(tx.add_to_inbox(self, messages).await?))
        })
    }

    /// Up to `limit` messages in (`from`, `to`] for a device, oldest first, and the position they reach:
    /// `to`, or that of the last message if there may be more.
    pub async fn to_device_messages(
        &self,
        user_id: &str,
        device_id: &str,
        from: i64,
        to: i64,
        limit: i64,
    ) -> Result<(Vec<Value>, i64)> {
        if from >= to || !self.changed.to_device.since(user_id, from) {
            return Ok((Vec::new(), to));
        }
        let sql = "SELECT stream_id, message_json FROM device_inbox
                   WHERE user_id = $1 AND device_id = $2 AND stream_id > $3 AND stream_id <= $4
                   ORDER BY stream_id LIMIT $5";
        let rows = self.db.query(sql, &[&user_id, &device_id, &from, &to, &limit]).await?;
        let reached = match rows.last() {
            Some(last) if rows.len() as i64 >= limit => last.get(0),
            _ => to,
        };
        let parse = |r: &tokio_postgres::Row| Ok(serde_json::from_str(r.get(1))?);
        Ok((rows.iter().map(parse).collect::<Result<_>>()?, reached))
    }

    /// Deletes what a device has acknowledged: everything up to `up_to`. Returns how many there were.
    pub async fn delete_to_device(&self, user_id: &str, device_id: &str, up_to: i64) -> Result<u64> {
        let sql = "DELETE FROM device_inbox WHERE ctid IN (
                       SELECT ctid FROM device_inbox
                       WHERE user_id = $1 AND device_id = $2 AND stream_id <= $3 LIMIT 1000)";
        let mut total = 0;
        loop {
            let deleted = self.db.execute(sql, &[&user_id, &device_id, &up_to]).await?;
            total += deleted;
            if deleted < 1000 {
                return Ok(total);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_lone_star_means_all_devices() {
        let messages: ToDeviceMessages = serde_json::from_value(json!({
            "@a:x": {"*": {"n": 1}},
            "@b:x": {"*": {"n": 2}, "D": {"n": 3}},
        }))
        .unwrap();
        let (single, all) = Addressed::split(&messages);
        assert_eq!((all.users, all.texts), (vec!["@a:x".to_owned()], vec![r#"{"n":1}"#.to_owned()]));
        assert_eq!(single.devices, ["*", "D"]);
    }
}
