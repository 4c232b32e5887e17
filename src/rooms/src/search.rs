//! Searching messages (spec: "Server Side Search").

use crate::{Bundles, Render, Rooms, Visible};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::stream::{StreamExt, TryStreamExt};
use ruma::{OwnedEventId, OwnedRoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use store::pages::Dir;
use store::search::{Hit, Search};
use types::filter::EventFilter;
use types::{Error, Pdu, Requester, Result, StreamToken};

/// Order of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    #[default]
    Rank,
    Recent,
}

/// What results are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    RoomId,
    Sender,
}

/// How much is told of what was said around each result.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Around {
    pub before_limit: usize,
    pub after_limit: usize,
    pub include_profile: bool,
}

impl Default for Around {
    fn default() -> Self {
        Self { before_limit: 5, after_limit: 5, include_profile: false }
    }
}

/// A search.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub term: String,
    /// Of `content.body`, `content.name`, `content.topic`.
    pub keys: Vec<String>,
    pub filter: EventFilter,
    pub order: Order,
    pub include_state: bool,
    pub groups: Vec<Group>,
    pub around: Option<Around>,
    pub batch: Option<Batch>,
}

/// Where a search by time goes on, as in the token `next_batch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `room_id` with a room, or `all` without.
    group: String,
    key: String,
    /// Older than this: milliseconds, stream ordering.
    before: (i64, i64),
}

impl Batch {
    /// Reads a token; 400 if it is none of ours.
    pub fn parse(token: &str) -> Result<Self> {
        let parse = || {
            let text = String::from_utf8(STANDARD_NO_PAD.decode(token.trim_end_matches('=')).ok()?).ok()?;
            let mut parts = text.split('\n');
            let (group, key, place) = (parts.next()?, parts.next()?, parts.next()?);
            let (at, stream) = place.split_once(',')?;
            let before = (at.parse().ok()?, stream.parse().ok()?);
            parts.next().is_none().then(|| Self { group: group.into(), key: key.into(), before })
        };
        parse().ok_or_else(|| Error::bad_request("next_batch: invalid batch"))
    }

    fn token(group: &str, key: &str, before: (i64, i64)) -> String {
        STANDARD_NO_PAD.encode(format!("{group}\n{key}\n{},{}", before.0, before.1))
    }

    fn room(&self) -> Option<&str> {
        (self.group == "room_id").then_some(self.key.as_str())
    }
}

/// Results a search may have at once.
const MOST: i64 = 500;
/// Pages of matches that are looked through for visible ones.
const ROUNDS: usize = 5;
/// Results whose surroundings are read side by side.
const AT_ONCE: usize = 4;
/// Events on each side of a result at most.
const MOST_AROUND: usize = 100;

/// Body of the answer for `room_events`.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    count: i64,
    highlights: BTreeSet<String>,
    results: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// Results that the user may see.
#[derive(Default)]
struct Found {
    events: Vec<(Visible, f64)>,
    highlights: BTreeSet<String>,
    /// There may be more, older than this.
    more: Option<(i64, i64)>,
}

/// What surrounds a result.
struct Surroundings {
    before: Vec<Visible>,
    after: Vec<Visible>,
    start: String,
    end: String,
    profiles: Option<Map<String, Value>>,
}

impl Rooms {
    /// Searches the rooms a user is in.
    pub async fn search(&self, who: &Requester, wanted: &Wanted) -> Result<Answer> {
        let rooms = self.searched_rooms(&who.user_id, wanted).await?;
        if rooms.is_empty() {
            return Ok(Answer::default());
        }
        let search = Search { term: &wanted.term, rooms: &rooms, keys: &wanted.keys };
        let limit = wanted.filter.limit.unwrap_or(10).clamp(1, MOST);
        let find = async {
            match wanted.order {
                Order::Rank => self.best(&who.user_id, search, wanted, limit as usize).await,
                Order::Recent => self.newest(&who.user_id, search, wanted, limit as usize).await,
            }
        };
        let (found, count) = futures::try_join!(find, self.cx.store.count_matches(search))?;
        let mut answer = Answer { count, highlights: found.highlights.clone(), ..Answer::default() };
        answer.results = self.render_results(who, &found, wanted.around.as_ref()).await?;
        if wanted.include_state {
            answer.state = self.states_of(who, &found).await?;
        }
        answer.groups = groups(&found, wanted);
        let (group, key) = wanted.batch.as_ref().map_or(("all", ""), |b| (&b.group, &b.key));
        answer.next_batch = found.more.map(|before| Batch::token(group, key, before));
        Ok(answer)
    }

    /// Joined rooms that the filter lets through, with the joined ones among those they replaced.
    async fn searched_rooms(&self, user_id: &UserId, wanted: &Wanted) -> Result<Vec<String>> {
        let mut filter = wanted.filter.clone();
        if let Some(named) = &mut filter.rooms {
            let mut latest = named.clone();
            while !latest.is_empty() {
                latest = self.cx.store.predecessors_of(&latest).await?;
                latest.retain(|room| !named.contains(room));
                named.extend(latest.iter().cloned());
            }
        }
        let joined = self.cx.store.joined_rooms(user_id.as_str()).await?;
        let batch = wanted.batch.as_ref().and_then(Batch::room);
        let rooms = joined.iter().map(|r| r.as_str());
        Ok(rooms.filter(|r| filter.allows_room(r) && batch.is_none_or(|b| b == *r)).map(str::to_owned).collect())
    }

