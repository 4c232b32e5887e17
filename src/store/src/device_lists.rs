//! Who must fetch whose keys anew: `device_lists_stream`, `device_lists_changes_in_room`,
//! `user_signature_stream`, and their way to other servers.

use crate::{Row, Store, Stream, transaction};
use std::collections::HashSet;
use types::{MultiToken, Result};

/// A change of a local device that other servers in the room have not been told of.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomPoke {
    pub user_id: String,
    pub device_id: String,
    pub room_id: String,
    pub stream_id: i64,
}

impl Store {
    /// True if a row is after `low` and not after `high`.
    pub fn in_range(&self, low: &MultiToken, high: &MultiToken, instance: Option<&str>, at: i64) -> bool {
        let id = self.streams.instance_id(instance);
        at > low.for_instance(id) && at <= high.for_instance(id)
    }

    /// Notes that devices of a user changed, for those who share `room_ids` with them.
    /// Only writers of the device_lists stream may call this. Returns the last stream id.
    pub async fn add_device_changes(
        &self,
        user_id: &str,
        device_ids: &[String],
        room_ids: &[String],
        now_ms: i64,
    ) -> Result<Option<i64>> {
        let mut last = None;
        let is_ours = user_id.split_once(':').is_some_and(|(_, server)| server == self.server_name.as_str());
        for batch in device_ids.chunks(1000) {
            let id = transaction!(self, "add_device_change_to_stream", |tx| {
                let ids = tx.next_n(&self.streams, Stream::DeviceLists, batch.len()).await?;
                let sql = "DELETE FROM device_lists_stream
                           WHERE user_id = $1 AND device_id = ANY($2) AND stream_id < $3";
                tx.run(sql, &[&user_id, &batch, &ids[0]]).await?;
                let sql = "INSERT INTO device_lists_stream (stream_id, user_id, device_id, instance_name)
                           SELECT t.id, $1, t.device_id, $2
                           FROM unnest($3::bigint[], $4::text[]) AS t(id, device_id)";
                tx.run(sql, &[&user_id, &self.instance(), &ids, &batch]).await?;
                let sql = "INSERT INTO device_lists_changes_in_room
                               (user_id, device_id, room_id, stream_id, converted_to_destinations,
                                opentracing_context, instance_name, inserted_ts)
                           SELECT $1, t.device_id, r.room_id, t.id, $2, '{}', $3, $4
                           FROM unnest($5::bigint[], $6::text[]) AS t(id, device_id)
                           CROSS JOIN unnest($7::text[]) AS r(room_id)";
                tx.run(sql, &[&user_id, &!is_ours, &self.instance(), &now_ms, &ids, &batch, &room_ids]).await?;
                for id in &ids {
                    let user_id = user_id.to_owned();
                    let row = Row::DeviceList { user_id, is_signature: false, hosts_calculated: false };
                    tx.announce(Stream::DeviceLists, *id, row);
                }
                Ok(ids.last().copied())
            })?;
            last = id.or(last);
        }
        Ok(last)
    }

    /// Id of the last change of a local user's devices; 0 if there was none.
    pub async fn devices_changed_at(&self, user_id: &str) -> Result<i64> {
        let sql = "SELECT COALESCE(max(stream_id), 0) FROM device_lists_stream WHERE user_id = $1";
        Ok(self.db.query_opt(sql, &[&user_id]).await?.map_or(0, |r| r.get(0)))
    }

    /// Notes that a user signed other users' keys with their user-signing key (only that user sees it).
    pub async fn add_signature_change(&self, from_user: &str, user_ids: &[String]) -> Result<i64> {
        transaction!(self, "add_user_sig_change_to_streams", |tx| {
            let id = tx.next(&self.streams, Stream::DeviceLists).await?;
            let sql = "INSERT INTO user_signature_stream (stream_id, from_user_id, user_ids, instance_name)
                       VALUES ($1, $2, $3, $4)";
            let users = serde_json::to_string(user_ids)?;
            tx.run(sql, &[&id, &from_user, &users, &self.instance()]).await?;
            let user_id = from_user.to_owned();
            let row = Row::DeviceList { user_id, is_signature: true, hosts_calculated: false };
            tx.announce(Stream::DeviceLists, id, row);
            Ok(id)
        })
    }

    /// Those of `users` whose devices changed in (`from`, `to`].
    pub async fn users_whose_devices_changed(
        &self,
        users: &[String],
        from: &MultiToken,
        to: &MultiToken,
    ) -> Result<HashSet<String>> {
        let users: Vec<&str> =
            users.iter().map(String::as_str).filter(|u| self.changed.devices.since(u, from.stream)).collect();
        if users.is_empty() {
            return Ok(HashSet::new());
        }
        let sql = "SELECT user_id, stream_id, instance_name FROM device_lists_stream
                   WHERE user_id = ANY($1) AND stream_id > $2 AND stream_id <= $3";
        let rows = self.db.query(sql, &[&users, &from.stream, &to.max()]).await?;
        Ok(self.users_in_range(&rows, from, to))
    }

