//! Pages of history: `/messages`, `/context`, `/timestamp_to_event`.

use crate::access::Access;
use crate::read::Part;
use crate::{Look, Render, Rooms, Shape, Visible};
use ruma::{EventId, OwnedEventId, RoomId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::sync::Arc;
use store::pages::{Dir, Page, PageQuery, Place};
use types::filter::EventFilter;
use types::{Error, Pdu, Requester, Result, RoomToken, StreamToken};

/// `dir`, `from`, `to`, `limit` of a request.
#[derive(Clone, Debug)]
pub struct Paging {
    pub dir: Dir,
    pub from: Option<StreamToken>,
    pub to: Option<StreamToken>,
    pub limit: usize,
}

/// Body of `/messages`.
#[derive(Debug, Serialize)]
pub struct Messages {
    pub chunk: Vec<Box<RawValue>>,
    pub start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<Box<RawValue>>>,
}

/// Body of `/context`.
#[derive(Debug, Serialize)]
pub struct Context {
    pub events_before: Vec<Box<RawValue>>,
    pub event: Box<RawValue>,
    pub events_after: Vec<Box<RawValue>>,
    pub state: Vec<Box<RawValue>>,
    pub start: String,
    pub end: String,
}

fn with_room(token: &StreamToken, room: RoomToken) -> StreamToken {
    StreamToken { room, ..token.clone() }
}

impl Rooms {
    /// A page of a room's history.
    pub async fn messages(
        &self,
        who: &Requester,
        room_id: &RoomId,
        paging: &Paging,
        filter: Option<&EventFilter>,
        shape: Shape,
    ) -> Result<Messages> {
        let access = self.check_may_look(&who.user_id, room_id, true).await?;
        let from = self.page_start(room_id, paging, &access).await?;
        let to = paging.to.as_ref().map(|t| &t.room);
        let query =
            PageQuery { room_id: room_id.as_str(), dir: paging.dir, from: &from.room, to, limit: paging.limit, filter };
        let mut page = self.cx.store.page(&query).await?;
        if paging.dir == Dir::Backwards && self.fetch_before(room_id, &from.room, &page, paging.limit).await? {
            page = self.cx.store.page(&query).await?;
        }
        let start = from.to_string();
        let next = with_room(&from, page.next).to_string();
        let mut answer = Messages { chunk: Vec::new(), start, end: Some(next), state: None };
        let events = self.load_places(&page.events).await?;
        if events.is_empty() && !page.limited {
            answer.end = None;
            return Ok(answer);
        }
        let events = self.apply_filter(filter, events).await?;
        let look = Look { peeking: access.is_peeking(), ..self.look_at(room_id).await? };
        let shown = self.filter_visible(&who.user_id, events, look).await?;
        if shown.is_empty() {
            return Ok(answer);
        }
        let bundles = self.bundle(&who.user_id, &shown).await?;
        let how = Render::for_user(who).shape(shape);
        if filter.is_some_and(|f| f.lazy_load_members)
            && let Some(members) = self.senders_of(&shown).await?
        {
            answer.state = Some(self.render_state(&members, how)?);
        }
        answer.chunk = self.render(&shown, &bundles, how).await?;
        Ok(answer)
    }

    /// Fetches history a page comes near to, if not all of it is known here. True if there is more now.
    async fn fetch_before(&self, room_id: &RoomId, from: &RoomToken, page: &Page, limit: usize) -> Result<bool> {
        let first = page.events.first().map_or(0, |place| place.depth);
        let depth = match from {
            RoomToken::Topological { depth, .. } => *depth,
            RoomToken::Live(_) => first,
        };
        let lowest = page.events.last().filter(|_| page.events.len() >= limit).map(|place| place.depth);
        self.fetch_history(room_id, depth, limit, lowest).await
    }

    /// Where a page begins: given, or the room's end or beginning; for those who left, not after they left.
    async fn page_start(&self, room_id: &RoomId, paging: &Paging, access: &Access) -> Result<StreamToken> {
        let store = &self.cx.store;
        let from = match (&paging.from, paging.dir) {
            (Some(token), _) => token.clone(),
            (None, Dir::Forwards) => StreamToken::default(),
            (None, Dir::Backwards) => StreamToken::of_room(store.newest_token(room_id.as_str()).await?),
        };
        let (Dir::Backwards, Access::Departed(left)) = (paging.dir, access) else { return Ok(from) };
        let Some(place) = store.places(&[left]).await?.pop() else { return Ok(from) };
        let is_later = match &from.room {
            RoomToken::Topological { depth, .. } => place.depth < *depth,
            live @ RoomToken::Live(_) => {
                store::pages::covers(live, &store.streams, place.instance.as_deref(), place.depth, place.stream)
            }
        };
        let left = RoomToken::Topological { depth: place.depth, stream: place.stream };
        Ok(if is_later { with_room(&from, left) } else { from })
    }

    /// Accepted events at these places, in order.
    async fn load_places(&self, places: &[Place]) -> Result<Vec<Arc<Pdu>>> {
        let ids: Vec<&OwnedEventId> = places.iter().map(|p| &p.event_id).collect();
        let mut events = self.cx.store.events_in_order(&ids).await?;
        events.retain(|e| e.rejected.is_none());
        Ok(events)
    }

    /// What a filter leaves of events.
    pub async fn apply_filter(&self, filter: Option<&EventFilter>, mut events: Vec<Arc<Pdu>>) -> Result<Vec<Arc<Pdu>>> {
        let Some(filter) = filter else { return Ok(events) };
        events.retain(|e| filter.allows(e));
        if filter.has_relation_filter() && !events.is_empty() {
            let ids: Vec<&str> = events.iter().map(|e| e.event_id.as_str()).collect();
            let (senders, types) = (filter.related_by_senders.as_deref(), filter.related_by_rel_types.as_deref());
            let kept: HashSet<OwnedEventId> =
                self.cx.store.with_relations(&ids, senders, types).await?.into_iter().collect();
            events.retain(|e| kept.contains(&e.event_id));
        }
        Ok(events)
    }

    /// Membership events of the senders, as of the first event; None if there are none.
    async fn senders_of(&self, shown: &[Visible]) -> Result<Option<Vec<Arc<Pdu>>>> {
        let Some(first) = shown.first() else { return Ok(None) };
        let senders: HashSet<&str> = shown.iter().map(|v| v.event.sender.as_str()).collect();
        let members = self.members_after(&first.event.event_id, &senders).await?;
        Ok(Some(members).filter(|m| !m.is_empty()))
    }

    /// Membership events of some users after an event.
    pub(crate) async fn members_after(&self, event_id: &EventId, users: &HashSet<&str>) -> Result<Vec<Arc<Pdu>>> {
        let store = &self.cx.store;
        let groups = store.groups_of_events(&[event_id]).await?;
        let Some(group) = groups.get(event_id) else { return Ok(Vec::new()) };
        let users: Vec<&str> = users.iter().copied().collect();
        let ids = store.group_state_of_type(*group, "m.room.member", Some(&users)).await?;
        store.events_in_order(&ids).await
    }

    /// Retention as it limits what may be shown of a room.
    pub(crate) async fn look_at(&self, room_id: &RoomId) -> Result<Look<'static>> {
        let retention = &self.cx.config.rooms.retention;
        if !retention.enabled {
            return Ok(Look::default());
        }
        let event = self.current_event(room_id, "m.room.retention", "").await?;
        let own = event.and_then(|e| {
            let content: serde_json::Map<String, serde_json::Value> = e.content_as().ok()?;
            content.get("max_lifetime")?.as_i64()
        });
        let max = own.or(retention.default_max_lifetime_ms.map(|ms| ms as i64));
        let max = max.map(|ms| {
            let least = ms.max(retention.allowed_min_ms.map_or(i64::MIN, |m| m as i64));
            least.min(retention.allowed_max_ms.map_or(i64::MAX, |m| m as i64))
        });
        Ok(Look { max_lifetime_ms: max, ..Look::default() })
    }

    /// What happened around an event. None: no such event.
    pub async fn context(
        &self,
        who: &Requester,
        room_id: &RoomId,
        event_id: &EventId,
        limit: usize,
        filter: Option<&EventFilter>,
    ) -> Result<Option<Context>> {
        let Some(event) = self.known_event(room_id, event_id).await? else { return Ok(None) };
        let peeking = !self.is_joined(&who.user_id, room_id).await?;
        let look = Look { peeking, ..self.look_at(room_id).await? };
        let Some(visible) = self.is_visible(&who.user_id, event, look).await? else {
            return Err(Error::forbidden("You don't have permission to access that event."));
        };
        let Some(place) = self.cx.store.places(&[event_id]).await?.pop() else { return Ok(None) };
        let before_limit = limit / 2;
        let side = |dir, limit| self.side(room_id, &place, dir, limit, filter);
        let ((before, start), (after, end)) =
            futures::try_join!(side(Dir::Backwards, before_limit), side(Dir::Forwards, limit - before_limit))?;
        let (before, after) = futures::try_join!(
            self.filter_visible(&who.user_id, before, look),
            self.filter_visible(&who.user_id, after, look)
        )?;
        let last = after.last().map_or(event_id, |v| &v.event.event_id);
        let all: Vec<Visible> = before.iter().chain([&visible]).chain(&after).cloned().collect();
        let state = self.context_state(last, &all, filter).await?;
        let bundles = self.bundle(&who.user_id, &all).await?;
        let how = Render::for_user(who);
        Ok(Some(Context {
            events_before: self.render(&before, &bundles, how).await?,
            event: self.render_event(&visible, &bundles, how).await?,
            events_after: self.render(&after, &bundles, how).await?,
            state: self.render_state(&state, how)?,
            start: StreamToken::of_room(start).to_string(),
            end: StreamToken::of_room(end).to_string(),
        }))
    }

    /// Events on one side of a place, and the token where that side ends.
    pub(crate) async fn side(
        &self,
        room_id: &RoomId,
        at: &Place,
        dir: Dir,
        limit: usize,
        filter: Option<&EventFilter>,
    ) -> Result<(Vec<Arc<Pdu>>, RoomToken)> {
        // Backwards pages include what is at the token, so that one lies a step before the event.
        let depth = if dir == Dir::Backwards { at.depth - 1 } else { at.depth };
        let from = RoomToken::Topological { depth, stream: at.stream };
        let query = PageQuery { room_id: room_id.as_str(), dir, from: &from, to: None, limit, filter };
        let page = self.cx.store.page(&query).await?;
        let events = self.load_places(&page.events).await?;
        Ok((self.apply_filter(filter, events).await?, page.next))
    }

    async fn context_state(
        &self,
        last: &EventId,
        shown: &[Visible],
        filter: Option<&EventFilter>,
    ) -> Result<Vec<Arc<Pdu>>> {
        let mut state = self.state_after_event(last, Part::All).await?;
        if let Some(f) = filter {
            if f.lazy_load_members {
                let senders: HashSet<&str> = shown.iter().map(|v| v.event.sender.as_str()).collect();
                state.retain(|e| {
                    e.kind != "m.room.member" || e.state_key.as_deref().is_some_and(|k| senders.contains(k))
                });
            }
            state = self.apply_filter(Some(f), state).await?;
        }
        Ok(state)
    }

    /// The event nearest to a time in a direction. 404 if there is none.
    pub async fn event_near(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        at_ms: i64,
        dir: Dir,
    ) -> Result<(OwnedEventId, i64)> {
        self.check_may_look(user_id, room_id, false).await?;
        let found = self.cx.store.event_near(room_id.as_str(), at_ms, dir).await?;
        found.ok_or_else(|| Error::not_found(format!("Unable to find event from {at_ms} in direction {dir}")))
    }
}
