//! `presence_stream`: what the presence writer keeps of users' presence.

use crate::{PresenceRow, Row, Store, Stream, transaction};
use types::{Boxed, Result};

const COLUMNS: &str = "user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts, status_msg,
                       currently_active";

const INSERT: &str = "
    INSERT INTO presence_stream (stream_id, user_id, state, last_active_ts, last_federation_update_ts,
                                 last_user_sync_ts, status_msg, currently_active, instance_name)
    SELECT *, $9 FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                             $7::text[], $8::bool[])";

fn parse(r: &tokio_postgres::Row) -> PresenceRow {
    let ms = |i| r.get::<_, Option<i64>>(i).unwrap_or_default();
    PresenceRow {
        user_id: r.get(0),
        state: r.get(1),
        last_active_ts: ms(2),
        last_federation_update_ts: ms(3),
        last_user_sync_ts: ms(4),
        status_msg: r.get(5),
        currently_active: r.get::<_, Option<bool>>(6).unwrap_or_default(),
    }
}

impl Store {
    /// Everybody who is not offline.
    pub async fn active_presence(&self) -> Result<Vec<PresenceRow>> {
        let sql = format!("SELECT {COLUMNS} FROM presence_stream WHERE state <> 'offline'");
        Ok(self.db.query(&sql, &[]).await?.iter().map(parse).collect())
    }

    /// Stored presence of these users.
    pub async fn presence_of(&self, user_ids: &[&str]) -> Result<Vec<PresenceRow>> {
        let sql = format!("SELECT {COLUMNS} FROM presence_stream WHERE user_id = ANY($1)");
        Ok(self.db.query(&sql, &[&user_ids]).await?.iter().map(parse).collect())
    }

    /// Users whose presence changed after `from`, up to `to`, with the id of the change.
    pub async fn presence_between(&self, from: i64, to: i64, limit: i64) -> Result<Vec<(i64, PresenceRow)>> {
        let sql = format!(
            "SELECT {COLUMNS}, stream_id FROM presence_stream
             WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3"
        );
        Ok(self.db.query(&sql, &[&from, &to, &limit]).await?.iter().map(|r| (r.get(7), parse(r))).collect())
    }

    /// Replaces the rows of these users, each under an id of its own; returns the last id.
    pub fn put_presence<'a>(&'a self, states: &'a [PresenceRow]) -> Boxed<'a, Result<Option<i64>>> {
        Box::pin(async move {
            if states.is_empty() {
                return Ok(None);
            }
            let users: Vec<&str> = states.iter().map(|s| s.user_id.as_str()).collect();
            let state: Vec<&str> = states.iter().map(|s| s.state.as_str()).collect();
            let active: Vec<i64> = states.iter().map(|s| s.last_active_ts).collect();
            let federated: Vec<i64> = states.iter().map(|s| s.last_federation_update_ts).collect();
            let synced: Vec<i64> = states.iter().map(|s| s.last_user_sync_ts).collect();
            let status: Vec<Option<&str>> = states.iter().map(|s| s.status_msg.as_deref()).collect();
            let currently: Vec<bool> = states.iter().map(|s| s.currently_active).collect();
            transaction!(self, "update_presence", |tx| {
                let ids = tx.next_n(&self.streams, Stream::Presence, states.len()).await?;
                tx.run("DELETE FROM presence_stream WHERE user_id = ANY($1)", &[&users]).await?;
                tx.run(
                    INSERT,
                    &[&ids, &users, &state, &active, &federated, &synced, &status, &currently, &self.instance()],
                )
                .await?;
                for (id, s) in ids.iter().zip(states) {
                    tx.announce(Stream::Presence, *id, Row::Presence(s.clone()));
                }
                Ok(ids.last().copied())
            })
        })
    }
}
