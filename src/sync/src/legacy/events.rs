//! `GET /events`: everything that happened, as one flat list.

use super::{in_room, presence_event};
use crate::Sync;
use crate::v2::live;
use ::rooms::{Bundles, Look, Render, Visible};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::sync_timeline::Stretch;
use types::{MultiToken, OwnedEventId, OwnedRoomId, Pdu, Requester, Result, RoomToken, StreamToken};

/// A request, read and checked.
pub struct StreamRequest {
    pub who: Requester,
    /// None: from now on.
    pub from: Option<StreamToken>,
    pub limit: usize,
    pub timeout: Duration,
    /// Only this room; it may be one the user only peeks into.
    pub room_id: Option<OwnedRoomId>,
}

/// The answer: `{chunk, start, end}`.
pub struct Stream {
    pub chunk: Vec<Value>,
    pub start: StreamToken,
    pub end: StreamToken,
}

impl Sync {
    /// Waits for events after a token.
    pub async fn events(&self, rq: StreamRequest) -> Result<Stream> {
        let user = rq.who.user_id.to_string();
        let store = &self.cx.store;
        let from = rq.from.clone().unwrap_or_else(|| self.now());
        let deadline = Instant::now() + rq.timeout;
        loop {
            let joined = store.rooms_joined_by(&user).await?;
            let (rooms, peeking) = match &rq.room_id {
                Some(room) => (Arc::new(vec![room.to_string()]), !joined.contains(&room.to_string())),
                None => (joined, false),
            };
            // Peeking must not change what the user's own syncs wait for.
            let waiter = if peeking { format!("peeking {user} {}", rooms.join("")) } else { user.clone() };
            let mut listener = self.live.notifier.listen(&waiter, &rooms);
            let found = self.events_between(&rq, &from, &rooms, peeking).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !found.chunk.is_empty() || left.is_zero() {
                return Ok(found);
            }
            tokio::select! {
                changed = tokio::time::timeout(left, listener.changed()) => if changed.is_err() {
                    return Ok(found);
                },
                _ = self.cx.life.stopping() => return Ok(found),
            }
        }
    }

    /// Where this process is.
    pub(crate) fn now(&self) -> StreamToken {
        let mut now = self.cx.store.streams.now();
        now.typing = self.live.typing.position();
        now.presence = self.live.presence.position();
        now
    }

    async fn events_between(
        &self,
        rq: &StreamRequest,
        from: &StreamToken,
        rooms: &[String],
        peeking: bool,
    ) -> Result<Stream> {
        let user = rq.who.user_id.as_str();
        let now = self.now();
        let mut end = StreamToken {
            room: now.room.clone(),
            presence: now.presence,
            receipts: now.receipts.clone(),
            account_data: now.account_data,
            ..from.clone()
        };
        let mut chunk: Vec<Value> = Vec::new();
        let (events, upto) = self.room_events(rq, from, &end, rooms).await?;
        end.room = upto;
        let joins: Vec<Arc<Pdu>> =
            events.iter().filter(|e| e.membership().as_deref() == Some("join")).cloned().collect();
        let look = Look { peeking, ..Look::default() };
        let visible: Vec<Visible> = self.rooms.filter_visible(&rq.who.user_id, events, look).await?;
        for event in self.rooms.render(&visible, &Bundles::new(), Render::for_user(&rq.who)).await? {
            chunk.push(serde_json::from_str(event.get())?);
        }
        let (typing, at) = self.live.typing.since(from.typing, rooms);
        end.typing = at;
        chunk.extend(typing.into_iter().map(|(room, event)| in_room(event, &room)));
        let ids: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let receipts = self.receipts_since(user, &ids, Some(&from.receipts), &end.receipts).await?;
        chunk.extend(receipts.into_iter().map(|(room, event)| in_room(event, &room)));
        if !peeking {
            chunk.extend(self.account_data_between(user, from.account_data).await?);
        }
        chunk.extend(self.presence_between(user, from, &end, rooms, &joins).await?);
        Ok(Stream { chunk, start: from.clone(), end })
    }

