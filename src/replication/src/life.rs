//! How far a process is on its way to the end.

use tokio::sync::watch;

/// What a process still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything.
    Serving,
    /// Everything, but proxies are told to go elsewhere: `/health` is 503, connections end with their answer.
    Draining,
    /// Finishes what it has begun; who waits for news is answered at once.
    Stopping,
}

/// The phase of this process, for whoever has to know.
pub struct Life(watch::Sender<Phase>);

impl Default for Life {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }
}

impl Life {
    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Goes on to a later phase; there is no way back.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = *now < phase;
            *now = phase.max(*now);
            later
        });
    }

    /// Returns once the process is stopping.
    pub async fn stopping(&self) {
        // It can't fail: the sender is ours.
        let _ = self.0.subscribe().wait_for(|phase| *phase == Phase::Stopping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Life, Phase};

    #[tokio::test]
    async fn a_process_only_grows_older() {
        let life = Life::default();
        assert_eq!(life.phase(), Phase::Serving);
        life.enter(Phase::Stopping);
        life.enter(Phase::Draining);
        assert_eq!(life.phase(), Phase::Stopping);
        life.stopping().await;
    }
}
