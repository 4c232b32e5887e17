//! Matrix's rules as pure functions: building and signing events, authorisation, state resolution,
//! validation of what clients send, relations, push evaluation. No IO, no async.

pub mod auth;
pub mod build;
pub mod hash;
pub mod incoming;
pub mod proposal;
pub mod push;
pub mod relations;
pub mod resolve;

pub mod validate;

pub use auth::AuthEvent;
pub use build::{Built, Draft, Reference, Signer};
pub use incoming::Incoming;
pub use relations::{Relation, relation};
