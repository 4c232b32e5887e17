//! Rooms: creating, authorising, resolving, persisting events; joining and leaving; reading state.

mod template;

pub use template::{NewRoom, Sent, StateMap, Template};
