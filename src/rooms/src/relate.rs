//! `/relations` and `/threads`.

use crate::history::Paging;
use crate::{Look, Render, Rooms};
use ruma::{EventId, OwnedEventId, RoomId};
use serde::Serialize;
use serde_json::value::RawValue;
use store::pages::Bound;
use store::relations::{Related, RelationQuery};
use types::{Error, Requester, Result, StreamToken};

/// Which relations of an event.
#[derive(Clone, Debug)]
pub struct Relations<'a> {
    pub parent: &'a EventId,
    pub rel_type: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub paging: Paging,
    pub recurse: bool,
    /// The unstable endpoint answers with the parent, too.
    pub with_original: bool,
}

/// Body of `/relations`.
#[derive(Debug, Serialize)]
pub struct RelationsPage {
    pub chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursion_depth: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_event: Option<Box<RawValue>>,
}

/// Body of `/threads`.
#[derive(Debug, Serialize)]
pub struct ThreadsPage {
    pub chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

impl Rooms {
    /// Events that relate to an event.
    pub async fn relations(&self, who: &Requester, room_id: &RoomId, q: &Relations<'_>) -> Result<RelationsPage> {
        let access = self.check_may_look(&who.user_id, room_id, true).await?;
        let parent = self.event_for(&who.user_id, room_id, q.parent).await?;
        let parent = parent.ok_or_else(|| Error::client(404, "M_UNKNOWN", "Unknown parent event."))?;
        let p = &q.paging;
        let mut related = self
            .cx
            .store
            .relations_of(&RelationQuery {
                room_id: room_id.as_str(),
                parent: q.parent.as_str(),
                rel_type: q.rel_type,
                kind: q.kind,
                dir: p.dir,
                from: p.from.as_ref().map(|t| Bound::from(&t.room, p.dir)),
                to: p.to.as_ref().map(|t| Bound::to(&t.room, p.dir)),
                limit: p.limit as i64,
                recurse: q.recurse,
            })
            .await?;
        if parent.event.redacted_because.is_some() {
            // Edits of what was redacted stay hidden.
            related.retain(|r| r.rel_type != "m.replace");
        }
        let next_batch = self.next_of(p, &mut related);
        let ids: Vec<&OwnedEventId> = related.iter().map(|r| &r.event_id).collect();
        let events = self.cx.store.events_in_order(&ids).await?;
        let look = Look { peeking: access.is_peeking(), ..self.look_at(room_id).await? };
        let shown = self.filter_visible(&who.user_id, events, look).await?;
        let bundles = self.bundle(&who.user_id, &shown).await?;
        let how = Render::for_user(who);
        let original = match q.with_original {
            true => Some(self.render_event(&parent, &Default::default(), how).await?),
            false => None,
        };
        Ok(RelationsPage {
            chunk: self.render(&shown, &bundles, how).await?,
            next_batch,
            prev_batch: p.from.as_ref().map(StreamToken::to_string),
            recursion_depth: q.recurse.then_some(3),
            original_event: original,
        })
    }

    fn next_of(&self, p: &Paging, related: &mut Vec<Related>) -> Option<String> {
        if related.len() <= p.limit {
            return None;
        }
        related.truncate(p.limit);
        let room =
            related.last().map_or_else(Default::default, |last| Bound::after_page(p.dir, last.depth, last.stream));
        Some(StreamToken { room, ..p.from.clone().unwrap_or_default() }.to_string())
    }

    /// Thread roots of a room, by their latest reply. `from`: `<depth>_<stream>` of an earlier answer.
    pub async fn threads(
        &self,
        who: &Requester,
        room_id: &RoomId,
        participated: bool,
        limit: usize,
        from: Option<(i64, i64)>,
    ) -> Result<ThreadsPage> {
        let access = self.check_may_look(&who.user_id, room_id, true).await?;
        let mut roots = self.cx.store.threads_of_room(room_id.as_str(), limit as i64 + 1, from).await?;
        let more = roots.len() > limit;
        roots.truncate(limit);
        let next_batch = roots.last().filter(|_| more).map(|(_, depth, stream)| format!("{depth}_{stream}"));
        let ids: Vec<&OwnedEventId> = roots.iter().map(|(id, _, _)| id).collect();
        let events = self.cx.store.events_in_order(&ids).await?;
        let look = Look { peeking: access.is_peeking(), ..self.look_at(room_id).await? };
        let mut shown = self.filter_visible(&who.user_id, events, look).await?;
        let bundles = self.bundle(&who.user_id, &shown).await?;
        if participated {
            let wrote_in =
                |id: &OwnedEventId| bundles.get(id).and_then(|b| b.thread.as_ref()).is_some_and(|t| t.participated);
            shown.retain(|v| v.event.sender == who.user_id || wrote_in(&v.event.event_id));
        }
        // Rendered for nobody in particular, as Synapse does: without transaction ids.
        let chunk = self.render(&shown, &bundles, Render::default()).await?;
        Ok(ThreadsPage { chunk, next_batch })
    }
}
