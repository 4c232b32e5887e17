//! What binds the processes of a cluster: the context every part of a process works in, the bus (Redis),
//! requests between processes (HTTP replication) and the cache they share.

mod bus;
mod command;
mod connector;
mod cx;
mod follow;
mod life;
mod link;
mod listen;
pub mod locks;
mod memory;
pub mod peers;
mod proxies;
mod publish;
pub mod shared;

pub use bus::Bus;
pub use command::{Command, UserIp, UserSync};
pub use cx::Cx;
pub use life::{Life, Phase};
pub use memory::Memory;
pub use peers::Peers;
pub use proxies::Proxies;
pub use shared::SharedCache;
