//! What leaves on its own: events and ephemeral data for other servers (spec: Server-Server API, "Transactions").
//!
//! [`follow`](Sender) reads the streams of the cluster and fills a queue for each server (`queue`); a queue with
//! something in it has a task that sends transactions (`transmit`) until it is empty or the server does not answer.
//! What a server missed is in the tables and is sent when it is back (`destination_rooms`).

mod edus;
mod events;
mod follow;
mod queue;
mod transmit;

use dashmap::DashMap;
use fedclient::Fed;
use queue::Queue;
use replication::Cx;
use std::sync::Arc;

/// Sends to the servers that are this process's by `federation_sender_instances`. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    cx: Cx,
    fed: Fed,
    /// Servers with something to send; an entry is there as long as its task runs.
    queues: Arc<DashMap<String, Queue>>,
}

/// Starts the federation sender, if this process is one. Its tasks end with the runtime.
pub fn start(cx: &Cx, fed: &Fed) {
    if !cx.duties.federation_sender {
        return;
    }
    let sender = Sender { cx: cx.clone(), fed: fed.clone(), queues: Arc::default() };
    tokio::spawn(sender.clone().follow_events());
    tokio::spawn(sender.clone().follow_streams());
    tokio::spawn(sender.clone().follow_servers());
    tokio::spawn(sender.look_after_those_behind());
}

impl Sender {
    /// Whether a server is sent to, and by this process.
    fn is_mine(&self, destination: &str) -> bool {
        let config = &self.cx.config;
        destination != config.server.name.as_str()
            && config.federation.allows(destination)
            && config.owners().federation_sender(destination) == Some(&*self.cx.instance)
    }

    fn is_local(&self, user_id: &str) -> bool {
        user_id.split_once(':').is_some_and(|(_, server)| server == self.cx.config.server.name.as_str())
    }
}
