//! A room as its writer holds it: everything the next event needs, ahead of what is committed.

use crate::chain::Chains;
use rules::{AuthEvent, Reference};
use ruma::room_version_rules::RoomVersionRules;
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use store::persist::{NewGroup, RoomSummary, StateChange};
use store::state_groups::StateMap;
use tokio::sync::watch;
use types::{Pdu, Result};

use crate::Sent;

/// A forward extremity.
#[derive(Clone, Debug)]
pub(crate) struct Tip {
    pub reference: Reference,
    pub depth: i64,
    /// State after it.
    pub group: Option<i64>,
}

/// Who is in the room, as far as notifications and clean-up need to know.
#[derive(Default, Debug)]
pub(crate) struct Members {
    /// Name of this server.
    pub server: String,
    /// Joined local users with their display names.
    pub local: HashMap<String, Option<String>>,
    /// All joined users.
    pub joined: HashSet<String>,
    /// Local users known to have sent a message since they joined.
    pub participants: HashSet<String>,
}

/// Power levels, read once per event.
#[derive(Default, Debug)]
pub(crate) struct Levels {
    pub users: HashMap<String, i64>,
    pub users_default: i64,
    pub notifications: HashMap<String, i64>,
    /// Users with unlimited power (v12).
    pub creators: HashSet<String>,
    pub redact: i64,
}

impl Levels {
    pub fn of(&self, user: &str) -> i64 {
        if self.creators.contains(user) {
            return i64::MAX;
        }
        self.users.get(user).copied().unwrap_or(self.users_default)
    }
}

/// Identifies a client transaction: user, device, transaction id.
pub(crate) type TxnKey = (String, String, String);

/// Where the outcome of a client transaction appears once it is committed.
pub(crate) type TxnSlot = watch::Receiver<Option<Sent>>;

/// Recent transactions of clients.
#[derive(Default)]
pub(crate) struct Txns {
    /// Under way, or committed since the last look. Those without a device stay: the database does not know them.
    open: HashMap<TxnKey, TxnSlot>,
    /// Length of `open` at which to look again.
    look_at: usize,
    /// Hashes of committed ones, oldest forgotten first: whether it is really one of them the database says.
    committed: VecDeque<u64>,
    /// Devices whose first transaction here was looked up in the database.
    pub checked: HashSet<(String, String)>,
}

const TXNS_KEPT: usize = 2_000;

impl Txns {
    pub fn get(&self, key: &TxnKey) -> Option<TxnSlot> {
        self.open.get(key).cloned()
    }

    /// Whether the database may have it.
    pub fn is_committed(&self, key: &TxnKey) -> bool {
        self.committed.contains(&self.open.hasher().hash_one(key))
    }

    pub fn put(&mut self, key: TxnKey, slot: TxnSlot) {
        self.open.insert(key, slot);
        if self.open.len() > self.look_at {
            self.settle();
            self.look_at = 2 * self.open.len() + 4;
        }
    }

    pub fn forget(&mut self, key: &TxnKey) {
        self.open.remove(key);
    }

    /// Leaves of those that ended only what is needed to recognise them.
    pub fn settle(&mut self) {
        let (hasher, committed) = (self.open.hasher().clone(), &mut self.committed);
        let crowded = self.open.len() > TXNS_KEPT;
        self.open.retain(|key, slot| {
            let (ended, known) = (slot.borrow().is_some(), !key.1.starts_with('\0'));
            if ended && known {
                committed.push_back(hasher.hash_one(key));
            }
            if ended { !known && !crowded } else { slot.has_changed().is_ok() }
        });
        while committed.len() > TXNS_KEPT {
            committed.pop_front();
        }
    }
}

