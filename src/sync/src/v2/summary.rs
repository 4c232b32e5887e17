//! Room summaries for clients that load members lazily.

use super::Pass;
use super::answer::Summary;
use super::rooms::Entry;
use std::collections::HashMap;
use std::sync::Arc;
use store::membership_for_user::RoomSummary;
use types::{OwnedEventId, Pdu, Result};

const MEMBER: &str = "m.room.member";

/// Up to five members that stand for the room: joined, then invited; else those who left.
fn heroes<'a>(summary: &'a RoomSummary, me: &str) -> Vec<(&'a str, &'a OwnedEventId)> {
    let with = |wanted: &'static [&'static str]| {
        wanted.iter().flat_map(move |w| {
            summary.members.iter().filter(move |(u, m, _)| m == w && u != me).map(|(u, _, id)| (u.as_str(), id))
        })
    };
    let present: Vec<_> = with(&["join", "invite"]).take(5).collect();
    if present.is_empty() { with(&["leave", "ban"]).take(5).collect() } else { present }
}

impl Pass<'_> {
    /// Adds summaries where members may have changed, and the heroes' membership events if needed.
    pub(super) async fn add_summaries(&self, entries: &mut [Entry]) -> Result<()> {
        if !self.rq.filter.lazy_load_members() {
            return Ok(());
        }
        let has_member = |events: &[Arc<Pdu>]| events.iter().any(|e| e.kind == MEMBER);
        let due: Vec<usize> = (0..entries.len())
            .filter(|i| {
                let e = &entries[*i];
                let in_timeline = e.timeline.iter().any(|v| v.event.kind == MEMBER);
                !e.out_of_band && (in_timeline || (e.limited && has_member(&e.state)) || e.since.is_none())
            })
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let rooms: Vec<&str> = due.iter().map(|i| entries[*i].room_id.as_str()).collect();
        let store = &self.sync.cx.store;
        let (summaries, named) = futures::try_join!(store.room_summaries(&rooms), self.named(&rooms))?;
        let mut missing: Vec<(usize, OwnedEventId)> = Vec::new();
        for i in due {
            let entry = &mut entries[i];
            let Some(found) = summaries.get(&entry.room_id) else { continue };
            let mut summary =
                Summary { heroes: None, joined: Some(found.count("join")), invited: Some(found.count("invite")) };
            if !named.contains(&entry.room_id) {
                let heroes = heroes(found, self.user);
                summary.heroes = Some(heroes.iter().map(|(u, _)| (*u).to_owned()).collect());
                missing.extend(self.untold(entry, &heroes).into_iter().map(|id| (i, id)));
            }
            entry.summary = Some(summary);
        }
        let events = store.events(&missing.iter().map(|(_, id)| id).collect::<Vec<_>>()).await?;
        for (i, id) in missing {
            entries[i].state.extend(events.get(&id).cloned());
        }
        Ok(())
    }

    /// Heroes whose membership the client does not know.
    fn untold(&self, entry: &Entry, heroes: &[(&str, &OwnedEventId)]) -> Vec<OwnedEventId> {
        let told = self.sync.live.lazy.of(self.user, self.rq.who.device_id.as_deref());
        let mut told = told.lock().unwrap_or_else(|e| e.into_inner());
        let is_shown = |user: &str| {
            let timeline = entry.timeline.iter().map(|v| &v.event);
            entry.state.iter().chain(timeline).any(|e| e.is_state_of(MEMBER, user))
        };
        let mut out = Vec::new();
        for (user, id) in heroes {
            if !is_shown(user) && !told.was_sent(user, id) {
                told.mark(user, (*id).clone(), &self.now_room);
                out.push((*id).clone());
            }
        }
        out
    }

    /// Rooms with a name or canonical alias: they need no heroes.
    async fn named(&self, rooms: &[&str]) -> Result<Vec<String>> {
        let store = &self.sync.cx.store;
        let states = store.current_states(rooms).await?;
        let keys = [("m.room.name", "name"), ("m.room.canonical_alias", "alias")];
        let mut ids: HashMap<OwnedEventId, (&str, &String)> = HashMap::new();
        for (room, state) in &states {
            for (kind, field) in keys {
                if let Some(id) = state.get(&(kind.to_owned(), String::new())) {
                    ids.insert(id.clone(), (field, room));
                }
            }
        }
        let events = store.events(&ids.keys().collect::<Vec<_>>()).await?;
        let has = |id: &OwnedEventId, field: &str| {
            events.get(id).and_then(|e| e.content_str(field)).is_some_and(|v| !v.is_empty())
        };
        Ok(ids.iter().filter(|(id, (field, _))| has(id, field)).map(|(_, (_, room))| (*room).clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heroes_are_others_who_are_there() {
        let id = |n: usize| OwnedEventId::try_from(format!("${n}")).unwrap();
        let member = |n: usize, m: &str| (format!("@{n}:a"), m.to_owned(), id(n));
        let members = vec![member(0, "join"), member(1, "join"), member(2, "invite"), member(3, "leave")];
        let mut summary = RoomSummary { members, ..Default::default() };
        let names = |s: &RoomSummary, me: &str| heroes(s, me).iter().map(|(u, _)| u.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&summary, "@0:a"), ["@1:a", "@2:a"]);
        summary.members = vec![member(0, "join"), member(3, "leave"), member(4, "ban")];
        assert_eq!(names(&summary, "@0:a"), ["@3:a", "@4:a"]);
    }
}
