//! What processes there can be, and how many of them a size of cluster has.

use std::collections::BTreeMap;

use serde::Deserialize;

/// How large a cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// One process.
    Single,
    /// Main, one for rooms, one for syncs: enough for most, since a process uses all cores.
    #[default]
    Small,
    /// Eight processes.
    Medium,
    /// A process or more for every role.
    Large,
}

/// What a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Role {
    /// Writes events: each has its share of the rooms.
    Events,
    /// Answers /sync.
    Sync,
    /// Answers other requests of clients.
    Client,
    /// Answers other servers.
    Federation,
    /// Sends to other servers: each has its share of them.
    Sender,
    /// Keeps and serves media.
    Media,
    /// Writes typing, receipts, to-device messages, account data, presence, device lists and the like.
    Streams,
    /// Runs background tasks, the user directory and application services; one at most.
    Background,
    /// Runs pushers: each has its share of the users.
    Pusher,
}

impl TryFrom<String> for Role {
    type Error = String;

    /// The role of that name; the error names those there are.
    fn try_from(name: String) -> Result<Self, String> {
        let names = || Role::ALL.map(Role::name).join(", ");
        Role::ALL
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| format!("there is no such role; allowed: {}", names()))
    }
}

impl Role {
    /// All roles, in the order of their ports.
    pub const ALL: [Role; 9] = [
        Role::Events,
        Role::Sync,
        Role::Client,
        Role::Federation,
        Role::Sender,
        Role::Media,
        Role::Streams,
        Role::Background,
        Role::Pusher,
    ];

    /// Its name in `cluster.toml` and, with a number, that of its processes.
    pub fn name(self) -> &'static str {
        match self {
            Role::Events => "events",
            Role::Sync => "sync",
            Role::Client => "client",
            Role::Federation => "federation",
            Role::Sender => "sender",
            Role::Media => "media",
            Role::Streams => "streams",
            Role::Background => "background",
            Role::Pusher => "pusher",
        }
    }

    /// What it is for, in a line.
    pub fn purpose(self) -> &'static str {
        match self {
            Role::Events => "writes events, each process its share of the rooms",
            Role::Sync => "answers /sync",
            Role::Client => "answers other requests of clients",
            Role::Federation => "answers other servers",
            Role::Sender => "sends to other servers, each process its share of them",
            Role::Media => "keeps and serves media",
            Role::Streams => "writes typing, receipts, to-device messages, account data, presence, device lists",
            Role::Background => "runs background tasks, the user directory and application services",
            Role::Pusher => "runs pushers, each process its share of the users",
        }
    }

    /// Most processes of the role.
    pub fn most(self) -> u16 {
        match self {
            Role::Background | Role::Media => 1,
            _ => 20,
        }
    }

    /// Whom outside the cluster its processes ask. What a role answers comes through the proxy and counts for nothing.
    pub fn asks(self) -> &'static [Outside] {
        match self {
            Role::Sync => &[],
            Role::Federation | Role::Sender | Role::Streams => &[Outside::Servers],
            Role::Events => &[Outside::Servers, Outside::Lookups],
            Role::Client => &[Outside::Servers, Outside::Lookups, Outside::Logins],
            Role::Media => &[Outside::Servers, Outside::Pages],
            Role::Background => &[Outside::Servers, Outside::Services],
            Role::Pusher => &[Outside::Gateways],
        }
    }
}

/// Whom outside the cluster a process may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Other homeservers. Senders or, without any, main speak to them for all; `outbound_federation_restricted_to` in the
    /// settings names others, or nobody in particular.
    Servers,
    /// Identity servers, whose somebody's address is; only with `enable_3pid_lookup: true` in the settings.
    Lookups,
    /// Captchas, single sign-on, identity and mail servers of those who register and log in.
    Logins,
    /// Pages of which previews are wanted.
    Pages,
    /// Application services.
    Services,
    /// Push gateways and mail servers.
    Gateways,
}

impl Outside {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Outside::Servers => "other servers (senders or main for all)",
            Outside::Lookups => "identity servers (with enable_3pid_lookup)",
            Outside::Logins => "captcha, single sign-on, mail",
            Outside::Pages => "previewed pages",
            Outside::Services => "application services",
            Outside::Gateways => "push gateways, mail",
        }
    }
}

impl Preset {
    /// The number of processes of a role.
    pub fn count(self, role: Role) -> u16 {
        match (self, role) {
            (Preset::Single, _) => 0,
            (Preset::Small, Role::Events | Role::Sync) => 1,
            (Preset::Small, _) => 0,
            (Preset::Medium, Role::Events | Role::Sync) => 2,
            (Preset::Medium, Role::Client | Role::Federation | Role::Streams) => 1,
            (Preset::Medium, _) => 0,
            (Preset::Large, Role::Events | Role::Sync) => 4,
            (Preset::Large, Role::Client) => 3,
            (Preset::Large, Role::Federation | Role::Sender | Role::Streams | Role::Pusher) => 2,
            (Preset::Large, Role::Media | Role::Background) => 1,
        }
    }
}

/// Whether there may be as many of each role. `key`: where they stand in `cluster.toml`.
pub(super) fn check_counts(key: &str, workers: &BTreeMap<Role, u16>) -> Result<(), String> {
    match workers.iter().find(|(role, count)| **count > role.most()) {
        Some((role, count)) => Err(format!("{key}.{}: found {count}; allowed: 0 to {}", role.name(), role.most())),
        None => Ok(()),
    }
}
