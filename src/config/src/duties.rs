//! What one process does, computed from the configuration and its name.

use std::fmt;

use crate::Config;
use crate::listeners::{Bind, Listener, ListenerKind};
use crate::stream_group::StreamGroup;
use crate::workers::MAIN;

/// What one process of the cluster does.
#[derive(Clone, Debug)]
pub struct Duties {
    /// The process's name.
    pub instance: String,
    /// Writes what only main may write (`pushers`, `un_partial_stated_*` …) and answers main-only endpoints.
    pub is_main: bool,
    /// What it listens on. Empty if the duties are those of another process than the one the files are for.
    pub listeners: Vec<Listener>,
    /// The stream groups it writes.
    pub writes: Vec<StreamGroup>,
    /// Its place among the event writers and their count.
    pub events_shard: Option<(usize, usize)>,
    /// Runs the tasks that only one process may run.
    pub background_tasks: bool,
    /// Keeps the user directory up to date.
    pub user_directory: bool,
    /// Tells application services about events.
    pub appservices: bool,
    /// Runs pushers (its shard of the users).
    pub pushers: bool,
    /// Sends federation (its shard of the servers).
    pub federation_sender: bool,
    /// Serves media.
    pub media: bool,
    /// Runs the media repository's clean-up jobs.
    pub media_background_jobs: bool,
    /// May speak to other servers itself.
    pub outbound_federation: bool,
}

impl Duties {
    /// The duties of the process with this name.
    pub fn of(config: &Config, instance: &str) -> Duties {
        let workers = &config.workers;
        let is_main = instance == MAIN;
        let names_me = |name: &Option<String>| name.as_deref() == Some(instance);
        let writes: Vec<StreamGroup> = StreamGroup::ALL
            .into_iter()
            .filter(|g| config.owners().writers(*g).iter().any(|w| w == instance))
            .collect();
        let events = config.owners().writers(StreamGroup::Events);
        Duties {
            instance: instance.to_owned(),
            is_main,
            listeners: if instance == workers.instance_name { config.listeners.clone() } else { Vec::new() },
            writes,
            events_shard: events.iter().position(|w| w == instance).map(|i| (i, events.len())),
            background_tasks: workers.background_tasks == instance,
            user_directory: names_me(&workers.user_directory),
            appservices: names_me(&workers.appservices),
            pushers: workers.pushers.iter().any(|w| w == instance),
            federation_sender: workers.federation_senders.iter().any(|w| w == instance),
            media: workers.media_enabled,
            media_background_jobs: workers.media_enabled
                && match &workers.media_background_jobs {
                    Some(name) => name == instance,
                    None => is_main,
                },
            outbound_federation: match &workers.outbound_federation_restricted_to {
                Some(names) => names.iter().any(|n| n == instance),
                None => true,
            },
        }
    }

    /// Whether it writes a group of streams.
    pub fn writes(&self, group: StreamGroup) -> bool {
        self.writes.contains(&group)
    }
}

impl fmt::Display for Duties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.is_main { "main process" } else { "worker" };
        writeln!(f, "{} ({role})", self.instance)?;
        for listener in &self.listeners {
            writeln!(f, "  listens on  {}", describe(listener))?;
        }
        if !self.writes.is_empty() {
            let names: Vec<&str> = self.writes.iter().map(|g| g.name()).collect();
            writeln!(f, "  writes      {}", names.join(", "))?;
        }
        if let Some((index, count)) = self.events_shard.filter(|(_, count)| *count > 1) {
            writeln!(f, "  rooms       shard {} of {count}", index + 1)?;
        }
        let tasks: Vec<&str> = [
            (self.background_tasks, "background tasks"),
            (self.user_directory, "user directory"),
            (self.appservices, "application services"),
            (self.pushers, "pushers"),
            (self.federation_sender, "federation sender"),
            (self.media_background_jobs, "media jobs"),
        ]
        .into_iter()
        .filter_map(|(does, name)| does.then_some(name))
        .collect();
        writeln!(f, "  runs        {}", if tasks.is_empty() { "no tasks".into() } else { tasks.join(", ") })?;
        if !self.outbound_federation {
            writeln!(f, "  federation  goes out through other processes")?;
        }
        Ok(())
    }
}

fn describe(listener: &Listener) -> String {
    let place = match &listener.bind {
        Bind::Tcp { port, addresses, tls } => {
            format!("{} port {port}{}", addresses.join(" "), if *tls { " (TLS)" } else { "" })
        }
        Bind::Unix { path, mode } => format!("{} (mode {mode:o})", path.display()),
    };
    let what = match listener.kind {
        ListenerKind::Metrics => "metrics".into(),
        ListenerKind::Http => listener.resources().iter().map(|r| r.name()).collect::<Vec<_>>().join(", "),
    };
    format!("{place}: {what}")
}
