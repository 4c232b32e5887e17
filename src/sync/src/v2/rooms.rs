//! The rooms of an answer, from what changed to what is shown.

use super::answer::{Answer, Events, Invited, JoinedParts, Knocked, Ready, Room, State, Summary, Timeline, Unread};
use super::{Pass, live};
use crate::filter::allows_entry;
use ::rooms::visibility::replaced;
use ::rooms::{Bundles, Visible};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use store::sync_account_data::TypedContent;
use types::{MultiToken, OwnedEventId, Pdu, Result, RoomToken, StreamToken};

/// What other parts of the answer need to know of the rooms.
#[derive(Default)]
pub(crate) struct Told {
    pub newly_joined: Vec<String>,
    pub newly_left: Vec<String>,
    /// Others who joined, were invited to or knocked on rooms of the user.
    pub newcomers: HashSet<String>,
    /// Others who left rooms of the user.
    pub leavers: HashSet<String>,
}

/// A room on its way into the answer.
pub(super) struct Entry {
    pub room_id: String,
    /// Joined; else left or banned.
    pub joined: bool,
    /// Events since the token, oldest first; None: not known yet.
    pub recents: Option<Vec<Arc<Pdu>>>,
    pub newly_joined: bool,
    pub full_state: bool,
    pub since: Option<StreamToken>,
    /// Where loading of (older) events begins.
    pub upto: StreamToken,
    /// End of what is told, and the event there if the user left.
    pub end: MultiToken,
    pub end_event: Option<OwnedEventId>,
    /// Left from outside (a refused invite): there is no state.
    pub out_of_band: bool,
    // What is shown.
    pub timeline: Vec<Visible>,
    pub prev_batch: StreamToken,
    pub limited: bool,
    pub state: Vec<Arc<Pdu>>,
    /// State that need not be rendered.
    pub ready: Option<Ready>,
    pub account_data: Vec<Value>,
    pub ephemeral: Vec<Value>,
    pub summary: Option<Summary>,
}

impl Entry {
    pub fn new(room_id: String, joined: bool, since: Option<StreamToken>, upto: StreamToken, end: MultiToken) -> Self {
        Self {
            room_id,
            joined,
            recents: None,
            newly_joined: false,
            full_state: false,
            since,
            prev_batch: upto.clone(),
            upto,
            end,
            end_event: None,
            out_of_band: false,
            timeline: Vec::new(),
            limited: false,
            state: Vec::new(),
            ready: None,
            account_data: Vec::new(),
            ephemeral: Vec::new(),
            summary: Some(Summary::default()),
        }
    }
}

/// Rooms sorted by what the user is in them.
#[derive(Default)]
pub(super) struct Sorted {
    pub entries: Vec<Entry>,
    pub invited: Vec<Arc<Pdu>>,
    pub knocked: Vec<Arc<Pdu>>,
    pub newly_joined: Vec<String>,
    pub newly_left: Vec<String>,
}

/// Account data, tags and ephemeral events by room.
pub(super) struct Extras {
    pub account_data: HashMap<String, Vec<TypedContent>>,
    pub tags: HashMap<String, Map<String, Value>>,
    pub ephemeral: HashMap<String, Vec<Value>>,
}

impl Extras {
    /// Whether there is anything but events for a room.
    pub fn has(&self, room_id: &str) -> bool {
        self.account_data.contains_key(room_id)
            || self.tags.contains_key(room_id)
            || self.ephemeral.contains_key(room_id)
    }
}

