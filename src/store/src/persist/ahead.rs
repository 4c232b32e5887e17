//! What the maker of an event stores before it hands the event to the process that owns the room:
//! state groups, and notifications in `event_push_actions_staging`.

use super::groups::{self, Groups};
use super::pushes::Pushes;
use super::{NewEvent, NewGroup, PushAction, extras};
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
    pub fn store_ahead<'a>(
        &'a self,
        room_id: &'a RoomId,
        groups: &'a [NewGroup],
        events: &'a [&'a NewEvent],
        now_ms: i64,
    ) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let groups = Groups::of(groups.iter().map(|g| (room_id.as_str(), g)));
            let (edges, entries) = (&groups.edges, &groups.entries);
            let staged = Pushes::of(
                events
                    .iter()
                    .flat_map(|e| e.push.iter().map(move |p| (e.pdu.event_id.as_str(), p, e.push_thread.as_str()))),
            );
            transaction!(self, "store_ahead", |tx| {
                tx.run(groups::GROUPS, &[&groups.ids, &groups.rooms, &groups.events]).await?;
                tx.run(groups::EDGES, &[&edges.0, &edges.1]).await?;
                tx.run(
                    groups::ENTRIES,
                    &[&entries.groups, &entries.rooms, &entries.kinds, &entries.keys, &entries.events],
                )
                .await?;
                match staged.events.is_empty() {
                    true => Ok(()),
                    false => tx.run(STAGE, &staged.params(&now_ms)).await.map(|_| ()),
                }
            })
        })
    }

    /// Stores the notifications of one event that another process will persist.
    pub async fn stage_push(&self, event_id: &EventId, push: &[PushAction], thread: &str, now_ms: i64) -> Result<()> {
        if push.is_empty() {
            return Ok(());
        }
        let staged = Pushes::of(push.iter().map(|p| (event_id.as_str(), p, thread)));
        self.db.execute(STAGE, &staged.params(&now_ms)).await.map(|_| ())
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
    pub async fn store_room(
        &self,
        room_id: &RoomId,
        version: &RoomVersionId,
        creator: &str,
        is_public: bool,
    ) -> Result<()> {
        let sql = "INSERT INTO rooms (room_id, creator, is_public, room_version, has_auth_chain_index)
             VALUES ($1, $2, $3, $4, true)";
        self.db.execute(sql, &[&room_id.as_str(), &creator, &is_public, &version.as_str()]).await.map(|_| ())
    }
}
