//! What every other crate speaks of: identifiers (ruma's), events, stream tokens, credentials, errors.
//! No IO, no async.

pub mod canonical;
pub mod clock;
pub mod credentials;
pub mod error;
pub mod event;
pub mod filter;
pub mod json;
pub mod requester;
pub mod room_version;
pub mod stream_token;

pub use clock::Clock;
pub use error::{ClientError, Error, Result};
pub use event::{ClientFormat, InternalMetadata, Pdu};
pub use requester::Requester;
pub use room_version::EventFormat;
pub use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName, UserId,
};
pub use stream_token::{MultiToken, RoomToken, StreamToken};

/// Name of the main process in `stream_writers`, in `instance_name` columns and on the wire.
pub const MASTER: &str = "master";
