//! Devices, their keys, messages between them, and key backups.

mod backup;
mod cross_signing;
mod dehydrated;
mod devices;
mod for_servers;
mod key_changes;
mod key_query;
mod keys;
mod lists;
mod remote;
mod signatures;
mod signing;
mod tasks;
mod to_device;

pub use dehydrated::DehydratedEvents;
pub use key_changes::{DeviceListChanges, Moves};
pub use keys::KeyUpload;

use dashmap::DashMap;
use fedclient::Fed;
use replication::Cx;
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;

/// Cheap to clone.
#[derive(Clone)]
pub struct Devices {
    cx: Cx,
    /// Set while device changes are being queued for other servers.
    converting: Arc<lists::Converting>,
    /// Other servers.
    fed: Fed,
    /// Changes of a remote user's devices are taken one after the other.
    turns: Arc<DashMap<String, Weak<Mutex<()>>>>,
}

impl Devices {
    pub fn new(cx: Cx, fed: Fed) -> Self {
        Self { cx, converting: Arc::default(), fed, turns: Arc::default() }
    }

    fn turn_of(&self, user_id: &str) -> Arc<Mutex<()>> {
        // Those nobody waits for are of no use any more.
        self.turns.retain(|_, turn| turn.strong_count() > 0);
        let mut entry = self.turns.entry(user_id.to_owned()).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let turn = Arc::default();
            *entry = Arc::downgrade(&turn);
            turn
        })
    }
}
