//! Timelines: what fits, what the filter wants, what the user may see.

use super::rooms::Entry;
use super::{Pass, live};
use ::rooms::{Look, Visible};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::sync_timeline::Stretch;
use types::{MultiToken, OwnedEventId, OwnedRoomId, Pdu, Result, RoomToken};

/// How often more is loaded for a room whose events the filter refuses.
const ROUNDS: usize = 5;

/// A room for which older events are loaded.
struct Loading {
    entry: usize,
    from: RoomToken,
    since: Option<MultiToken>,
    more: bool,
}

/// The part of a list that is there.
fn slice<'a, T>(list: &'a [T], part: &std::ops::Range<usize>) -> &'a [T] {
    &list[part.start.min(list.len())..part.end.min(list.len())]
}

impl Pass<'_> {
    /// Fills in timelines, `limited` and `prev_batch` of all entries.
    pub(super) async fn load_timelines(&self, entries: &mut [Entry]) -> Result<()> {
        let limit = self.timeline_limit();
        let blocked = self.rq.filter.timeline.refuses_everything();
        let gaps = self.gaps(entries).await?;
        let mut loading: Vec<Loading> = Vec::new();
        let mut known: Vec<(usize, Vec<Arc<Pdu>>)> = Vec::new();
        for (i, entry) in entries.iter_mut().enumerate() {
            let mut recents = entry.recents.take();
            entry.limited = entry.newly_joined || recents.as_ref().is_none_or(|r| r.len() > limit);
            let gap = gaps.get(&entry.room_id);
            if gap.is_some() {
                // What is before the gap must not be told as if nothing were missing.
                recents = None;
                entry.upto = self.now.clone();
                entry.limited = true;
            }
            if let Some(recents) = recents.filter(|r| !r.is_empty()) {
                known.push((i, recents));
            }
            if entry.limited && !blocked {
                let since = match (gap, &entry.since) {
                    (Some(gap), Some(_)) => Some(gap.clone()),
                    (None, Some(since)) if !entry.newly_joined => Some(live(&since.room)),
                    _ => None,
                };
                loading.push(Loading { entry: i, from: entry.upto.room.clone(), since, more: true });
            }
        }
        for (i, events) in self.visible(known).await? {
            entries[i].timeline = events;
        }
        let gappy: HashSet<usize> = loading.iter().map(|l| l.entry).collect();
        self.load_more(entries, loading, limit).await?;
        for (i, entry) in entries.iter_mut().enumerate() {
            self.cut(entry, limit, gappy.contains(&i), gaps.contains_key(&entry.room_id));
        }
        Ok(())
    }

    async fn load_more(&self, entries: &mut [Entry], mut loading: Vec<Loading>, limit: usize) -> Result<()> {
        let load_limit = (2 * limit).max(10);
        for _ in 0..ROUNDS {
            loading.retain(|l| l.more && entries[l.entry].timeline.len() < limit);
            if loading.is_empty() {
                break;
            }
            let stretch = |l: &Loading| Stretch {
                room_id: entries[l.entry].room_id.as_str(),
                upto: l.from.clone(),
                since: l.since.clone(),
            };
            let stretches: Vec<Stretch<'_>> = loading.iter().map(stretch).collect();
            let found = self.sync.cx.store.timelines(&stretches, load_limit).await?;
            for (l, found) in loading.iter_mut().zip(&found) {
                l.more = found.limited;
                if let Some(end) = &found.end {
                    l.from = end.clone();
                }
            }
            // Mostly the client may see all: then the newest of a page fill the timeline, and the rest is not looked at.
            for part in [0..limit + 1, limit + 1..usize::MAX] {
                let is_short = |l: &Loading| entries[l.entry].timeline.len() <= limit;
                let due = loading.iter().zip(&found).filter(|(l, _)| is_short(l));
                let pages = due.map(|(l, f)| (l.entry, slice(&f.events, &part))).filter(|(_, ids)| !ids.is_empty());
                self.add_older(entries, pages.collect()).await?;
            }
            // Whether the room has more than is shown is what the last page said.
            loading.iter().for_each(|l| entries[l.entry].limited = l.more);
        }
        Ok(())
    }

    /// Puts the visible ones of these events (newest first) before what their entries have.
    async fn add_older(&self, entries: &mut [Entry], pages: Vec<(usize, &[(OwnedEventId, i64)])>) -> Result<()> {
        let ids: Vec<&OwnedEventId> = pages.iter().flat_map(|(_, page)| page.iter().map(|(id, _)| id)).collect();
        let events = self.sync.cx.store.events(&ids).await?;
        let oldest_first =
            |page: &[(OwnedEventId, i64)]| page.iter().rev().filter_map(|(id, _)| events.get(id).cloned()).collect();
        let pages = pages.into_iter().map(|(i, page)| (i, oldest_first(page))).collect();
        for (i, mut older) in self.visible(pages).await? {
            older.append(&mut entries[i].timeline);
            entries[i].timeline = older;
        }
        Ok(())
    }

    /// Cuts a timeline to its limit and says where to go on backwards. `gappy`: it was clear from the start
    /// that not all can be told; then the place to go on from is where loading began.
    fn cut(&self, entry: &mut Entry, limit: usize, gappy: bool, gap: bool) {
        let too_many = gappy && entry.timeline.len() > limit;
        if too_many {
            entry.timeline.drain(..entry.timeline.len() - limit);
        }
        let first = entry.timeline.first().filter(|_| too_many || !gappy);
        let at = first.map_or_else(|| entry.upto.room.clone(), |v| RoomToken::live(v.event.stream() - 1));
        entry.prev_batch = self.at(&entry.upto, at);
        entry.limited = gappy && (entry.limited || too_many || entry.newly_joined || gap);
    }

    /// Applies the filter and history visibility to pages of several rooms at once.
    async fn visible(&self, pages: Vec<(usize, Vec<Arc<Pdu>>)>) -> Result<Vec<(usize, Vec<Visible>)>> {
        let filter = &self.rq.filter;
        let mut all: Vec<Arc<Pdu>> = Vec::new();
        let mut owner: HashMap<OwnedRoomId, usize> = HashMap::new();
        for (i, events) in pages {
            owner.extend(events.first().map(|e| (e.room_id.clone(), i)));
            for event in events {
                let wanted = filter.room.allows_room(event.room_id.as_str()) && filter.timeline.allows(&event);
                if wanted && event.rejected.is_none() {
                    all.push(event);
                }
            }
        }
        if filter.timeline.has_relation_filter() && !all.is_empty() {
            let ids: Vec<&str> = all.iter().map(|e| e.event_id.as_str()).collect();
            let (senders, types) = (&filter.timeline.related_by_senders, &filter.timeline.related_by_rel_types);
            let related = self.sync.cx.store.with_relations(&ids, senders.as_deref(), types.as_deref()).await?;
            let related: HashSet<OwnedEventId> = related.into_iter().collect();
            all.retain(|e| related.contains(&e.event_id));
        }
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let current = self.current_among(&all).await?;
        let look = Look { always: Some(&current), ..Look::default() };
        let shown = self.sync.rooms.filter_visible(&self.rq.who.user_id, all, look).await?;
        let mut by_entry: HashMap<usize, Vec<Visible>> = HashMap::new();
        for v in shown {
            if let Some(i) = owner.get(&v.event.room_id) {
                by_entry.entry(*i).or_default().push(v);
            }
        }
        Ok(by_entry.into_iter().collect())
    }

    /// State events that are current are shown whatever the history visibility.
    async fn current_among(&self, events: &[Arc<Pdu>]) -> Result<HashSet<OwnedEventId>> {
        let state: Vec<&Pdu> = events.iter().map(|e| &**e).filter(|e| e.is_state()).collect();
        self.sync.cx.store.in_current_state(&state).await
    }

    async fn gaps(&self, entries: &[Entry]) -> Result<HashMap<String, MultiToken>> {
        let rooms: Vec<&str> = entries.iter().map(|e| e.room_id.as_str()).collect();
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let since = self.since.map(|s| live(&s.room));
        self.sync.cx.store.timeline_gaps(&rooms, since.as_ref(), &self.now_room).await
    }
}
