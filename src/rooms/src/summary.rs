//! Room summaries and the hierarchy of spaces (spec: "Spaces").

use crate::Rooms;
use crate::access::{CurrentEvents, by_key};
use crate::restricted;
use crate::visibility::history_visibility;
use ruma::{RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use types::{Error, Pdu, Result, credentials};

/// Most rooms a page of a hierarchy may hold, and most children a space is followed to.
const MAX_ROOMS: usize = 50;
const MAX_CHILDREN: usize = 50;

/// Kind and lifetime of what is kept between pages.
const SESSION: &str = "room_hierarchy_pagination";
const SESSION_MS: i64 = 5 * 60 * 1000;

/// Which part of a hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy<'a> {
    pub room_id: &'a RoomId,
    pub suggested_only: bool,
    pub max_depth: Option<i64>,
    pub limit: Option<i64>,
    pub from: Option<&'a str>,
}

/// A room still to be visited: id, servers to ask, depth, what another server told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Queued(String, Vec<String>, i64, Option<Value>);

/// What is kept between pages; keys as in Synapse, which may serve the next one.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    requester: String,
    room_id: String,
    suggested_only: bool,
    max_depth: Option<i64>,
    omit_remote_room_hierarchy: bool,
    admin_skip_room_visibility_check: bool,
    room_queue: Vec<Queued>,
    processed_rooms: Vec<String>,
}

/// A room as it may be described.
struct Described {
    state: CurrentEvents,
    joined_members: i64,
    host_in_room: bool,
}

impl Described {
    fn event(&self, kind: &str) -> Option<&Arc<Pdu>> {
        self.state.get(&(kind.to_owned(), String::new()))
    }

    fn text(&self, kind: &str, key: &str) -> Option<String> {
        self.event(kind)?.content_str(key)
    }

    fn is_space(&self) -> bool {
        self.text("m.room.create", "type").as_deref() == Some("m.space")
    }

    /// The summary of the room; what it has not is left out.
    fn summary(&self, room_id: &str) -> Map<String, Value> {
        let mut entry = Map::new();
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                entry.insert(key.into(), value.into());
            }
        };
        add("room_id", Some(room_id.to_owned()));
        add("room_version", self.event("m.room.create").map(|e| e.room_version.to_string()));
        add("name", self.text("m.room.name", "name"));
        add("topic", self.text("m.room.topic", "topic"));
        add("canonical_alias", self.text("m.room.canonical_alias", "alias"));
        add("avatar_url", self.text("m.room.avatar", "url"));
        add("room_type", self.text("m.room.create", "type"));
        add("encryption", self.text("m.room.encryption", "algorithm"));
        add("join_rule", self.text("m.room.join_rules", "join_rule"));
        entry.insert("num_joined_members".into(), self.joined_members.into());
        let readable = self.event("m.room.history_visibility");
        let readable = readable.is_some_and(|e| history_visibility(Some(e)) == "world_readable");
        entry.insert("world_readable".into(), readable.into());
        let guests = self.text("m.room.guest_access", "guest_access").as_deref() == Some("can_join");
        entry.insert("guest_can_join".into(), guests.into());
        if let Some(rules) = self.event("m.room.join_rules").filter(|e| restricted::is_restricted(e)) {
            let (rooms, _) = restricted::allowed_rooms(rules);
            if !rooms.is_empty() {
                entry.insert("allowed_room_ids".into(), json!(rooms));
            }
        }
        entry
    }

    fn shown(&self, room_id: &str, suggested_only: bool) -> Result<Shown> {
        let children = if self.is_space() { self.children(suggested_only) } else { Vec::new() };
        let children = children.iter().map(|c| stripped_child(c)).collect::<Result<_>>()?;
        Ok(Shown { entry: self.summary(room_id), children, ..Shown::default() })
    }

    /// Children with valid servers to join by, in the order the space wants.
    fn children(&self, suggested_only: bool) -> Vec<&Arc<Pdu>> {
        let events = self.state.iter().filter(|((kind, _), _)| kind == "m.space.child").map(|(_, e)| e);
        let mut children: Vec<(ChildOrder, &Arc<Pdu>)> = events
            .filter_map(|e| {
                let content: Map<String, Value> = e.content_as().ok()?;
                let via = content.get("via")?.as_array()?;
                let valid = !via.is_empty() && via.iter().all(Value::is_string);
                let suggested = content.get("suggested") == Some(&Value::Bool(true));
                (valid && (suggested || !suggested_only)).then(|| (child_order(e, &content), e))
            })
            .collect();
        children.sort_by(|a, b| a.0.cmp(&b.0));
        children.into_iter().map(|(_, e)| e).take(MAX_CHILDREN).collect()
    }
}

