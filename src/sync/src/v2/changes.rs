//! Which rooms to tell of, and as what.

use super::rooms::{Entry, Extras, Sorted};
use super::{Pass, live};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use store::sync_timeline::Stretch;
use types::{OwnedEventId, Pdu, Result, RoomToken, StreamToken};

fn is(event: &Pdu, membership: &str) -> bool {
    event.membership().as_deref() == Some(membership)
}

impl Pass<'_> {
    /// Everything, for a client that knows nothing.
    pub(super) async fn all_rooms(&self) -> Result<Sorted> {
        let store = &self.sync.cx.store;
        let wanted = ["join", "invite", "knock", "leave", "ban"];
        let rooms = store.rooms_of_user(self.user, &wanted).await?;
        let ignored = store.ignored_by(self.user).await?;
        let mut sorted = Sorted::default();
        let mut shown: Vec<OwnedEventId> = Vec::new();
        for room in rooms {
            let known = room.room_version.as_deref().is_none_or(|v| {
                types::RoomVersionId::try_from(v).is_ok_and(|v| types::room_version::rules(&v).is_some())
            });
            if !known || self.excluded.contains(&room.room_id) {
                continue;
            }
            match room.membership.as_str() {
                "join" => {
                    let mut entry = Entry::new(room.room_id, true, None, self.now.clone(), self.now_room.clone());
                    entry.full_state = true;
                    sorted.entries.push(entry);
                }
                "invite" if ignored.contains(&room.sender) => {}
                "invite" | "knock" => shown.push(room.event_id),
                _ => {
                    // Those who were thrown out are told so; those who went know.
                    let went = room.membership == "leave" && room.sender == self.user;
                    if went && !self.rq.filter.include_leave {
                        continue;
                    }
                    let at = types::MultiToken::at(room.stream);
                    let upto = self.at(&self.now, RoomToken::Live(at.clone()));
                    let mut entry = Entry::new(room.room_id, false, None, upto, at);
                    entry.full_state = true;
                    entry.end_event = Some(room.event_id);
                    sorted.entries.push(entry);
                }
            }
        }
        for event in store.events_in_order(&shown).await? {
            if is(&event, "invite") { sorted.invited.push(event) } else { sorted.knocked.push(event) }
        }
        Ok(sorted)
    }

    /// What changed since the token.
    pub(super) async fn changed_rooms(&self, since: &StreamToken, extras: &Extras) -> Result<Sorted> {
        let mut sorted = Sorted::default();
        self.sort_moves(since, &mut sorted).await?;
        let store = &self.sync.cx.store;
        let since_room = live(&since.room);
        let newly: HashSet<&String> = sorted.newly_joined.iter().collect();
        let relevant: Vec<&String> = self
            .joined
            .iter()
            .filter(|r| {
                self.rq.full_state
                    || extras.has(r)
                    || newly.contains(r)
                    || store.changed.rooms.since(r, since_room.stream)
            })
            .collect();
        let changed: Vec<&String> =
            relevant.iter().copied().filter(|r| store.changed.rooms.since(r, since_room.stream)).collect();
        let recents = self.recent_events(since, &changed).await?;
        for room in relevant {
            let newly_joined = newly.contains(room);
            let mut entry = match recents.get(room) {
                Some((events, start)) => {
                    let upto = self.at(&self.now, start.clone());
                    let since = (!newly_joined).then(|| since.clone());
                    let mut entry = Entry::new(room.clone(), true, since, upto, self.now_room.clone());
                    entry.recents = Some(events.clone());
                    entry
                }
                None => {
                    let mut entry =
                        Entry::new(room.clone(), true, Some(since.clone()), since.clone(), self.now_room.clone());
                    entry.recents = Some(Vec::new());
                    entry
                }
            };
            entry.newly_joined = newly_joined;
            entry.full_state = newly_joined || self.rq.full_state;
            let quiet = entry.recents.as_ref().is_some_and(Vec::is_empty);
            if !(quiet && !entry.full_state && !extras.has(room)) {
                sorted.entries.push(entry);
            }
        }
        Ok(sorted)
    }

    /// Events since the token in rooms that changed, oldest first, and the position before them. One more
    /// than fits tells that there are more.
    async fn recent_events(
        &self,
        since: &StreamToken,
        rooms: &[&String],
    ) -> Result<HashMap<String, (Vec<Arc<Pdu>>, RoomToken)>> {
        let store = &self.sync.cx.store;
        let limit = self.timeline_limit() + 1;
        let (since_room, upto) = (live(&since.room), RoomToken::Live(self.now_room.clone()));
        if rooms.is_empty() || since_room == self.now_room {
            return Ok(HashMap::new());
        }
        let mut stretches: Vec<Stretch<'_>> = Vec::with_capacity(rooms.len());
        for room_id in rooms {
            stretches.push(Stretch { room_id, upto: upto.clone(), since: Some(since_room.clone()) });
        }
        let found = store.timelines(&stretches, limit).await?;
        let ids: Vec<&OwnedEventId> = found.iter().flat_map(|f| f.events.iter().map(|(id, _)| id)).collect();
        let events = store.events(&ids).await?;
        let mut recents = HashMap::new();
        for (room, found) in rooms.iter().zip(found) {
            if found.events.is_empty() {
                continue;
            }
            let in_order = found.events.iter().rev().filter_map(|(id, _)| events.get(id));
            let list: Vec<Arc<Pdu>> = in_order.filter(|e| e.rejected.is_none()).cloned().collect();
            let start = found.end.unwrap_or_else(|| RoomToken::Live(since_room.clone()));
            recents.insert((*room).clone(), (list, start));
        }
        Ok(recents)
    }

    /// Own memberships that changed: rooms joined, left, and invites and knocks.
    async fn sort_moves(&self, since: &StreamToken, sorted: &mut Sorted) -> Result<()> {
        let mut by_room: BTreeMap<&str, Vec<&Arc<Pdu>>> = BTreeMap::new();
        for event in &self.moves {
            by_room.entry(event.room_id.as_str()).or_default().push(event);
        }
        if by_room.is_empty() {
            return Ok(());
        }
        let ignored = self.sync.cx.store.ignored_by(self.user).await?;
        let was_joined = self.joined_at(since, &by_room).await?;
        for (room, events) in by_room {
            let is_joined = self.joined.iter().any(|r| r == room);
            let others: Vec<&Arc<Pdu>> = events.iter().filter(|e| !is(e, "join")).copied().collect();
            let has_join = others.len() != events.len();
            let newly_joined = if is_joined && !others.is_empty() {
                // Left and came back: told anew.
                true
            } else {
                (is_joined || has_join) && !was_joined.contains(room)
            };
            if newly_joined {
                sorted.newly_joined.push(room.to_owned());
            }
            let Some(last) = others.last().filter(|_| !is_joined) else { continue };
            if !events.last().is_some_and(|e| is(e, "join")) && (has_join || was_joined.contains(room)) {
                sorted.newly_left.push(room.to_owned());
            }
            if is(last, "invite") && !ignored.contains(last.sender.as_str()) {
                sorted.invited.push((*last).clone());
            }
            if is(last, "knock") {
                sorted.knocked.push((*last).clone());
            }
            let gone = others.iter().rev().find(|e| is(e, "leave") || is(e, "ban"));
            if let Some(leave) = gone {
                sorted.entries.push(self.left(since, leave, newly_joined));
            }
        }
        Ok(())
    }

    /// A room left since the token.
    fn left(&self, since: &StreamToken, leave: &Arc<Pdu>, newly_joined: bool) -> Entry {
        let at = types::MultiToken::at(leave.stream());
        let upto = self.at(since, RoomToken::Live(at.clone()));
        let mut entry = Entry::new(leave.room_id.to_string(), false, Some(since.clone()), upto, at);
        entry.end_event = Some(leave.event_id.clone());
        entry.newly_joined = newly_joined;
        entry.full_state = newly_joined || self.rq.full_state;
        entry.out_of_band = leave.meta.out_of_band_membership;
        // The rest of such a room is not known here.
        entry.recents = entry.out_of_band.then(|| vec![leave.clone()]);
        entry
    }

    /// Rooms among those that moved in which the user was joined at the token.
    async fn joined_at(
        &self,
        since: &StreamToken,
        by_room: &BTreeMap<&str, Vec<&Arc<Pdu>>>,
    ) -> Result<HashSet<String>> {
        let store = &self.sync.cx.store;
        let since = live(&since.room);
        let rooms: Vec<_> = by_room.keys().map(|r| (*r, &since)).collect();
        let last = store.last_events_before(&rooms).await?;
        let ids: Vec<&OwnedEventId> = last.values().collect();
        let states = store.states_after(&ids).await?;
        let key = ("m.room.member".to_owned(), self.user.to_owned());
        let member = |id: &OwnedEventId| states.get(id).and_then(|s| s.get(&key)).cloned();
        let members: HashMap<&String, OwnedEventId> =
            last.iter().filter_map(|(room, id)| Some((room, member(id)?))).collect();
        let events = store.events(&members.values().collect::<Vec<_>>()).await?;
        let joined = members.into_iter().filter(|(_, id)| events.get(id).is_some_and(|e| is(e, "join")));
        Ok(joined.map(|(room, _)| room.clone()).collect())
    }

    pub(super) fn timeline_limit(&self) -> usize {
        self.rq.filter.timeline_limit(self.sync.cx.config.server.filter_timeline_limit)
    }
}
