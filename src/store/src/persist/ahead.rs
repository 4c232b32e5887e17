//! What the maker of an event stores before it hands the event to the process that owns the room:
//! state groups, and notifications in `event_push_actions_staging`.

use super::{NewEvent, NewGroup, PushAction, extras, state};
use crate::{Store, transaction};
use ruma::{EventId, RoomId, RoomVersionId};
use types::{Boxed, Result};

const STAGE: &str = "INSERT INTO event_push_actions_staging
        (event_id, user_id, actions, notif, highlight, unread, thread_id, inserted_ts)
    SELECT e, u, a, n, h, r, t, $8
    FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::smallint[], $6::smallint[], $7::text[])
        AS x(e, u, a, n, h, r, t)";

impl Store {
    /// Stores groups and notifications of events that another process will persist.
    pub fn store_ahead<'a>(&'a self, room_id: &'a RoomId, groups: &'a [NewGroup], events: &'a [&'a NewEvent], now_ms: i64) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let rooms: Vec<&str> = groups.iter().map(|_| room_id.as_str()).collect();
            let ids: Vec<i64> = groups.iter().map(|g| g.id).collect();
            let makers: Vec<&str> = groups.iter().map(|g| g.event_id.as_str()).collect();
            let (from, to): (Vec<i64>, Vec<i64>) = groups.iter().filter_map(|g| Some((g.id, g.prev?))).unzip();
            let mut rows: (Vec<i64>, Vec<&str>, Vec<&str>, Vec<&str>, Vec<&str>) = Default::default();
            for (id, (kind, key, event)) in groups.iter().flat_map(|g| g.rows.iter().map(move |r| (g.id, r))) {
                rows.0.push(id);
                rows.1.push(room_id.as_str());
                rows.2.push(kind);
                rows.3.push(key);
                rows.4.push(event.as_str());
            }
            let mut push: (Vec<&str>, Vec<&str>, Vec<&str>, Vec<i16>, Vec<i16>, Vec<i16>, Vec<&str>) = Default::default();
            for (e, p) in events.iter().flat_map(|e| e.push.iter().map(move |p| (e, p))) {
                push.0.push(e.pdu.event_id.as_str());
                push.1.push(&p.user_id);
                push.2.push(&p.actions);
                push.3.push(i16::from(p.notify));
                push.4.push(i16::from(p.highlight));
                push.5.push(i16::from(p.unread));
                push.6.push(&e.push_thread);
            }
            transaction!(self, "store_ahead", |tx| {
                tx.run(state::GROUPS, &[&ids, &rooms, &makers]).await?;
                tx.run(state::GROUP_EDGES, &[&from, &to]).await?;
                tx.run(state::GROUP_ROWS, &[&rows.0, &rows.1, &rows.2, &rows.3, &rows.4]).await?;
                if !push.0.is_empty() {
                    tx.run(STAGE, &[&push.0, &push.1, &push.2, &push.3, &push.4, &push.5, &push.6, &now_ms]).await?;
                }
                Ok(())
            })
        })
    }

    /// Stores the notifications of one event that another process will persist.
    pub async fn stage_push(&self, event_id: &EventId, push: &[PushAction], thread: &str, now_ms: i64) -> Result<()> {
        if push.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = push.iter().map(|_| event_id.as_str()).collect();
        let users: Vec<&str> = push.iter().map(|p| p.user_id.as_str()).collect();
        let actions: Vec<&str> = push.iter().map(|p| p.actions.as_str()).collect();
        let flag = |f: fn(&PushAction) -> bool| push.iter().map(|p| i16::from(f(p))).collect::<Vec<i16>>();
        let (notif, highlight, unread) = (flag(|p| p.notify), flag(|p| p.highlight), flag(|p| p.unread));
        let threads: Vec<&str> = push.iter().map(|_| thread).collect();
        self.db.execute(STAGE, &[&ids, &users, &actions, &notif, &highlight, &unread, &threads, &now_ms]).await?;
        Ok(())
    }

    /// Marks members who sent their first message since they joined.
    pub async fn note_participants(&self, room_id: &RoomId, users: &[String]) -> Result<()> {
        let rooms: Vec<&str> = users.iter().map(|_| room_id.as_str()).collect();
        self.db.execute(extras::PARTICIPANTS, &[&rooms, &users]).await.map(|_| ())
    }

    /// Forgets notifications of events that were not persisted after all.
    pub async fn unstage(&self, events: &[&str]) -> Result<()> {
        let sql = "DELETE FROM event_push_actions_staging WHERE event_id = ANY($1)";
        self.db.execute(sql, &[&events]).await.map(|_| ())
    }

    /// The row of a room whose events another process will persist.
    pub async fn store_room(&self, room_id: &RoomId, version: &RoomVersionId, creator: &str, is_public: bool) -> Result<()> {
        let sql = "INSERT INTO rooms (room_id, creator, is_public, room_version, has_auth_chain_index)
             VALUES ($1, $2, $3, $4, true)";
        self.db.execute(sql, &[&room_id.as_str(), &creator, &is_public, &version.as_str()]).await.map(|_| ())
    }
}