    async fn best(&self, user_id: &UserId, search: Search<'_>, wanted: &Wanted, limit: usize) -> Result<Found> {
        let hits = self.cx.store.best_matches(search).await?;
        let mut found = Found::default();
        self.take_visible(user_id, search, wanted, &hits, &mut found).await?;
        found.events.sort_by(|a, b| b.1.total_cmp(&a.1));
        found.events.truncate(limit);
        Ok(found)
    }

    async fn newest(&self, user_id: &UserId, search: Search<'_>, wanted: &Wanted, limit: usize) -> Result<Found> {
        let page = limit * 2;
        let mut found = Found::default();
        let mut before = wanted.batch.as_ref().map(|b| b.before);
        let mut places: HashMap<OwnedEventId, (i64, i64)> = HashMap::new();
        for _ in 0..ROUNDS {
            let hits = self.cx.store.newest_matches(search, before, page as i64).await?;
            places.extend(hits.iter().filter_map(|h| Some((h.event_id.clone(), (h.at_ms?, h.stream?)))));
            self.take_visible(user_id, search, wanted, &hits, &mut found).await?;
            before = hits.last().and_then(|h| Some((h.at_ms?, h.stream?)));
            if found.events.len() >= limit || hits.len() < page || before.is_none() {
                break;
            }
        }
        if found.events.len() >= limit {
            found.events.truncate(limit);
            found.more = found.events.last().and_then(|(v, _)| places.get(&v.event.event_id).copied());
        }
        Ok(found)
    }

    /// Adds those of the matches that the filter and the history's visibility let through; redacted ones are not
    /// shown, or the search would tell what they said.
    async fn take_visible(
        &self,
        user_id: &UserId,
        search: Search<'_>,
        wanted: &Wanted,
        hits: &[Hit],
        found: &mut Found,
    ) -> Result<()> {
        let ids: Vec<&OwnedEventId> = hits.iter().map(|h| &h.event_id).collect();
        let mut events = self.cx.store.events_in_order(&ids).await?;
        events.retain(|e| e.redacted_because.is_none() && e.rejected.is_none());
        let texts: Vec<String> = events.iter().filter_map(|e| searched_text(e)).collect();
        found.highlights.extend(self.cx.store.highlights(search.term, &texts).await?);
        let events = self.apply_filter(Some(&wanted.filter), events).await?;
        let visible = self.filter_visible(user_id, events, crate::Look::default()).await?;
        let ranks: HashMap<&OwnedEventId, f64> = hits.iter().map(|h| (&h.event_id, h.rank)).collect();
        found.events.extend(visible.into_iter().map(|v| {
            let rank = ranks.get(&v.event.event_id).copied().unwrap_or_default();
            (v, rank)
        }));
        Ok(())
    }

    async fn render_results(&self, who: &Requester, found: &Found, around: Option<&Around>) -> Result<Vec<Value>> {
        let surroundings: Vec<Option<Surroundings>> = match around {
            None => found.events.iter().map(|_| None).collect(),
            Some(around) => {
                let each = found.events.iter().map(|(v, _)| self.surroundings(&who.user_id, v, around));
                let each: Vec<_> = each.collect();
                futures::stream::iter(each).buffered(AT_ONCE).map_ok(Some).try_collect().await?
            }
        };
        let around = surroundings.iter().flatten().flat_map(|s| s.before.iter().chain(&s.after));
        let all: Vec<Visible> = found.events.iter().map(|(v, _)| v).chain(around).cloned().collect();
        let bundles = self.bundle(&who.user_id, &all).await?;
        let mut results = Vec::with_capacity(found.events.len());
        for ((event, rank), surroundings) in found.events.iter().zip(&surroundings) {
            let context = match surroundings {
                Some(s) => self.render_surroundings(who, s, &bundles).await?,
                None => json!({}),
            };
            let result = self.render_event(event, &bundles, Render::for_user(who)).await?;
            results.push(json!({"rank": rank, "result": result, "context": context}));
        }
        Ok(results)
    }