/// The hot state of a room.
pub(crate) struct Head {
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    pub rules: RoomVersionRules,
    pub tips: Vec<Tip>,
    /// State after the tips, and the group that stands for it.
    pub state: StateMap,
    pub group: i64,
    /// Deltas in the group's chain.
    pub hops: u32,
    /// State events by id: those in use for authorisation, and those not committed yet.
    pub events: HashMap<OwnedEventId, AuthEvent>,
    /// Reference hashes of events in rooms v1 and v2, by event id.
    pub hashes: HashMap<OwnedEventId, String>,
    pub members: Members,
    pub summary: RoomSummary,
    pub chains: Chains,
    levels: Option<Arc<Levels>>,
    /// (sender, type) of messages known to be allowed by the present state.
    pub allowed: HashSet<(String, String)>,
    pub txns: Txns,
    /// `current_state_events` is empty because no local user is left.
    pub abandoned: bool,
    /// Groups and changes that came up on loading, to be written with the next event.
    pub pending_groups: Vec<NewGroup>,
    pub pending_delta: Vec<StateChange>,
    /// Who became a participant by the event being made.
    pub pending_participants: Vec<String>,
    /// A change was begun and not finished: the head is good for nothing.
    pub torn: bool,
}

impl Head {
    /// A room without events.
    pub fn empty(
        room_id: OwnedRoomId,
        version: RoomVersionId,
        rules: RoomVersionRules,
        server: &str,
        indexed: bool,
    ) -> Self {
        Self {
            room_id,
            version,
            rules,
            tips: Vec::new(),
            state: StateMap::new(),
            group: 0,
            hops: 0,
            events: HashMap::new(),
            hashes: HashMap::new(),
            members: Members { server: server.to_owned(), ..Members::default() },
            summary: RoomSummary::default(),
            chains: Chains::new(indexed),
            levels: None,
            allowed: HashSet::new(),
            txns: Txns::default(),
            abandoned: false,
            pending_groups: Vec::new(),
            pending_delta: Vec::new(),
            pending_participants: Vec::new(),
            torn: false,
        }
    }

    /// False after an error in the middle of a change.
    pub fn is_intact(&self) -> bool {
        !self.torn
    }

    /// Event id of a state entry.
    pub fn state_id(&self, kind: &str, key: &str) -> Option<&OwnedEventId> {
        self.state.get(&(kind.to_owned(), key.to_owned()))
    }

    /// A state event that was loaded before.
    pub fn state_event(&self, kind: &str, key: &str) -> Option<&AuthEvent> {
        self.events.get(self.state_id(kind, key)?)
    }

    /// Power levels of the present state; the create and power levels events must have been loaded.
    pub fn levels(&mut self) -> Arc<Levels> {
        if let Some(levels) = &self.levels {
            return levels.clone();
        }
        let levels = Arc::new(self.read_levels());
        self.levels = Some(levels.clone());
        levels
    }

    fn read_levels(&self) -> Levels {
        let create = self.state_event("m.room.create", "").map(|e| e.pdu().clone());
        let mut levels = Levels { redact: 50, ..Levels::default() };
        let privileged = self.rules.authorization.explicitly_privilege_room_creators;
        if let (Some(create), true) = (&create, privileged) {
            levels.creators.insert(create.sender.to_string());
            let content: Map<String, Value> = create.content_as().unwrap_or_default();
            let more = content.get("additional_creators").and_then(Value::as_array).into_iter().flatten();
            levels.creators.extend(more.filter_map(Value::as_str).map(str::to_owned));
        }
        let Some(power) = self.state_event("m.room.power_levels", "") else {
            // Without power levels the creator has 100.
            if let (Some(create), false) = (&create, privileged) {
                levels.users.insert(create.sender.to_string(), 100);
            }
            return levels;
        };
        let content: Map<String, Value> = power.pdu().content_as().unwrap_or_default();
        let table = |key: &str| -> HashMap<String, i64> {
            let map = content.get(key).and_then(Value::as_object).into_iter().flatten();
            map.filter_map(|(k, v)| Some((k.clone(), level(v)?))).collect()
        };
        levels.users = table("users");
        levels.notifications = table("notifications");
        levels.users_default = content.get("users_default").and_then(level).unwrap_or(0);
        levels.redact = content.get("redact").and_then(level).unwrap_or(50);
        levels
    }

    /// Drops what is not needed all the time. Only right while nothing is in flight.
    pub fn shrink(&mut self) {
        let kept = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
        self.events.retain(|_, e| kept.contains(&e.pdu().kind.as_str()));
        self.events.shrink_to_fit();
        self.hashes = HashMap::new();
        self.chains.clear();
        self.txns.settle();
    }

