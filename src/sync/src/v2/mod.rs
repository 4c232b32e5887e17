//! `GET /sync` (spec: "Syncing"): what happened in a user's rooms and around it since a token.
//!
//! One pass asks the database a fixed number of questions, each about all rooms at once.

mod answer;
mod around;
mod changes;
mod render;
mod rooms;
mod state;
mod summary;
mod timeline;

pub use answer::Answer;

use crate::Sync;
use crate::filter::Filter;
use crate::notifier::Listener;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::{MultiToken, Pdu, Requester, Result, RoomToken, StreamToken};

/// A request, read and checked.
pub struct Request {
    pub who: Requester,
    pub filter: Arc<Filter>,
    pub since: Option<StreamToken>,
    pub full_state: bool,
    /// How long to wait for something to happen; 0: answer at once.
    pub timeout: Duration,
    /// MSC4222: state after the timeline instead of before it.
    pub use_state_after: bool,
}

/// Longest wait for streams to reach a token that another process gave out.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Between two looks while PostgreSQL is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// Longest long poll.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// What one pass works with.
pub(crate) struct Pass<'a> {
    pub sync: &'a Sync,
    pub rq: &'a Request,
    pub user: &'a str,
    pub since: Option<&'a StreamToken>,
    pub now: StreamToken,
    pub now_room: MultiToken,
    /// Rooms joined, without excluded ones.
    pub joined: Vec<String>,
    pub excluded: HashSet<String>,
    /// Own membership events since the token, oldest first.
    pub moves: Vec<Arc<Pdu>>,
}

/// The live position of a room token; a topological one stands for its stream part.
pub(crate) fn live(token: &RoomToken) -> MultiToken {
    match token {
        RoomToken::Live(m) => m.clone(),
        RoomToken::Topological { stream, .. } => MultiToken::at(*stream),
    }
}

impl Sync {
    /// Answers at once if there is something to tell or nothing to wait for, else when something happens
    /// or time is up.
    pub async fn sync(&self, mut rq: Request) -> Result<Answer> {
        let began = Instant::now();
        if let Some(since) = rq.since.take() {
            let since = self.bound(since).await?;
            if !self.caught_up(&since).await {
                return self.empty_answer(&rq, since).await;
            }
            match self.forget_delivered(&rq, &since).await {
                // The next sync does it: nothing before the token is told again.
                Err(e) if store::db::is_away(&e) => {}
                other => other?,
            }
            rq.since = Some(since);
        }
        let deadline = began + rq.timeout.min(MAX_TIMEOUT);
        if rq.timeout.is_zero() || rq.since.is_none() || rq.full_state {
            return self.pass(&rq).await;
        }
        loop {
            let looked = self.look(&rq).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let (answer, mut listener) = match looked {
                // The database is away. There is no news that it does not have.
                Err(e) if store::db::is_away(&e) && !left.is_zero() => tokio::select! {
                    _ = tokio::time::sleep(left.min(AWAY_PAUSE)) => continue,
                    _ = self.cx.life.stopping() => return Err(e),
                },
                other => other?,
            };
            if !answer.is_empty() || left.is_zero() {
                return Ok(answer);
            }
            tokio::select! {
                changed = tokio::time::timeout(left, listener.changed()) => if changed.is_err() {
                    return Ok(answer);
                },
                // The client asks again, and the process that takes this one's place answers.
                _ = self.cx.life.stopping() => return Ok(answer),
            }
        }
    }

    /// What there is to tell now, and who says when there is more.
    async fn look(&self, rq: &Request) -> Result<(Answer, Listener)> {
        let user = rq.who.user_id.as_str();
        let rooms = self.cx.store.rooms_joined_by(user).await?;
        let listener = self.live.notifier.listen(user, &rooms);
        Ok((self.pass(rq).await?, listener))
    }

    /// A token beyond what the database ever gave out is cut down to what it has.
    async fn bound(&self, mut since: StreamToken) -> Result<StreamToken> {
        let now = self.cx.store.streams.now();
        if live(&since.room).max() > live(&now.room).max() {
            let max = self.cx.store.last_event_position().await?;
            if live(&since.room).max() > max {
                since.room = RoomToken::Live(MultiToken::at(max));
            }
        }
        Ok(since)
    }

    /// Waits until this process has seen everything the token covers.
    async fn caught_up(&self, since: &StreamToken) -> bool {
        let streams = &self.cx.store.streams;
        let reached = |now: &StreamToken| {
            live(&since.room).stream <= live(&now.room).max()
                && since.receipts.stream <= now.receipts.max()
                && since.account_data <= now.account_data
                && since.push_rules <= now.push_rules
                && since.to_device <= now.to_device
                && since.device_lists.stream <= now.device_lists.max()
        };
        let deadline = Instant::now() + CATCH_UP;
        let mut updates = None;
        loop {
            if reached(&streams.now()) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Subscribed before looking again, so that nothing is missed in between.
            match &mut updates {
                None => updates = Some(streams.subscribe()),
                Some(updates) => {
                    let _ = tokio::time::timeout(left.min(Duration::from_millis(500)), updates.recv()).await;
                }
            }
        }
    }

