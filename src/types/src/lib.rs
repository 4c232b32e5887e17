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
pub mod shown;
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

/// A future behind a pointer. A plain function that returns one is compiled once, in its own crate; the body of an
/// `async fn` is compiled again in each crate that awaits it, with all that it awaits. So what many crates call and what
/// pulls in a large library (the pool, HTTP clients, DNS) is boxed.
pub type Boxed<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Name of the main process in `stream_writers`, in `instance_name` columns and on the wire.
pub const MASTER: &str = "master";
