//! Wakes waiting syncs when a row concerns them. Nothing here asks the database except who shares rooms
//! with somebody whose presence or devices changed (cached).

use crate::typing::TypingView;
use dashmap::DashMap;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Row, Store, Stream, Update};
use tokio::sync::{broadcast, watch};

/// Somebody who waits, or did a short while ago.
struct Waiter {
    user: Arc<str>,
    wake: watch::Sender<u64>,
    rooms: Mutex<Arc<Vec<String>>>,
    waiting: AtomicUsize,
    used: Mutex<Instant>,
}

/// Idle waiters are dropped after this long.
const IDLE: Duration = Duration::from_secs(60);

/// Who waits for what.
#[derive(Default)]
pub struct Notifier {
    users: DashMap<Arc<str>, Arc<Waiter>>,
    rooms: DashMap<String, HashSet<Arc<str>>>,
}

/// A registered wait.
pub struct Listener {
    waiter: Arc<Waiter>,
    changes: watch::Receiver<u64>,
}

impl Listener {
    /// Resolves when something happened for the user since the last call (or since listening began).
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.waiter.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn locked<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Notifier {
    /// Listens for a user and the rooms it is in.
    pub fn listen(&self, user_id: &str, rooms: &Arc<Vec<String>>) -> Listener {
        let user: Arc<str> = user_id.into();
        let waiter = self
            .users
            .entry(user.clone())
            .or_insert_with(|| {
                Arc::new(Waiter {
                    user,
                    wake: watch::channel(0).0,
                    rooms: Mutex::default(),
                    waiting: AtomicUsize::new(0),
                    used: Mutex::new(Instant::now()),
                })
            })
            .clone();
        waiter.waiting.fetch_add(1, Ordering::AcqRel);
        *locked(&waiter.used) = Instant::now();
        let changes = waiter.wake.subscribe();
        self.set_rooms(&waiter, rooms);
        Listener { waiter, changes }
    }

    fn set_rooms(&self, waiter: &Waiter, rooms: &Arc<Vec<String>>) {
        let mut known = locked(&waiter.rooms);
        if Arc::ptr_eq(&known, rooms) {
            return;
        }
        let wanted: HashSet<&String> = rooms.iter().collect();
        for gone in known.iter().filter(|r| !wanted.contains(r)) {
            self.leave(gone, &waiter.user);
        }
        for room in rooms.iter() {
            match self.rooms.get_mut(room) {
                Some(mut users) => {
                    users.insert(waiter.user.clone());
                }
                None => {
                    self.rooms.entry(room.clone()).or_default().insert(waiter.user.clone());
                }
            }
        }
        *known = rooms.clone();
    }

    fn leave(&self, room: &str, user: &Arc<str>) {
        if let Some(mut users) = self.rooms.get_mut(room) {
            users.remove(user);
        }
        self.rooms.remove_if(room, |_, users| users.is_empty());
    }

    /// Wakes one user.
    pub fn wake_user(&self, user: &str) {
        if let Some(w) = self.users.get(user) {
            w.wake.send_modify(|n| *n += 1);
        }
    }

    /// Wakes those waiting in a room.
    pub fn wake_room(&self, room: &str) {
        if let Some(users) = self.rooms.get(room) {
            users.iter().for_each(|u| self.wake_user(u));
        }
    }

    fn wake_all(&self) {
        self.users.iter().for_each(|w| w.wake.send_modify(|n| *n += 1));
    }

    async fn sweep_often(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        let idle: Vec<Arc<Waiter>> = self
            .users
            .iter()
            .filter(|w| w.waiting.load(Ordering::Acquire) == 0 && locked(&w.used).elapsed() > IDLE)
            .map(|w| w.clone())
            .collect();
        for waiter in idle {
            let removed = self.users.remove_if(&waiter.user, |_, w| w.waiting.load(Ordering::Acquire) == 0);
            if removed.is_some() {
                let rooms = locked(&waiter.rooms).clone();
                rooms.iter().for_each(|r| self.leave(r, &waiter.user));
            }
        }
    }

    fn wake_for(self: &Arc<Self>, store: &Arc<Store>, row: &Row) {
        match row {
            Row::Event(e) => {
                self.wake_room(&e.room_id);
                if let ("m.room.member", Some(user)) = (e.kind.as_str(), &e.state_key) {
                    self.wake_user(user);
                }
            }
            Row::Typing { room_id, .. } | Row::UnPartialStatedRoom { room_id } | Row::StickyEvent { room_id, .. } => {
                self.wake_room(room_id)
            }
            Row::Receipt { receipt_type, user_id, .. } if receipt_type == "m.read.private" => self.wake_user(user_id),
            Row::Receipt { room_id, .. } => self.wake_room(room_id),
            Row::AccountData { user_id, .. }
            | Row::PushRules { user_id }
            | Row::ThreadSubscription { user_id, .. }
            | Row::ToDevice { entity: user_id } => self.wake_user(user_id),
            Row::Presence(p) => self.wake_neighbours(store, &p.user_id),
            Row::DeviceList { user_id, is_signature: true, .. } => self.wake_user(user_id),
            Row::DeviceList { user_id, hosts_calculated: false, .. } => self.wake_neighbours(store, user_id),
            _ => {}
        }
    }

    /// Wakes a user and those it shares a room with.
    fn wake_neighbours(self: &Arc<Self>, store: &Arc<Store>, user_id: &str) {
        self.wake_user(user_id);
        if self.users.is_empty() {
            return;
        }
        let (me, store, user_id) = (self.clone(), store.clone(), user_id.to_owned());
        tokio::spawn(async move {
            if let Ok(rooms) = store.rooms_joined_by(&user_id).await {
                let mut users: HashSet<Arc<str>> = HashSet::new();
                for room in rooms.iter() {
                    if let Some(waiting) = me.rooms.get(room) {
                        users.extend(waiting.iter().cloned());
                    }
                }
                users.iter().for_each(|u| me.wake_user(u));
            }
        });
    }

    /// Follows the streams for ever. `apply` brings views that live in memory up to date before anybody wakes.
    pub async fn run(
        self: Arc<Self>,
        store: Arc<Store>,
        mut updates: broadcast::Receiver<Arc<Update>>,
        typing: Arc<TypingView>,
        presence: Arc<crate::presence::View>,
    ) {
        tokio::spawn(self.clone().sweep_often());
        loop {
            match updates.recv().await {
                Ok(update) => {
                    match update.stream {
                        Stream::Typing => typing.apply(&update),
                        Stream::Presence => presence.apply(&update),
                        _ => {}
                    }
                    update.rows.iter().for_each(|row| self.wake_for(&store, row));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    // Rows were missed: the views must not claim to know, and everybody looks for themselves.
                    typing.skip_to(store.streams.current(Stream::Typing));
                    presence.skip_to(store.streams.current(Stream::Presence));
                    self.wake_all();
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_room_wakes_those_who_are_in_it() {
        let n = Notifier::default();
        let rooms = Arc::new(vec!["!a:b".to_owned()]);
        let mut a = n.listen("@a:b", &rooms);
        let mut b = n.listen("@b:b", &Arc::new(vec![]));
        n.wake_room("!a:b");
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, a.changed()).await.is_ok());
        assert!(tokio::time::timeout(short, a.changed()).await.is_err());
        assert!(tokio::time::timeout(short, b.changed()).await.is_err());
        drop(a);
        let mut a = n.listen("@a:b", &Arc::new(vec![]));
        n.wake_room("!a:b");
        assert!(tokio::time::timeout(short, a.changed()).await.is_err());
        assert!(n.rooms.is_empty());
    }
}