/// A room of a hierarchy as the user sees it.
#[derive(Default)]
pub(crate) struct Shown {
    pub entry: Map<String, Value>,
    /// Stripped `m.space.child` events.
    pub children: Vec<Value>,
    /// What another server told of the children, by room.
    pub told: HashMap<String, Value>,
    /// Children it says are not for us.
    pub hidden: HashSet<String>,
}

/// By the `order` field, those without one last; then by age; then by room.
type ChildOrder = (bool, Option<String>, i64, String);

fn child_order(e: &Pdu, content: &Map<String, Value>) -> ChildOrder {
    let order = content.get("order").and_then(Value::as_str);
    let order = order.filter(|o| o.len() <= 50 && o.bytes().all(|b| (0x20..=0x7e).contains(&b))).map(str::to_owned);
    (order.is_none(), order, e.origin_server_ts, e.state_key.clone().unwrap_or_default())
}

/// `m.space.child` as the hierarchy shows it: stripped, with its time.
fn stripped_child(e: &Pdu) -> Result<Value> {
    let mut child = e.to_stripped()?;
    child["origin_server_ts"] = e.origin_server_ts.into();
    Ok(child)
}

impl Rooms {
    /// Describes several rooms, in four statements at most.
    async fn describe(&self, room_ids: &[&str], user_id: Option<&UserId>) -> Result<HashMap<String, Described>> {
        let store = &self.cx.store;
        let states = store.summary_states(room_ids, user_id.map(UserId::as_str)).await?;
        let ids: Vec<_> = states.values().flat_map(|s| &s.events).collect();
        let events = store.events(&ids).await?;
        Ok(states
            .into_iter()
            .map(|(room_id, s)| {
                let state = by_key(s.events.iter().filter_map(|id| events.get(id).cloned()));
                (room_id, Described { state, joined_members: s.joined_members, host_in_room: s.host_in_room })
            })
            .collect())
    }

    /// Whether the room may be shown to somebody: it is open, or they are in it, invited, or could join.
    async fn may_be_shown(&self, room: &Described, user_id: Option<&UserId>) -> Result<bool> {
        let rules = room.event("m.room.join_rules");
        if let Some(rules) = rules {
            let allowed = types::room_version::rules(&rules.room_version).map(|r| r.authorization);
            let open = match rules.content_str("join_rule").as_deref() {
                Some("public") => true,
                Some("knock") => allowed.is_some_and(|a| a.knocking),
                Some("knock_restricted") => allowed.is_some_and(|a| a.knock_restricted_join_rule),
                _ => false,
            };
            if open {
                return Ok(true);
            }
        }
        if room.event("m.room.history_visibility").is_some_and(|e| history_visibility(Some(e)) == "world_readable") {
            return Ok(true);
        }
        let Some(user_id) = user_id else { return Ok(false) };
        let member = room.state.get(&("m.room.member".to_owned(), user_id.to_string()));
        if member.and_then(|e| e.membership()).is_some_and(|m| m == "join" || m == "invite") {
            return Ok(true);
        }
        let Some(rules) = rules.filter(|e| restricted::is_restricted(e)) else { return Ok(false) };
        let (rooms, _) = restricted::allowed_rooms(rules);
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        Ok(!rooms.is_empty() && !self.cx.store.joined_among(user_id.as_str(), &rooms).await?.is_empty())
    }

    /// As [`Rooms::may_be_shown`], for a room another server told of.
    async fn may_be_shown_abroad(
        &self,
        entry: &Map<String, Value>,
        user_id: Option<&UserId>,
        here: Option<&Described>,
    ) -> Result<bool> {
        let rule = entry.get("join_rule").and_then(Value::as_str).unwrap_or("public");
        if matches!(rule, "public" | "knock" | "knock_restricted")
            || entry.get("world_readable") == Some(&Value::Bool(true))
        {
            return Ok(true);
        }
        let Some(user_id) = user_id else { return Ok(false) };
        let allowed = entry.get("allowed_room_ids").and_then(Value::as_array);
        let allowed: Vec<&str> = allowed.into_iter().flatten().filter_map(Value::as_str).collect();
        if !allowed.is_empty() && !self.cx.store.joined_among(user_id.as_str(), &allowed).await?.is_empty() {
            return Ok(true);
        }
        if let Some(room_id) = entry.get("room_id").and_then(Value::as_str) {
            let own = self.cx.store.local_membership(user_id.as_str(), room_id).await?;
            if own.is_some_and(|m| m.membership == "invite") {
                return Ok(true);
            }
        }
        match here {
            Some(room) => self.may_be_shown(room, Some(user_id)).await,
            None => Ok(false),
        }
    }

