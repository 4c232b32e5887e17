//! What has to go to other servers: `destination_rooms`, `destinations.last_successful_stream_ordering`,
//! `federation_stream_position`.

use crate::{Store, Stream, transaction};
use serde::Deserialize;
use std::collections::HashSet;
use types::Result;

/// An event this server has to tell others of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundEvent {
    pub event_id: String,
    pub stream_ordering: i64,
    pub room_id: String,
    pub sender: String,
    /// `event_json.internal_metadata`.
    pub metadata: String,
    /// The user a membership event is about.
    pub member: Option<String>,
    /// That user was in the room, or invited, before the event.
    pub was_member: bool,
    /// That user is in the room by the event.
    pub joins: bool,
}

impl Store {
    /// Up to where this process has looked through a stream (`events`, `federation`) for other servers. A process
    /// without a row begins where the one furthest behind is.
    pub async fn federation_position(&self, kind: &str) -> Result<i64> {
        let sql = "INSERT INTO federation_stream_position (type, stream_id, instance_name)
                   SELECT $1, COALESCE(min(stream_id), -1), $2 FROM federation_stream_position WHERE type = $1
                   ON CONFLICT (type, instance_name) DO NOTHING";
        self.db.execute(sql, &[&kind, &self.instance()]).await?;
        let sql = "SELECT stream_id FROM federation_stream_position WHERE type = $1 AND instance_name = $2";
        Ok(self.db.query_opt(sql, &[&kind, &self.instance()]).await?.map_or(-1, |r| r.get(0)))
    }

    /// Sets [`Store::federation_position`].
    pub async fn set_federation_position(&self, kind: &str, stream_id: i64) -> Result<()> {
        let sql = "UPDATE federation_stream_position SET stream_id = $3 WHERE type = $1 AND instance_name = $2";
        self.db.execute(sql, &[&kind, &self.instance(), &stream_id]).await.map(|_| ())
    }

    /// Events in (`after`, `to`] that this server made, or sends on behalf of another, in order.
    pub async fn outbound_events(&self, after: i64, to: i64, limit: i64) -> Result<Vec<OutboundEvent>> {
        let sql = "SELECT e.event_id, e.stream_ordering, e.room_id, e.sender, j.internal_metadata,
                          CASE WHEN e.type = 'm.room.member' THEN e.state_key END,
                          CASE WHEN e.type = 'm.room.member' THEN j.json END
                   FROM events e JOIN event_json j USING (event_id)
                   WHERE e.stream_ordering > $1 AND e.stream_ordering <= $2 AND NOT e.outlier
                     AND e.rejection_reason IS NULL
                     AND (substring(e.sender FROM position(':' IN e.sender) + 1) = $3
                          OR j.internal_metadata LIKE '%\"send_on_behalf_of\"%')
                   ORDER BY e.stream_ordering LIMIT $4";
        let rows = self.db.query(sql, &[&after, &to, &self.server_name.as_str(), &limit]).await?;
        let members: Vec<Member> =
            rows.iter().map(|r| r.get::<_, Option<&str>>(6).map(read_member).unwrap_or_default()).collect();
        let replaced: Vec<String> = members.iter().filter_map(|m| m.unsigned.replaces_state.clone()).collect();
        let known = self.memberships_among(&replaced).await?;
        let event = |(r, member): (&tokio_postgres::Row, &Member)| OutboundEvent {
            event_id: r.get(0),
            stream_ordering: r.get(1),
            room_id: r.get(2),
            sender: r.get(3),
            metadata: r.get(4),
            member: r.get(5),
            was_member: member.unsigned.replaces_state.as_ref().is_some_and(|id| known.contains(id)),
            joins: member.content.membership.as_deref() == Some("join"),
        };
        Ok(rows.iter().zip(&members).map(event).collect())
    }

