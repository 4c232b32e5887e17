//! `/sync` and what feeds it: the notifier, presence, typing, receipts, unread counts.

mod delivered;
pub mod filter;
mod lazy;
pub mod legacy;
pub mod notifier;
pub mod presence;
mod push_rules;
mod receipts;
mod rotate;
mod typing;
pub mod v2;

pub use filter::Filter;
pub use presence::UserSync;

use devices::Devices;
use notifier::Notifier;
use replication::Cx;
use rooms::Rooms;
use std::sync::Arc;
use store::{Row, Stream};

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Sync {
    pub(crate) cx: Cx,
    pub(crate) rooms: Rooms,
    pub(crate) devices: Devices,
    pub(crate) live: Arc<Live>,
}

/// What lives in memory.
pub(crate) struct Live {
    pub notifier: Arc<Notifier>,
    pub typing: Arc<typing::TypingView>,
    pub typing_writer: typing::TypingWriter,
    pub presence: Arc<presence::View>,
    pub presence_writer: presence::Writer,
    pub presence_remote: presence::Remote,
    pub lazy: lazy::LazyMembers,
    pub delivered: delivered::Delivered,
}

impl Sync {
    /// Starts the tasks that belong to it (notifier, timers); they end with the runtime.
    pub fn start(cx: Cx, rooms: Rooms, devices: Devices) -> Self {
        let streams = &cx.store.streams;
        // Subscribed first: what moves from here on reaches the views.
        let updates = streams.subscribe();
        let live = Arc::new(Live {
            notifier: Arc::default(),
            typing: Arc::default(),
            typing_writer: typing::TypingWriter::default(),
            presence: Arc::new(presence::View::new(streams.current(Stream::Presence), Vec::new())),
            presence_writer: presence::Writer::default(),
            presence_remote: presence::Remote::default(),
            lazy: lazy::LazyMembers::default(),
            delivered: delivered::Delivered::default(),
        });
        let sync = Self { cx, rooms, devices, live };
        let l = &sync.live;
        let follow = l.notifier.clone().run(sync.cx.store.clone(), updates, l.typing.clone(), l.presence.clone());
        tokio::spawn(follow);
        tokio::spawn(sync.clone().load_presence());
        if sync.writes_typing() {
            tokio::spawn(sync.clone().time_out_typing());
            tokio::spawn(sync.clone().follow_leavers());
        }
        if sync.cx.config.presence.track && !sync.writes_presence() {
            tokio::spawn(sync.clone().sweep_ended_syncs());
        }
        if sync.cx.duties.background_tasks {
            tokio::spawn(sync.clone().rotate_push_actions());
        }
        sync
    }

    /// Who is present, from the table; then, in the writer, the time-outs.
    async fn load_presence(self) {
        let mut attempt = 0;
        let active = loop {
            match self.cx.store.active_presence().await {
                Ok(active) => break active,
                Err(e) => {
                    slog::warn!(self.cx.log, "presence not loaded, trying again"; "error" => %e);
                    store::db::back_off(&mut attempt).await;
                }
            }
        };
        self.live.presence_writer.start(&active);
        self.live.presence.fill(active);
        if self.writes_presence() {
            self.time_out_presence().await;
        }
    }

    /// Those who leave a room stop typing there. Never returns.
    async fn follow_leavers(self) {
        let mut updates = self.cx.store.streams.subscribe();
        loop {
            match updates.recv().await {
                Ok(update) if update.stream == Stream::Events => {
                    for row in &update.rows {
                        if let Row::Event(e) = row
                            && let (Some(user), Some(membership)) = (&e.state_key, &e.membership)
                            && membership != "join"
                        {
                            self.set_typing(&e.room_id, user, None);
                        }
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                _ => {}
            }
        }
    }

    /// Filter of a request without one.
    pub fn default_filter() -> Arc<Filter> {
        Arc::new(Filter::default())
    }
}
