//! Rooms: creating, authorising, resolving, persisting events; joining and leaving; reading state.

mod template;

pub use template::{NewRoom, Sent, StateMap, Template};

use replication::Cx;
use types::Result;

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    pub(crate) cx: Cx,
}

impl Rooms {
    /// Starts what writes events here, if this process is an events writer.
    pub fn start(cx: Cx) -> Result<Self> {
        Ok(Self { cx })
    }
}