    /// Takes a new state event into the state. Returns the event it replaces.
    pub fn set_state(&mut self, event: &Arc<Pdu>, key: &str) -> Option<OwnedEventId> {
        let replaced = self.state.insert((event.kind.clone(), key.to_owned()), event.event_id.clone());
        self.events.insert(event.event_id.clone(), AuthEvent::new(event.clone()));
        match event.kind.as_str() {
            "m.room.power_levels" | "m.room.create" => {
                self.levels = None;
                self.allowed.clear();
            }
            "m.room.member" => {
                self.allowed.retain(|(sender, _)| sender != key);
                self.note_member(key, event);
            }
            "m.room.join_rules" | "m.room.third_party_invite" => self.allowed.clear(),
            _ => {}
        }
        summarise(&mut self.summary, event, key);
        replaced
    }

    /// Prunes a state event at hand that was redacted.
    pub fn redact(&mut self, by: &Arc<Pdu>) -> Result<()> {
        let Some(target) = by.redacts.as_ref().filter(|_| by.kind == "m.room.redaction") else { return Ok(()) };
        if let Some(event) = self.events.get(target) {
            if by.meta.recheck_redaction && by.sender.server_name() != event.pdu().sender.server_name() {
                return Ok(());
            }
            let mut pruned = (**event.pdu()).clone();
            store::events::redact(&mut pruned, by.clone())?;
            self.events.insert(target.clone(), AuthEvent::new(Arc::new(pruned)));
            self.levels = None;
            self.allowed.clear();
        }
        Ok(())
    }

    /// Takes an entry out of the state.
    pub fn drop_state(&mut self, kind: &str, key: &str) {
        self.state.remove(&(kind.to_owned(), key.to_owned()));
        self.levels = None;
        self.allowed.clear();
        if kind == "m.room.member" {
            self.members.joined.remove(key);
            self.members.local.remove(key);
        }
        if key.is_empty() {
            match kind {
                "m.room.name" => self.summary.name = None,
                "m.room.encryption" => self.summary.encrypted = false,
                "m.room.tombstone" => self.summary.successor = None,
                _ => {}
            }
        }
    }

    fn note_member(&mut self, user: &str, event: &Pdu) {
        let joined = event.membership().as_deref() == Some("join");
        self.members.participants.remove(user);
        if joined {
            self.members.joined.insert(user.to_owned());
        } else {
            self.members.joined.remove(user);
            self.members.local.remove(user);
        }
        if joined && self.is_local(user) {
            self.members.local.insert(user.to_owned(), event.content_str("displayname"));
        }
    }

    /// Takes note of a message of a local user.
    pub fn note_message(&mut self, event: &Pdu) {
        let counts = event.state_key.is_none() && matches!(event.kind.as_str(), "m.room.message" | "m.room.encrypted");
        let sender = event.sender.as_str();
        if counts && self.members.local.contains_key(sender) && !self.members.participants.contains(sender) {
            self.members.participants.insert(sender.to_owned());
            self.pending_participants.push(sender.to_owned());
        }
    }

    fn is_local(&self, user: &str) -> bool {
        user.split_once(':').is_some_and(|(_, host)| host == self.members.server)
    }
}

fn level(v: &Value) -> Option<i64> {
    // Old rooms have levels written as strings or floats.
    v.as_i64().or_else(|| v.as_f64().map(|f| f as i64)).or_else(|| v.as_str()?.trim().parse().ok())
}

/// What the sliding sync tables repeat of a state event.
pub(crate) fn summarise(summary: &mut RoomSummary, event: &Pdu, key: &str) {
    if !key.is_empty() {
        return;
    }
    let text = |field: &str| event.content_str(field).filter(|s| !s.contains('\0'));
    match event.kind.as_str() {
        "m.room.create" => summary.room_type = text("type"),
        "m.room.name" => summary.name = text("name"),
        "m.room.encryption" => {
            let content: Map<String, Value> = event.content_as().unwrap_or_default();
            summary.encrypted = content.get("algorithm").is_some_and(|a| !a.is_null());
        }
        "m.room.tombstone" => summary.successor = text("replacement_room"),
        _ => {}
    }
}
