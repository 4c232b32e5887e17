//! Rooms: creating, authorising, resolving, persisting events; joining and leaving; reading state.

pub mod access;
pub mod bundle;
pub mod history;
pub mod read;
pub mod relate;
pub mod render;
mod template;
pub mod visibility;

pub use bundle::{Bundle, Bundles};
pub use render::{Render, Shape};
pub use template::{NewRoom, Sent, StateMap, Template};
pub use visibility::{Look, Visible};

use replication::Cx;
use std::sync::Arc;
use types::Result;

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    pub(crate) cx: Cx,
    pub(crate) reading: Arc<Reading>,
}

/// What reading keeps in memory.
pub(crate) struct Reading {
    pub seen: visibility::SeenCache,
}

impl Rooms {
    /// Starts what writes events here, if this process is an events writer.
    pub fn start(cx: Cx) -> Result<Self> {
        let reading = Arc::new(Reading { seen: visibility::SeenCache::new(50_000) });
        Ok(Self { cx, reading })
    }
}
