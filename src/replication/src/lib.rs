//! What binds the processes of a cluster: the context every part of a process works in, the bus (Redis),
//! requests between processes (HTTP replication) and the cache they share.

mod cx;
mod link;
pub mod peers;
pub mod shared;

pub use cx::Cx;
pub use peers::Peers;
pub use shared::SharedCache;
