//! `GET /initialSync` and `GET /rooms/{id}/initialSync`: a snapshot of all rooms, or of one.

use super::{in_room, presence_event};
use crate::Sync;
use crate::v2::live;
use ::rooms::access::Access;
use ::rooms::{Bundles, Look, Render, Visible};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::membership_for_user::UserRoom;
use store::sync_account_data::TypedContent;
use store::sync_timeline::Stretch;
use types::{MultiToken, OwnedEventId, OwnedRoomId, Pdu, Requester, Result, RoomToken, StreamToken};

/// How much of each room.
pub struct Snapshot {
    /// Messages of each room.
    pub limit: usize,
    /// Rooms the user left, too.
    pub archived: bool,
}

/// A room, and up to where it is shown.
struct View {
    room_id: String,
    at: MultiToken,
    /// The event with which the user left.
    left: Option<OwnedEventId>,
}

impl View {
    fn of(room: &UserRoom, now: &StreamToken) -> Self {
        let left = (room.membership == "leave").then(|| room.event_id.clone());
        let at = if left.is_some() { MultiToken::at(room.stream) } else { live(&now.room) };
        Self { room_id: room.room_id.clone(), at, left }
    }
}

/// A room's messages and state.
#[derive(Default)]
struct Contents {
    messages: Value,
    state: Vec<Value>,
}

fn account_data(tags: Option<&Map<String, Value>>, data: Option<&Vec<TypedContent>>) -> Vec<Value> {
    let tags = tags.filter(|t| !t.is_empty()).map(|t| json!({"type": "m.tag", "content": {"tags": t}}));
    let data = data.into_iter().flatten().map(|(kind, content)| json!({"type": kind, "content": content}));
    tags.into_iter().chain(data).collect()
}

impl Sync {
    /// All rooms joined or invited to.
    pub async fn initial_sync(&self, who: &Requester, how: Snapshot) -> Result<Value> {
        let store = &self.cx.store;
        let user = who.user_id.as_str();
        let memberships: &[&str] = if how.archived { &["invite", "join", "leave"] } else { &["invite", "join"] };
        let rooms = store.rooms_of_user(user, memberships).await?;
        let now = self.now();
        let views: Vec<View> = rooms.iter().filter(|r| r.membership != "invite").map(|r| View::of(r, &now)).collect();
        // Rendered for nobody in particular, as Synapse does: no transaction ids, no stripped state.
        let plain = Render::default();
        let contents = self.contents(who, &views, how.limit, &now, false, plain).await?;
        let (tags, data) = futures::try_join!(store.tags_since(user, None), store.room_account_data_since(user, None))?;
        let ids: Vec<&str> = rooms.iter().map(|r| r.room_id.as_str()).collect();
        let public: HashSet<String> = store.public_among(&ids).await?.into_iter().collect();
        let invites: Vec<&OwnedEventId> =
            rooms.iter().filter(|r| r.membership == "invite").map(|r| &r.event_id).collect();
        let invites = store.events(&invites).await?;
        let mut shown = Vec::with_capacity(rooms.len());
        for room in &rooms {
            let visibility = if public.contains(&room.room_id) { "public" } else { "private" };
            let mut entry = json!({"room_id": room.room_id, "membership": room.membership, "visibility": visibility});
            if let Some(invite) = invites.get(&room.event_id) {
                let event =
                    self.rooms.render_event(&Visible::unchecked(invite.clone()), &Bundles::new(), plain).await?;
                entry["inviter"] = room.sender.as_str().into();
                entry["invite"] = serde_json::from_str(event.get())?;
            }
            if let Some(c) = contents.get(&room.room_id) {
                entry["messages"] = c.messages.clone();
                entry["state"] = c.state.clone().into();
                entry["account_data"] = account_data(tags.get(&room.room_id), data.get(&room.room_id)).into();
            }
            shown.push(entry);
        }
        let global = store.global_account_data_since(user, None).await?;
        let joined: Vec<&str> = rooms.iter().filter(|r| r.membership == "join").map(|r| r.room_id.as_str()).collect();
        let receipts = self.receipts_since(user, &joined, None, &now.receipts).await?;
        let receipts: Vec<Value> = receipts.into_iter().map(|(room, e)| in_room(e, &room)).collect();
        Ok(json!({
            "rooms": shown,
            "presence": self.presence_in(&joined, Some(user)).await?,
            "account_data": account_data(None, Some(&global)),
            "receipts": receipts,
            "end": now.to_string(),
        }))
    }

