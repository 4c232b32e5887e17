//! Devices, their keys, messages between them, and key backups.

mod backup;
mod cross_signing;
mod dehydrated;
mod devices;
mod key_changes;
mod key_query;
mod keys;
mod lists;
mod signatures;
mod signing;
mod tasks;
mod to_device;

pub use dehydrated::DehydratedEvents;
pub use key_changes::{DeviceListChanges, Moves};
pub use keys::KeyUpload;

use replication::Cx;
use std::sync::Arc;

/// Cheap to clone.
#[derive(Clone)]
pub struct Devices {
    cx: Cx,
    /// Set while device changes are being queued for other servers.
    converting: Arc<lists::Converting>,
}

impl Devices {
    pub fn new(cx: Cx) -> Self {
        Self { cx, converting: Arc::default() }
    }
}
