//! What goes on by itself in the process that runs the background tasks: statistics, throwing away what is old.

mod cleanup;
mod stats;

use replication::Cx;

/// Starts the tasks this process has by its duties; they end with the runtime.
pub fn start(cx: &Cx) {
    if cx.duties.background_tasks {
        tokio::spawn(stats::run(cx.clone()));
        tokio::spawn(cleanup::run(cx.clone()));
    }
}