    /// The client has what it was sent up to this token.
    async fn forget_delivered(&self, rq: &Request, since: &StreamToken) -> Result<()> {
        let Some(device) = &rq.who.device_id else { return Ok(()) };
        let user = rq.who.user_id.as_str();
        let store = &self.cx.store;
        let unchanged = |at: i64| !store.changed.to_device.since(user, at);
        let delete = || store.delete_to_device(user, device, since.to_device);
        self.live.delivered.once(user, device, since.to_device, unchanged, delete).await
    }

    async fn empty_answer(&self, rq: &Request, since: StreamToken) -> Result<Answer> {
        let mut answer = Answer { next_batch: since.to_string(), ..Answer::default() };
        self.add_key_counts(rq, &mut answer).await?;
        Ok(answer)
    }

    /// One pass over everything.
    async fn pass(&self, rq: &Request) -> Result<Answer> {
        let user = rq.who.user_id.to_string();
        let mut pass = self.begin(rq, &user).await?;
        let mut answer = Answer::default();
        pass.add_account_data(&mut answer).await?;
        let presence_on = pass.wants_presence();
        let devices_on = rq.since.as_ref().is_some_and(|s| s.device_lists != MultiToken::default());
        let mut told = rooms::Told::default();
        if !rq.filter.blocks_all_rooms() || presence_on || devices_on {
            told = pass.add_rooms(&mut answer).await?;
        }
        if presence_on {
            pass.add_presence(&told, &mut answer).await?;
        }
        if devices_on {
            pass.add_device_lists(&told, &mut answer).await?;
        }
        pass.add_to_device(&mut answer).await?;
        self.add_key_counts(rq, &mut answer).await?;
        answer.next_batch = pass.now.to_string();
        Ok(answer)
    }

    async fn begin<'a>(&'a self, rq: &'a Request, user: &'a str) -> Result<Pass<'a>> {
        let store = &self.cx.store;
        // Rooms before the position: a join in between shows up among the moves.
        let before = live(&store.streams.now().room);
        let joined = store.rooms_joined_by(user).await?;
        let mut now = store.streams.now();
        // These live in memory here: their own position counts.
        now.typing = self.live.typing.position();
        now.presence = self.live.presence.position();
        let now_room = live(&now.room);
        let mut pass = Pass {
            sync: self,
            rq,
            user,
            since: rq.since.as_ref(),
            now,
            now_room,
            joined: joined.to_vec(),
            excluded: self.cx.config.server.exclude_rooms_from_sync.iter().cloned().collect(),
            moves: Vec::new(),
        };
        if let Some(since) = pass.since {
            let ids = store.membership_changes_of(user, &live(&since.room), &pass.now_room).await?;
            pass.moves = store.events_in_order(&ids).await?;
            pass.moves.retain(|e| e.rejected.is_none() && !pass.excluded.contains(e.room_id.as_str()));
            pass.follow_late_moves(&before);
        }
        pass.leave_out_partial_rooms().await?;
        let excluded = std::mem::take(&mut pass.excluded);
        pass.joined.retain(|r| !excluded.contains(r));
        pass.excluded = excluded;
        Ok(pass)
    }
}

impl Pass<'_> {
    /// Memberships that changed between reading the room list and taking the position.
    fn follow_late_moves(&mut self, before: &MultiToken) {
        for event in &self.moves {
            if event.stream() <= before.stream {
                continue;
            }
            let room = event.room_id.as_str();
            let is_in = self.joined.iter().any(|r| r == room);
            match event.membership().as_deref() {
                Some("join") if !is_in => self.joined.push(room.to_owned()),
                Some("join") => {}
                _ => self.joined.retain(|r| r != room),
            }
        }
    }

    /// Clients that do not load members lazily only see rooms whose state is fully known.
    async fn leave_out_partial_rooms(&mut self) -> Result<()> {
        if self.rq.filter.lazy_load_members() {
            return Ok(());
        }
        let partial = self.sync.cx.store.partial_state_rooms().await?;
        if partial.is_empty() {
            return Ok(());
        }
        let partial: HashSet<String> = self.joined.iter().filter(|room| partial.contains(*room)).cloned().collect();
        self.moves.retain(|e| !partial.contains(e.room_id.as_str()));
        self.excluded.extend(partial);
        Ok(())
    }

    /// The since token, unless everything is to be told anew.
    pub fn fresh_since(&self) -> Option<&StreamToken> {
        if self.rq.full_state { None } else { self.since }
    }
}