    async fn surroundings(&self, user_id: &UserId, of: &Visible, around: &Around) -> Result<Surroundings> {
        let event = &of.event;
        let place = self.cx.store.places(&[&event.event_id]).await?.pop();
        let place = place.ok_or_else(|| Error::internal(format!("{} was found but has no place", event.event_id)))?;
        let side = |dir, limit: usize| self.side(&event.room_id, &place, dir, limit.min(MOST_AROUND), None);
        let ((before, start), (after, end)) =
            futures::try_join!(side(Dir::Backwards, around.before_limit), side(Dir::Forwards, around.after_limit))?;
        let look = crate::Look::default();
        let (before, after) =
            futures::try_join!(self.filter_visible(user_id, before, look), self.filter_visible(user_id, after, look))?;
        let profiles = if around.include_profile {
            let shown = before.iter().chain([of]).chain(&after);
            let senders: HashSet<&str> = shown.map(|v| v.event.sender.as_str()).collect();
            let last = after.last().unwrap_or(of);
            Some(profiles(&self.members_after(&last.event.event_id, &senders).await?))
        } else {
            None
        };
        let (start, end) = (StreamToken::of_room(start).to_string(), StreamToken::of_room(end).to_string());
        Ok(Surroundings { before, after, start, end, profiles })
    }

    async fn render_surroundings(&self, who: &Requester, s: &Surroundings, bundles: &Bundles) -> Result<Value> {
        let how = Render::for_user(who);
        let mut context = json!({
            "events_before": self.render(&s.before, bundles, how).await?,
            "events_after": self.render(&s.after, bundles, how).await?,
            "start": s.start,
            "end": s.end,
        });
        if let Some(profiles) = &s.profiles {
            context["profile_info"] = profiles.clone().into();
        }
        Ok(context)
    }

    /// Current state of the rooms of the results.
    async fn states_of(
        &self,
        who: &Requester,
        found: &Found,
    ) -> Result<Option<BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>>> {
        let rooms: HashSet<&str> = found.events.iter().map(|(v, _)| v.event.room_id.as_str()).collect();
        let rooms: Vec<&str> = rooms.into_iter().collect();
        let states = self.cx.store.current_states(&rooms).await?;
        let ids: Vec<&OwnedEventId> = states.values().flat_map(|s| s.values()).collect();
        let mut by_room: BTreeMap<OwnedRoomId, Vec<Arc<Pdu>>> = BTreeMap::new();
        for event in self.cx.store.events(&ids).await?.into_values() {
            by_room.entry(event.room_id.clone()).or_default().push(event);
        }
        let render = |(room, events): (OwnedRoomId, Vec<Arc<Pdu>>)| {
            Ok((room, self.render_state(&events, Render::for_user(who))?))
        };
        let states: BTreeMap<_, _> = by_room.into_iter().map(render).collect::<Result<_>>()?;
        Ok((!states.is_empty()).then_some(states))
    }
}

/// What the index holds of an event.
fn searched_text(event: &Pdu) -> Option<String> {
    let content: Map<String, Value> = event.content_as().ok()?;
    let texts: Vec<&str> = ["body", "name", "topic"].iter().filter_map(|k| content.get(*k)?.as_str()).collect();
    (!texts.is_empty()).then(|| types::json::strip_nul(&texts.join(" ")).into_owned())
}

fn profiles(members: &[Arc<Pdu>]) -> Map<String, Value> {
    let profile = |e: &Arc<Pdu>| {
        let profile = json!({"displayname": e.content_str("displayname"), "avatar_url": e.content_str("avatar_url")});
        Some((e.state_key.clone()?, profile))
    };
    members.iter().filter_map(profile).collect()
}

/// Results by room, and (ordered by rank) by sender; None if nothing was found or no groups are wanted.
fn groups(found: &Found, wanted: &Wanted) -> Option<Map<String, Value>> {
    let mut groups = Map::new();
    for group in &wanted.groups {
        let (name, by): (_, fn(&Pdu) -> &str) = match group {
            Group::RoomId => ("room_id", |e| e.room_id.as_str()),
            Group::Sender if wanted.order == Order::Rank => ("sender", |e| e.sender.as_str()),
            Group::Sender => continue,
        };
        let mut members: Map<String, Value> = Map::new();
        for (v, rank) in &found.events {
            let key = by(&v.event);
            let entry = members.entry(key).or_insert_with(|| match (wanted.order, found.more) {
                (Order::Rank, _) => json!({"results": [], "order": rank}),
                (Order::Recent, None) => json!({"results": []}),
                (Order::Recent, Some(more)) => json!({"results": [], "next_batch": Batch::token(name, key, more)}),
            });
            if let Some(results) = entry["results"].as_array_mut() {
                results.push(v.event.event_id.as_str().into());
            }
        }
        if !members.is_empty() {
            groups.insert(name.into(), members.into());
        }
    }
    (!groups.is_empty()).then_some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_synapses() {
        let token = Batch::token("room_id", "!r:s", (1700, 12));
        assert_eq!(token, "cm9vbV9pZAohcjpzCjE3MDAsMTI");
        let batch = Batch::parse(&token).unwrap();
        assert_eq!(batch, Batch { group: "room_id".into(), key: "!r:s".into(), before: (1700, 12) });
        assert_eq!(batch.room(), Some("!r:s"));
        assert_eq!(Batch::parse(&Batch::token("all", "", (1, 2))).unwrap().room(), None);
        for bad in ["", "%%", "YWxs", "YWxsCgp4"] {
            assert!(Batch::parse(bad).is_err(), "{bad}");
        }
    }
}