    /// What a room is, for those who may know; with the membership of whoever asks. `via`: servers to ask about rooms
    /// nobody of this server is in.
    pub async fn summary(
        &self,
        user_id: Option<&UserId>,
        room_id: &RoomId,
        via: &[String],
    ) -> Result<Map<String, Value>> {
        let hidden = || Error::not_found("Room not found or is not accessible");
        let rooms = self.describe(&[room_id.as_str()], user_id).await?;
        let here = rooms.get(room_id.as_str());
        let mut summary = match here.filter(|r| r.host_in_room) {
            Some(room) if self.may_be_shown(room, user_id).await? => room.summary(room_id.as_str()),
            Some(_) => return Err(hidden()),
            None => {
                let shown = self.shown_abroad(room_id.as_str(), via, None, true, true).await.ok_or_else(hidden)?;
                if !self.may_be_shown_abroad(&shown.entry, user_id, here).await? {
                    return Err(hidden());
                }
                shown.entry
            }
        };
        if let Some(user_id) = user_id {
            let own = self.cx.store.local_membership(user_id.as_str(), room_id.as_str()).await?;
            let membership = own.map_or_else(|| "leave".to_owned(), |m| m.membership.clone());
            summary.insert("membership".into(), membership.into());
        }
        Ok(summary)
    }

    /// A page of the rooms below a space, as far as the user may see them.
    pub async fn hierarchy(&self, user_id: &UserId, q: &Hierarchy<'_>) -> Result<Value> {
        let root = q.room_id.as_str();
        let mut known = self.describe(&[root], Some(user_id)).await?;
        let shown = match known.get(root) {
            Some(room) if room.host_in_room => self.may_be_shown(room, Some(user_id)).await?,
            _ => false,
        };
        if !shown {
            let text = format!("User {user_id} not in room {root}, and room previews are disabled");
            return Err(Error::forbidden(text));
        }
        let mut session = self.hierarchy_session(user_id, q).await?;
        let mut done: HashSet<String> = session.processed_rooms.drain(..).collect();
        let limit = q.limit.map_or(MAX_ROOMS, |l| (l.max(1) as usize).min(MAX_ROOMS));
        let mut rooms = Vec::new();
        while rooms.len() < limit {
            let Some(Queued(room_id, via, depth, told)) = session.room_queue.pop() else { break };
            if !done.insert(room_id.clone()) {
                continue;
            }
            self.describe_ahead(&mut known, &room_id, &session.room_queue, user_id).await?;
            let known_here = known.get(&room_id).filter(|r| r.host_in_room);
            let shown = match known_here {
                Some(room) if self.may_be_shown(room, Some(user_id)).await? => {
                    room.shown(&room_id, q.suggested_only)?
                }
                Some(_) => continue,
                None => {
                    let is_last = q.max_depth.is_some_and(|max| depth >= max);
                    match self.shown_abroad(&room_id, &via, told, q.suggested_only, is_last).await {
                        Some(shown)
                            if self.may_be_shown_abroad(&shown.entry, Some(user_id), known.get(&room_id)).await? =>
                        {
                            shown
                        }
                        _ => continue,
                    }
                }
            };
            let Shown { mut entry, children, mut told, hidden } = shown;
            if q.max_depth.is_none_or(|max| depth < max) {
                let shown_below = children.iter().rev().filter_map(|c| Some((c.get("state_key")?.as_str()?, c)));
                session.room_queue.extend(shown_below.filter(|(room, _)| !hidden.contains(*room)).map(|(room, c)| {
                    let via = serde_json::from_value(c["content"]["via"].clone()).unwrap_or_default();
                    Queued(room.to_owned(), via, depth + 1, told.remove(room))
                }));
            }
            entry.insert("children_state".into(), children.into());
            rooms.push(Value::Object(entry));
        }
        let mut answer = json!({"rooms": rooms});
        if !session.room_queue.is_empty() {
            session.processed_rooms = done.into_iter().collect();
            let id = credentials::letters(24);
            let expires = self.cx.now_ms() + SESSION_MS;
            self.cx.store.put_session(SESSION, &id, &serde_json::to_string(&session)?, expires).await?;
            answer["next_batch"] = id.into();
        }
        Ok(answer)
    }

