//! What goes on by itself in the process that runs the background tasks: statistics, throwing away what is old.

mod cleanup;
mod follow;

use follow::Follower;
use replication::Cx;

/// Starts the tasks this process has by its duties; they end with the runtime.
pub fn start(cx: &Cx) {
    if cx.duties.background_tasks {
        tokio::spawn(follow::run(cx.clone(), Follower::Statistics));
        tokio::spawn(cleanup::run(cx.clone()));
    }
    if cx.duties.user_directory {
        tokio::spawn(follow::run(cx.clone(), Follower::UserDirectory));
    }
}
