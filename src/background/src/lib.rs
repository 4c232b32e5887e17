//! What goes on by itself in the processes that run background tasks: statistics, the user directory, throwing away
//! what is old or was to be kept for a time only.

mod cleanup;
mod expiry;
mod follow;

use follow::Follower;
use replication::Cx;

/// Starts the tasks this process has by its duties; they end with the runtime.
pub fn start(cx: &Cx) {
    if cx.duties.background_tasks {
        tokio::spawn(follow::run(cx.clone(), Follower::Statistics));
        tokio::spawn(cleanup::run(cx.clone()));
    }
    if cx.duties.is_main && cx.config.server.enable_ephemeral_messages {
        tokio::spawn(expiry::run(cx.clone()));
    }
    if cx.duties.user_directory {
        tokio::spawn(follow::run(cx.clone(), Follower::UserDirectory));
    }
}
