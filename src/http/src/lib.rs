//! What stands between a socket and a handler. Knows no endpoint.
//!
//! An endpoint is one [`Route`]: method, paths, where it must run, its rate-limit class, its handler.
//! From the same row come dispatch, handing on to the right process, the proxy configuration and the docs.

pub mod dispatch;
pub mod metrics;
pub mod reply;
pub mod request;
pub mod route;
pub mod serve;
pub mod table;
pub mod txns;

pub use dispatch::{Incoming, dispatch};
pub use reply::{IntoReply, Json, Reply};
pub use request::{Rq, misshapen};
pub use route::{Access, App, Caller, On, Rate, Resource, Route, route};
pub use serve::{BodyLimit, FEDERATION_PROXY, Serving, SocketFile, bind_tcp, bind_unix};
pub use table::Table;
pub use txns::Txns;