    /// One room, for members, former members and those who may peek.
    pub async fn room_initial_sync(&self, who: &Requester, room_id: &OwnedRoomId, limit: usize) -> Result<Value> {
        let store = &self.cx.store;
        let access = self.rooms.check_may_look(&who.user_id, room_id, true).await?;
        let now = self.now();
        let room = room_id.to_string();
        let (membership, view) = match &access {
            Access::Departed(event) => {
                let positions = store.event_positions(&[event.as_str()]).await?;
                let at = positions.get(event).map_or(live(&now.room), |(_, at)| MultiToken::at(*at));
                ("leave", View { room_id: room.clone(), at, left: Some(event.clone()) })
            }
            _ => ("join", View { room_id: room.clone(), at: live(&now.room), left: None }),
        };
        let departed = view.left.is_some();
        let how = Render::for_user(who);
        let contents = self.contents(who, &[view], limit, &now, access.is_peeking(), how).await?.remove(&room);
        let Contents { messages, state } = contents.unwrap_or_default();
        let (tags, data) = futures::try_join!(
            store.tags_since(who.user_id.as_str(), None),
            store.room_account_data_since(who.user_id.as_str(), None)
        )?;
        let (presence, receipts) = if departed {
            (Vec::new(), Vec::new())
        } else {
            let receipts = self.receipts_since(who.user_id.as_str(), &[&room], None, &now.receipts).await?;
            let receipts = receipts.into_iter().map(|(room, e)| in_room(e, &room)).collect();
            (self.presence_in(&[&room], None).await?, receipts)
        };
        let mut answer = json!({
            "room_id": room,
            "messages": messages,
            "state": state,
            "presence": presence,
            "receipts": receipts,
            "account_data": account_data(tags.get(&room), data.get(&room)),
        });
        if !access.is_peeking() {
            answer["membership"] = membership.into();
        }
        Ok(answer)
    }

    /// Messages and state of rooms; a fixed number of questions, whatever the number of rooms.
    async fn contents(
        &self,
        who: &Requester,
        views: &[View],
        limit: usize,
        now: &StreamToken,
        peeking: bool,
        how: Render<'_>,
    ) -> Result<HashMap<String, Contents>> {
        let store = &self.cx.store;
        let mut stretches = Vec::with_capacity(views.len());
        for v in views {
            stretches.push(Stretch { room_id: &v.room_id, upto: RoomToken::Live(v.at.clone()), since: None });
        }
        let found = store.timelines(&stretches, limit).await?;
        let ids: Vec<&OwnedEventId> = found.iter().flat_map(|f| f.events.iter().rev().map(|(id, _)| id)).collect();
        let mut events = store.events_in_order(&ids).await?;
        events.retain(|e| e.rejected.is_none());
        let look = Look { peeking, ..Look::default() };
        let visible = self.rooms.filter_visible(&who.user_id, events, look).await?;
        let rendered = self.rooms.render(&visible, &Bundles::new(), how).await?;
        let mut chunks: HashMap<String, Vec<Box<RawValue>>> = HashMap::new();
        for (v, event) in visible.iter().zip(rendered) {
            chunks.entry(v.event.room_id.to_string()).or_default().push(event);
        }
        let mut states = self.states(views).await?;
        let mut out = HashMap::new();
        for (view, found) in views.iter().zip(found) {
            let base = if view.left.is_some() { StreamToken::default() } else { now.clone() };
            let end = StreamToken { room: RoomToken::Live(view.at.clone()), ..base.clone() };
            let start = StreamToken { room: found.end.unwrap_or_else(|| end.room.clone()), ..base };
            let chunk = chunks.remove(&view.room_id).unwrap_or_default();
            let state = self.rooms.render_state(&states.remove(&view.room_id).unwrap_or_default(), how)?;
            let contents = Contents {
                messages: json!({"chunk": chunk, "start": start.to_string(), "end": end.to_string()}),
                state: state.iter().map(|e| serde_json::from_str(e.get())).collect::<Result<_, _>>()?,
            };
            out.insert(view.room_id.clone(), contents);
        }
        Ok(out)
    }

    /// State events of rooms: current, or where the user left; oldest first.
    async fn states(&self, views: &[View]) -> Result<HashMap<String, Vec<Arc<Pdu>>>> {
        let store = &self.cx.store;
        let joined: Vec<&str> = views.iter().filter(|v| v.left.is_none()).map(|v| v.room_id.as_str()).collect();
        let left: Vec<&OwnedEventId> = views.iter().filter_map(|v| v.left.as_ref()).collect();
        let (current, after) = futures::try_join!(store.current_states(&joined), store.states_after(&left))?;
        let state_of = |v: &View| match &v.left {
            Some(event) => after.get(event),
            None => current.get(&v.room_id),
        };
        let ids: Vec<&OwnedEventId> = views.iter().filter_map(state_of).flat_map(|s| s.values()).collect();
        let events = store.events(&ids).await?;
        let mut out = HashMap::new();
        for view in views {
            let ids = state_of(view).into_iter().flat_map(|s| s.values());
            let mut list: Vec<Arc<Pdu>> = ids.filter_map(|id| events.get(id).cloned()).collect();
            list.sort_by_key(|e| e.stream());
            out.insert(view.room_id.clone(), list);
        }
        Ok(out)
    }

    /// Presence of the members of rooms. `me`: only of those who are not offline, and this user's own.
    async fn presence_in(&self, rooms: &[&str], me: Option<&str>) -> Result<Vec<Value>> {
        if !self.cx.config.presence.enabled {
            return Ok(Vec::new());
        }
        let store = &self.cx.store;
        let members = store.joined_members_of(rooms).await?;
        let members = members.values().flat_map(|m| m.iter().map(String::as_str));
        let users: HashSet<&str> = members.chain(me).collect();
        let mut states = if me.is_none() {
            self.live.presence.of(store, users).await?
        } else {
            users.into_iter().filter_map(|u| self.live.presence.get(u)).filter(|p| p.state != "offline").collect()
        };
        states.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        let now = self.cx.now_ms();
        Ok(states.iter().map(|p| presence_event(p, now)).collect())
    }
}