impl Pass<'_> {
    pub(super) async fn add_rooms(&mut self, answer: &mut Answer) -> Result<Told> {
        let rq = self.rq;
        if rq.filter.lazy_load_members() {
            let told = self.sync.live.lazy.of(self.user, rq.who.device_id.as_deref());
            let since = self.since.map(|s| live(&s.room));
            told.lock().unwrap_or_else(|e| e.into_inner()).start(since.as_ref());
        }
        let mut extras = self.extras().await?;
        let sorted = match self.since {
            Some(since) => self.changed_rooms(since, &extras).await?,
            None => self.all_rooms().await?,
        };
        let Sorted { mut entries, invited, knocked, newly_joined, newly_left } = sorted;
        self.load_timelines(&mut entries).await?;
        if entries.iter().any(|e| e.full_state) && self.fresh_since().is_some() {
            // Newly joined rooms are told with all their tags.
            let all = self.sync.cx.store.tags_since(self.user, None).await?;
            for entry in entries.iter().filter(|e| e.full_state) {
                match all.get(&entry.room_id) {
                    Some(tags) => extras.tags.insert(entry.room_id.clone(), tags.clone()),
                    None => extras.tags.remove(&entry.room_id),
                };
            }
        }
        for entry in &mut entries {
            self.add_extras(entry, &mut extras);
        }
        let always = rq.full_state;
        entries.retain(|e| {
            always || e.full_state || !e.timeline.is_empty() || !e.account_data.is_empty() || !e.ephemeral.is_empty()
        });
        self.add_states(&mut entries).await?;
        self.add_summaries(&mut entries).await?;
        let told = self.told(&entries, newly_joined, newly_left).await?;
        self.show(entries, answer).await?;
        for invite in invited {
            answer
                .rooms
                .invite
                .insert(invite.room_id.to_string(), Invited { invite_state: stripped(&invite, "invite_room_state")? });
        }
        for knock in knocked {
            answer
                .rooms
                .knock
                .insert(knock.room_id.to_string(), Knocked { knock_state: stripped(&knock, "knock_room_state")? });
        }
        Ok(told)
    }

    /// What there is besides events.
    async fn extras(&mut self) -> Result<Extras> {
        let (filter, since) = (&self.rq.filter, self.fresh_since());
        let store = &self.sync.cx.store;
        let mut extras = Extras { account_data: HashMap::new(), tags: HashMap::new(), ephemeral: HashMap::new() };
        if filter.blocks_all_rooms() {
            return Ok(extras);
        }
        if !filter.room_account_data.refuses_everything() {
            let at = since.map(|s| s.account_data);
            let (data, tags) =
                futures::try_join!(store.room_account_data_since(self.user, at), store.tags_since(self.user, at))?;
            extras.account_data = data;
            extras.tags = tags;
            if at.is_none() {
                extras.tags.retain(|_, tags| !tags.is_empty());
            }
        }
        if !filter.ephemeral.refuses_everything() {
            let (typing, at) = self.sync.live.typing.since(self.since.map_or(0, |s| s.typing), &self.joined);
            self.now.typing = at;
            for (room, event) in typing {
                extras.ephemeral.entry(room).or_default().push(event);
            }
            let rooms: Vec<&str> = self.joined.iter().map(String::as_str).collect();
            let from = self.since.map(|s| &s.receipts);
            for (room, event) in self.sync.receipts_since(self.user, &rooms, from, &self.now.receipts).await? {
                extras.ephemeral.entry(room).or_default().push(event);
            }
        }
        Ok(extras)
    }

    fn add_extras(&self, entry: &mut Entry, extras: &mut Extras) {
        let filter = &self.rq.filter;
        let room = entry.room_id.as_str();
        if filter.wants_room(&filter.room_account_data, room) {
            let tags = extras.tags.remove(room).map(|t| ("m.tag".to_owned(), json!({"tags": t})));
            let data = extras.account_data.remove(room).unwrap_or_default();
            let all = tags.into_iter().chain(data);
            let wanted = all.filter(|(kind, _)| allows_entry(&filter.room_account_data, kind, None));
            entry.account_data = wanted.map(|(kind, content)| json!({"type": kind, "content": content})).collect();
        }
        if entry.joined && filter.wants_room(&filter.ephemeral, room) {
            let events = extras.ephemeral.remove(room).unwrap_or_default();
            let kind = |e: &Value| e["type"].as_str().unwrap_or_default().to_owned();
            entry.ephemeral = events.into_iter().filter(|e| allows_entry(&filter.ephemeral, &kind(e), None)).collect();
        }
    }

    /// Who came and went in the rooms told of.
    async fn told(&self, entries: &[Entry], newly_joined: Vec<String>, newly_left: Vec<String>) -> Result<Told> {
        let mut told = Told { newly_joined, newly_left, ..Told::default() };
        if self.since.is_none() {
            return Ok(told);
        }
        let joined = entries.iter().filter(|e| e.joined);
        let events = joined.flat_map(|e| e.state.iter().chain(e.timeline.iter().map(|v| &v.event)));
        let moves: Vec<&Arc<Pdu>> = events.filter(|e| e.kind == "m.room.member").collect();
        let old: Vec<OwnedEventId> = moves.iter().filter_map(|e| replaced(e)).collect();
        let before = self.sync.cx.store.events(&old).await?;
        for event in moves {
            let Some(user) = event.state_key.clone() else { continue };
            if matches!(event.membership().as_deref(), Some("join" | "invite" | "knock")) {
                told.leavers.remove(&user);
                told.newcomers.insert(user);
            } else {
                told.newcomers.remove(&user);
                let old = replaced(event).and_then(|id| before.get(&id)?.membership());
                if old.as_deref() == Some("join") {
                    told.leavers.insert(user);
                }
            }
        }
        Ok(told)
    }

    /// Renders all rooms in one go.
    async fn show(&self, entries: Vec<Entry>, answer: &mut Answer) -> Result<()> {
        let mut bundled: Vec<Visible> = Vec::new();
        for entry in entries.iter().filter(|e| e.limited || e.newly_joined) {
            bundled.extend(entry.timeline.iter().cloned());
        }
        let bundles = match bundled.is_empty() {
            true => Bundles::new(),
            false => self.sync.rooms.bundle(&self.rq.who.user_id, &bundled).await?,
        };
        let rooms: Vec<&str> = entries.iter().filter(|e| e.joined).map(|e| e.room_id.as_str()).collect();
        let counts = match self.sync.cx.config.push.enabled && !rooms.is_empty() {
            true => self.sync.cx.store.unread_counts(self.user, &rooms).await?,
            false => HashMap::new(),
        };
        let mut rendered = self.render(&entries, &bundles).await?.into_iter();
        for entry in entries {
            let mut take = |n: usize| rendered.by_ref().take(n).collect::<Vec<_>>();
            let timeline = take(entry.timeline.len());
            let state = State { ready: entry.ready, events: take(entry.state.len()) };
            let is_worth = self.rq.full_state
                || !(timeline.is_empty()
                    && state.is_empty()
                    && entry.account_data.is_empty()
                    && entry.ephemeral.is_empty());
            if !is_worth {
                continue;
            }
            let counts = counts.get(&entry.room_id);
            let (state, state_after) = if self.rq.use_state_after { (None, Some(state)) } else { (Some(state), None) };
            let joined = entry.joined.then(|| self.joined_parts(entry.ephemeral, entry.summary, counts));
            let room = Room {
                timeline: Timeline {
                    events: timeline,
                    prev_batch: entry.prev_batch.to_string(),
                    limited: entry.limited,
                },
                state,
                state_after,
                account_data: Events { events: entry.account_data },
                joined,
            };
            let rooms = if entry.joined { &mut answer.rooms.join } else { &mut answer.rooms.leave };
            rooms.insert(entry.room_id, room);
        }
        Ok(())
    }

    fn joined_parts(
        &self,
        ephemeral: Vec<Value>,
        summary: Option<Summary>,
        counts: Option<&Arc<store::unread::RoomCounts>>,
    ) -> JoinedParts {
        let unread =
            |c: &store::unread::Counts| Unread { notification_count: c.notifications, highlight_count: c.highlights };
        let by_thread = self.rq.filter.timeline.unread_thread_notifications;
        let mut parts = JoinedParts { ephemeral: Events { events: ephemeral }, summary, ..JoinedParts::default() };
        let total = counts.map(|c| if by_thread { c.main } else { c.total() }).unwrap_or_default();
        parts.unread_notifications = unread(&total);
        if let (true, Some(counts)) = (by_thread, counts) {
            let threads = counts.threads.iter().map(|(id, c)| (id.clone(), unread(c)));
            parts.unread_thread_notifications = threads.collect::<BTreeMap<_, _>>();
        }
        if self.sync.cx.config.experimental.on("msc2654_enabled") {
            parts.unread_count = Some(total.unread);
        }
        parts
    }

    /// The answer's position with another place in the rooms.
    pub(super) fn at(&self, base: &StreamToken, room: RoomToken) -> StreamToken {
        StreamToken { room, ..base.clone() }
    }
}

/// The stripped state that came with an invite or knock, and the event itself.
fn stripped(event: &Pdu, key: &str) -> Result<Events<Value>> {
    let mut events = match event.unsigned.get(key) {
        Some(Value::Array(list)) => list.clone(),
        _ => Vec::new(),
    };
    events.push(event.to_stripped()?);
    Ok(Events { events })
}