    /// Users with changed devices in these rooms in (`from`, `to`]. None: rows that old are pruned, so
    /// [`Store::users_whose_devices_changed`] has to be asked about everybody in the rooms.
    pub async fn device_changes_in_rooms(
        &self,
        room_ids: &[String],
        from: &MultiToken,
        to: &MultiToken,
    ) -> Result<Option<HashSet<String>>> {
        if room_ids.is_empty() || from.stream >= to.max() {
            return Ok(Some(HashSet::new()));
        }
        let pruned = "SELECT stream_id FROM device_lists_changes_in_room_max_pruned_stream_id";
        let changes = "SELECT user_id, stream_id, instance_name FROM device_lists_changes_in_room
                       WHERE room_id = ANY($1) AND stream_id > $2 AND stream_id <= $3";
        let params: crate::Params<'_> = &[&room_ids, &from.stream, &to.max()];
        let (pruned, rows) = futures::try_join!(self.db.query(pruned, &[]), self.db.query(changes, params))?;
        if pruned.first().is_some_and(|r| r.get::<_, i64>(0) > from.stream) {
            return Ok(None);
        }
        Ok(Some(self.users_in_range(&rows, from, to)))
    }

    /// Users whose keys `user_id` signed after `from`.
    pub async fn users_whose_signatures_changed(&self, user_id: &str, from: &MultiToken) -> Result<HashSet<String>> {
        if !self.changed.devices.since(user_id, from.stream) {
            return Ok(HashSet::new());
        }
        let sql = "SELECT user_ids, stream_id, instance_name FROM user_signature_stream
                   WHERE from_user_id = $1 AND stream_id > $2";
        let mut users = HashSet::new();
        for row in self.db.query(sql, &[&user_id, &from.stream]).await? {
            if row.get::<_, i64>(1) > from.for_instance(self.streams.instance_id(row.get(2))) {
                users.extend(serde_json::from_str::<Vec<String>>(row.get(0))?);
            }
        }
        Ok(users)
    }

    fn users_in_range(&self, rows: &[tokio_postgres::Row], from: &MultiToken, to: &MultiToken) -> HashSet<String> {
        let fits = |r: &&tokio_postgres::Row| self.in_range(from, to, r.get(2), r.get(1));
        rows.iter().filter(fits).map(|r| r.get(0)).collect()
    }

    /// Where telling other servers has got to: (stream id, room id).
    pub async fn device_changes_converted_to(&self) -> Result<(i64, String)> {
        let sql = "SELECT stream_id, room_id FROM device_lists_changes_converted_stream_position";
        let row = self.db.query_opt(sql, &[]).await?;
        Ok(row.map_or((0, String::new()), |r| (r.get(0), r.get(1))))
    }

    /// Sets [`Store::device_changes_converted_to`].
    pub async fn set_device_changes_converted_to(&self, stream_id: i64, room_id: &str) -> Result<()> {
        let sql = "UPDATE device_lists_changes_converted_stream_position
                   SET stream_id = $1, room_id = $2, instance_name = $3";
        self.db.execute(sql, &[&stream_id, &room_id, &self.instance()]).await?;
        Ok(())
    }

    /// Changes after a position other servers have not been told of, in order.
    pub async fn unconverted_device_changes(&self, after: (i64, &str), limit: i64) -> Result<Vec<RoomPoke>> {
        let sql = "SELECT user_id, device_id, room_id, stream_id FROM device_lists_changes_in_room
                   WHERE (stream_id, room_id) > ($1, $2) AND stream_id <= $3 AND NOT converted_to_destinations
                   ORDER BY stream_id, room_id LIMIT $4";
        let now = self.streams.current(Stream::DeviceLists);
        let rows = self.db.query(sql, &[&after.0, &after.1, &now, &limit]).await?;
        let poke = |r: &tokio_postgres::Row| RoomPoke {
            user_id: r.get(0),
            device_id: r.get(1),
            room_id: r.get(2),
            stream_id: r.get(3),
        };
        Ok(rows.iter().map(poke).collect())
    }

    /// Queues device changes for other servers: one stream id for each (user, device, its destinations).
    pub async fn add_device_pokes(&self, pokes: &[(String, String, Vec<String>)], now_ms: i64) -> Result<()> {
        if pokes.is_empty() {
            return Ok(());
        }
        transaction!(self, "add_device_list_outbound_pokes", |tx| {
            let ids = tx.next_n(&self.streams, Stream::DeviceLists, pokes.len()).await?;
            let (mut at, mut users, mut devices, mut hosts) = (vec![], vec![], vec![], vec![]);
            for (id, (user, device, destinations)) in ids.iter().zip(pokes) {
                for host in destinations {
                    at.push(*id);
                    users.push(user.as_str());
                    devices.push(device.as_str());
                    hosts.push(host.as_str());
                }
            }
            let sql = "INSERT INTO device_lists_outbound_pokes
                           (destination, stream_id, user_id, device_id, sent, ts, opentracing_context, instance_name)
                       SELECT t.host, t.id, t.user_id, t.device_id, false, $1, '{}', $2
                       FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[]) AS t(id, user_id, device_id, host)";
            tx.run(sql, &[&now_ms, &self.instance(), &at, &users, &devices, &hosts]).await?;
            for (id, (user, _, _)) in ids.into_iter().zip(pokes) {
                let row = Row::DeviceList { user_id: user.clone(), is_signature: false, hosts_calculated: true };
                tx.announce(Stream::DeviceLists, id, row);
            }
            Ok(())
        })
    }
}