    /// A room and the rooms directly below it, as far as a server may see them. 404 if it may not see the room.
    pub async fn hierarchy_for_server(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<Value> {
        let root = room_id.as_str();
        let mut known = self.describe(&[root], None).await?;
        let hidden = || Error::not_found(format!("Unknown room: {room_id}"));
        let room = known.remove(root).filter(|r| r.host_in_room).ok_or_else(hidden)?;
        if !self.may_be_shown_to_server(room_id, &room, origin).await? {
            return Err(hidden());
        }
        let children = if room.is_space() { room.children(suggested_only) } else { Vec::new() };
        let ids: Vec<&str> = children.iter().filter_map(|c| c.state_key.as_deref()).collect();
        let below = self.describe(&ids, None).await?;
        let (mut shown, mut inaccessible) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(child) = below.get(id).filter(|r| r.host_in_room) else { continue };
            let Ok(child_id) = <&RoomId>::try_from(id) else { continue };
            match self.may_be_shown_to_server(child_id, child, origin).await? {
                true => shown.push(Value::Object(child.summary(id))),
                false => inaccessible.push(id),
            }
        }
        let state: Vec<Value> = children.iter().map(|c| stripped_child(c)).collect::<Result<_>>()?;
        let mut entry = room.summary(root);
        entry.insert("children_state".into(), state.into());
        Ok(json!({"room": entry, "children": shown, "inaccessible_children": inaccessible}))
    }

    /// Whether a room may be shown to a server: it is open, or somebody of that server is in it or could join.
    async fn may_be_shown_to_server(&self, room_id: &RoomId, room: &Described, origin: &ServerName) -> Result<bool> {
        if self.check_server_allowed(room_id, origin).await.is_err() {
            return Ok(false);
        }
        let store = &self.cx.store;
        if self.may_be_shown(room, None).await? || store.is_server_in_room(room_id, origin.as_str()).await? {
            return Ok(true);
        }
        let Some(rules) = room.event("m.room.join_rules").filter(|e| restricted::is_restricted(e)) else {
            return Ok(false);
        };
        for allowed in restricted::allowed_rooms(rules).0 {
            if let Ok(allowed) = <&RoomId>::try_from(allowed.as_str())
                && store.is_server_in_room(allowed, origin.as_str()).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Describes a room and, in the same statements, those that are next in the queue.
    async fn describe_ahead(
        &self,
        known: &mut HashMap<String, Described>,
        room_id: &str,
        queue: &[Queued],
        user_id: &UserId,
    ) -> Result<()> {
        if known.contains_key(room_id) {
            return Ok(());
        }
        let next = queue.iter().rev().take(MAX_CHILDREN).map(|q| q.0.as_str()).filter(|id| !known.contains_key(*id));
        let wanted: HashSet<&str> = next.chain([room_id]).collect();
        let wanted: Vec<&str> = wanted.into_iter().collect();
        let described = self.describe(&wanted, Some(user_id)).await?;
        known.extend(described);
        Ok(())
    }

    async fn hierarchy_session(&self, user_id: &UserId, q: &Hierarchy<'_>) -> Result<Session> {
        let Some(token) = q.from else {
            return Ok(Session {
                requester: user_id.to_string(),
                room_id: q.room_id.to_string(),
                suggested_only: q.suggested_only,
                max_depth: q.max_depth,
                omit_remote_room_hierarchy: false,
                admin_skip_room_visibility_check: false,
                room_queue: vec![Queued(q.room_id.to_string(), Vec::new(), 0, None)],
                processed_rooms: Vec::new(),
            });
        };
        let unknown = || Error::invalid_param("Unknown pagination token");
        let value = self.cx.store.session(SESSION, token, self.cx.now_ms()).await?.ok_or_else(unknown)?;
        let session: Session = serde_json::from_str(&value).map_err(|_| unknown())?;
        let same = session.requester == user_id.as_str()
            && session.room_id == q.room_id.as_str()
            && session.suggested_only == q.suggested_only
            && session.max_depth == q.max_depth;
        if same { Ok(session) } else { Err(unknown()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_ordered_by_order_then_age() {
        let child = |room: &str, content: &str, ts: i64| {
            let json = format!(
                r#"{{"type":"m.space.child","state_key":"{room}","sender":"@s:a","room_id":"!s:a","content":{content},"origin_server_ts":{ts}}}"#
            );
            Arc::new(Pdu::parse(&json, ruma::event_id!("$e"), &ruma::RoomVersionId::V10).unwrap())
        };
        let state = by_key(
            [
                child("!late:a", r#"{"via":["a"]}"#, 2),
                child("!early:a", r#"{"via":["a"]}"#, 1),
                child("!z:a", r#"{"via":["a"],"order":"z","suggested":true}"#, 9),
                child("!a:a", r#"{"via":["a"],"order":"a"}"#, 9),
                child("!gone:a", "{}", 0),
                child("!bad:a", r#"{"via":[5]}"#, 0),
            ]
            .into_iter(),
        );
        let room = Described { state, joined_members: 1, host_in_room: true };
        let names = |suggested| -> Vec<String> {
            room.children(suggested).iter().filter_map(|c| c.state_key.clone()).collect()
        };
        assert_eq!(names(false), ["!a:a", "!z:a", "!early:a", "!late:a"]);
        assert_eq!(names(true), ["!z:a"]);
    }
}