    /// Those of these membership events that are joins or invites.
    async fn memberships_among(&self, event_ids: &[String]) -> Result<HashSet<String>> {
        if event_ids.is_empty() {
            return Ok(HashSet::new());
        }
        let sql = "SELECT event_id FROM room_memberships WHERE event_id = ANY($1) AND membership IN ('join', 'invite')";
        Ok(self.db.query(sql, &[&event_ids]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// Notes which server has to hear of which room up to which event.
    pub async fn note_destination_rooms(&self, entries: &[(String, String, i64)]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut last = std::collections::BTreeMap::new();
        for (destination, room_id, at) in entries {
            let known = last.entry((destination.as_str(), room_id.as_str())).or_insert(*at);
            *known = (*known).max(*at);
        }
        let (names, at): (Vec<(&str, &str)>, Vec<i64>) = last.into_iter().unzip();
        let (destinations, rooms): (Vec<&str>, Vec<&str>) = names.into_iter().unzip();
        transaction!(self, "store_destination_rooms_entries", |tx| {
            let sql = "INSERT INTO destinations (destination) SELECT DISTINCT d FROM unnest($1::text[]) AS t(d)
                       ORDER BY d ON CONFLICT DO NOTHING";
            tx.run(sql, &[&destinations]).await?;
            let sql = "INSERT INTO destination_rooms (destination, room_id, stream_ordering)
                       SELECT d, r, s FROM unnest($1::text[], $2::text[], $3::bigint[]) AS t(d, r, s)
                       ON CONFLICT (destination, room_id) DO UPDATE SET stream_ordering = EXCLUDED.stream_ordering";
            tx.run(sql, &[&destinations, &rooms, &at]).await.map(|_| ())
        })
    }

    /// The last event a server took from us; None if it never took one.
    pub async fn last_delivered(&self, destination: &str) -> Result<Option<i64>> {
        let sql = "SELECT last_successful_stream_ordering FROM destinations WHERE destination = $1";
        Ok(self.db.query_opt(sql, &[&destination]).await?.and_then(|r| r.get(0)))
    }

    /// Sets [`Store::last_delivered`].
    pub async fn set_last_delivered(&self, destination: &str, stream_ordering: i64) -> Result<()> {
        let sql = "INSERT INTO destinations (destination, last_successful_stream_ordering) VALUES ($1, $2)
                   ON CONFLICT (destination) DO UPDATE
                   SET last_successful_stream_ordering = EXCLUDED.last_successful_stream_ordering";
        self.db.execute(sql, &[&destination, &stream_ordering]).await.map(|_| ())
    }

    /// The last event of each room a server missed, after `after` and before `before`, oldest first.
    pub async fn missed_events(
        &self,
        destination: &str,
        after: i64,
        before: i64,
        limit: i64,
    ) -> Result<Vec<(i64, String)>> {
        let sql = "SELECT d.stream_ordering, e.event_id FROM destination_rooms d JOIN events e USING (stream_ordering)
                   WHERE d.destination = $1 AND d.stream_ordering > $2 AND d.stream_ordering < $3
                   ORDER BY d.stream_ordering LIMIT $4";
        let rows = self.db.query(sql, &[&destination, &after, &before, &limit]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// Servers that missed something and may be tried again, in order, after the name `after`.
    pub async fn servers_behind(&self, after: &str, now_ms: i64, limit: i64) -> Result<Vec<String>> {
        let sql = "SELECT d.destination FROM destinations d
                   WHERE d.destination > $1 AND COALESCE(d.retry_last_ts + d.retry_interval, 0) <= $2
                     AND (EXISTS (SELECT 1 FROM destination_rooms r WHERE r.destination = d.destination
                                  AND r.stream_ordering > d.last_successful_stream_ordering)
                          OR EXISTS (SELECT 1 FROM device_federation_outbox o WHERE o.destination = d.destination)
                          OR EXISTS (SELECT 1 FROM device_lists_outbound_pokes p
                                     WHERE p.destination = d.destination AND NOT p.sent))
                   ORDER BY d.destination LIMIT $3";
        Ok(self.db.query(sql, &[&after, &now_ms, &limit]).await?.iter().map(|r| r.get(0)).collect())
    }

    /// To-device messages for a server (contents of `m.direct_to_device`), oldest first.
    pub async fn outbound_to_device(&self, destination: &str, limit: i64) -> Result<Vec<(i64, String)>> {
        let sql = "SELECT stream_id, messages_json FROM device_federation_outbox
                   WHERE destination = $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
        let to = self.streams.current(Stream::ToDevice);
        let rows = self.db.query(sql, &[&destination, &to, &limit]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// Forgets those up to `upto`, which the server took.
    pub async fn delete_outbound_to_device(&self, destination: &str, upto: i64) -> Result<()> {
        let sql = "DELETE FROM device_federation_outbox WHERE destination = $1 AND stream_id <= $2";
        self.db.execute(sql, &[&destination, &upto]).await.map(|_| ())
    }

    /// Devices (or cross-signing keys, by their public key) a server has to be told of, as (user, device, last change),
    /// oldest first.
    pub async fn outbound_device_pokes(&self, destination: &str, limit: i64) -> Result<Vec<(String, String, i64)>> {
        let sql = "SELECT user_id, device_id, max(stream_id) FROM device_lists_outbound_pokes
                   WHERE destination = $1 AND NOT sent AND stream_id <= $2
                   GROUP BY user_id, device_id ORDER BY max(stream_id) LIMIT $3";
        let to = self.streams.current(Stream::DeviceLists);
        let rows = self.db.query(sql, &[&destination, &to, &limit]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect())
    }

    /// The last change of each of these users' devices a server was told of.
    pub async fn last_device_pokes(
        &self,
        destination: &str,
        users: &[String],
    ) -> Result<std::collections::HashMap<String, i64>> {
        let sql = "SELECT user_id, max(stream_id) FROM device_lists_outbound_last_success
                   WHERE destination = $1 AND user_id = ANY($2) GROUP BY user_id";
        let rows = self.db.query(sql, &[&destination, &users]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// The server took all changes up to `upto`.
    pub async fn delete_outbound_device_pokes(&self, destination: &str, upto: i64) -> Result<()> {
        transaction!(self, "mark_as_sent_devices_by_remote", |tx| {
            let sql = "INSERT INTO device_lists_outbound_last_success (destination, user_id, stream_id)
                       SELECT destination, user_id, max(stream_id) FROM device_lists_outbound_pokes
                       WHERE destination = $1 AND stream_id <= $2 GROUP BY destination, user_id
                       ON CONFLICT (destination, user_id) DO UPDATE SET stream_id = EXCLUDED.stream_id";
            tx.run(sql, &[&destination, &upto]).await?;
            let sql = "DELETE FROM device_lists_outbound_pokes WHERE destination = $1 AND stream_id <= $2";
            tx.run(sql, &[&destination, &upto]).await.map(|_| ())
        })
    }

    /// Servers that the rows of device changes in (`after`, `to`] are for.
    pub async fn servers_poked(&self, after: i64, to: i64) -> Result<Vec<String>> {
        let sql =
            "SELECT DISTINCT destination FROM device_lists_outbound_pokes WHERE stream_id > $1 AND stream_id <= $2";
        Ok(self.db.query(sql, &[&after, &to]).await?.iter().map(|r| r.get(0)).collect())
    }
}

/// What is asked of a membership event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Member {
    content: Content,
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    membership: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Unsigned {
    /// The state event it replaced, as noted when it was made.
    replaces_state: Option<String>,
}

fn read_member(json: &str) -> Member {
    serde_json::from_str(json).unwrap_or_default()
}