    /// Room events after the token, oldest first, and the position they go up to.
    async fn room_events(
        &self,
        rq: &StreamRequest,
        from: &StreamToken,
        now: &StreamToken,
        rooms: &[String],
    ) -> Result<(Vec<Arc<Pdu>>, RoomToken)> {
        let store = &self.cx.store;
        let (since, upto) = (live(&from.room), live(&now.room));
        let mut ids: HashSet<OwnedEventId> = HashSet::new();
        if rq.room_id.is_none() {
            ids.extend(store.membership_changes_of(rq.who.user_id.as_str(), &since, &upto).await?);
        }
        let changed = rooms.iter().filter(|r| store.changed.rooms.since(r, since.stream));
        let stretches: Vec<Stretch<'_>> = changed
            .map(|room_id| Stretch { room_id, upto: RoomToken::Live(upto.clone()), since: Some(since.clone()) })
            .collect();
        for found in store.timelines(&stretches, rq.limit.max(1) * 10).await? {
            ids.extend(found.events.into_iter().map(|(id, _)| id));
        }
        let ids: Vec<OwnedEventId> = ids.into_iter().collect();
        let mut events: Vec<Arc<Pdu>> =
            store.events(&ids).await?.into_values().filter(|e| e.rejected.is_none()).collect();
        events.sort_by_key(|e| e.stream());
        if rq.limit > 0 && events.len() > rq.limit {
            events.truncate(rq.limit);
            let last = events.last().map_or(upto.stream, |e| e.stream());
            return Ok((events, RoomToken::Live(MultiToken::at(last))));
        }
        Ok((events, RoomToken::Live(upto)))
    }

    /// Tags and account data that changed; those of rooms say which.
    async fn account_data_between(&self, user: &str, since: i64) -> Result<Vec<Value>> {
        let store = &self.cx.store;
        let mut out = Vec::new();
        for (room, tags) in store.tags_since(user, Some(since)).await? {
            out.push(json!({"type": "m.tag", "content": {"tags": tags}, "room_id": room}));
        }
        for (kind, content) in store.global_account_data_since(user, Some(since)).await? {
            out.push(json!({"type": kind, "content": content}));
        }
        for (room, data) in store.room_account_data_since(user, Some(since)).await? {
            out.extend(
                data.into_iter().map(|(kind, content)| json!({"type": kind, "content": content, "room_id": room})),
            );
        }
        Ok(out)
    }

    /// Presence that changed, and that of users who joined.
    async fn presence_between(
        &self,
        user: &str,
        from: &StreamToken,
        end: &StreamToken,
        rooms: &[String],
        joins: &[Arc<Pdu>],
    ) -> Result<Vec<Value>> {
        if !self.cx.config.presence.enabled {
            return Ok(Vec::new());
        }
        let store = &self.cx.store;
        let mut users: HashSet<String> = HashSet::new();
        if from.presence < end.presence {
            let changed = self.live.presence.changed_since(from.presence).unwrap_or_default();
            users.extend(changed.get(user).cloned());
            let rooms: HashSet<&str> = rooms.iter().map(String::as_str).collect();
            users.extend(self.in_rooms(changed, &rooms).await?);
        }
        for join in joins {
            match join.state_key.as_deref() {
                Some(key) if key == user => {
                    let room = join.room_id.as_str();
                    let members = store.joined_members_of(&[room]).await?;
                    users.extend(members.get(room).into_iter().flat_map(|m| m.iter().cloned()));
                }
                Some(key) => {
                    users.insert(key.to_owned());
                }
                None => {}
            }
        }
        let now = self.cx.now_ms();
        let states = self.live.presence.of(store, users.iter().map(String::as_str)).await?;
        Ok(states.iter().map(|p| presence_event(p, now)).collect())
    }
}
