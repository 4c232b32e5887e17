//! Authorisation rules (ruma's), over [`Pdu`]s.

use ruma::events::{StateEventType, TimelineEventType};
use ruma::room_version_rules::AuthorizationRules;
use ruma::state_res::{self, Event};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId};
use serde_json::value::RawValue;
use std::sync::Arc;
use types::{Error, Pdu, Result};

/// A [`Pdu`] as ruma's rules want to see it.
#[derive(Clone, Debug)]
pub struct AuthEvent {
    pdu: Arc<Pdu>,
    kind: TimelineEventType,
    /// None for the create event of a v12 room, which has no room id in its JSON.
    room_id: bool,
}

impl AuthEvent {
    pub fn new(pdu: Arc<Pdu>) -> Self {
        let kind = TimelineEventType::from(pdu.kind.as_str());
        let rules = types::room_version::rules(&pdu.room_version);
        let hashed = rules.is_some_and(|r| r.authorization.room_create_event_id_as_room_id);
        let room_id = !(hashed && kind == TimelineEventType::RoomCreate);
        Self { pdu, kind, room_id }
    }

    pub fn pdu(&self) -> &Arc<Pdu> {
        &self.pdu
    }
}

impl Event for AuthEvent {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.pdu.event_id
    }
    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.then_some(&*self.pdu.room_id)
    }
    fn sender(&self) -> &UserId {
        &self.pdu.sender
    }
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(u64::try_from(self.pdu.origin_server_ts).unwrap_or(0).try_into().unwrap_or_default())
    }
    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }
    fn content(&self) -> &RawValue {
        &self.pdu.content
    }
    fn state_key(&self) -> Option<&str> {
        self.pdu.state_key.as_deref()
    }
    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.prev_events.iter())
    }
    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.auth_events.iter())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        self.pdu.redacts.as_ref()
    }
    fn rejected(&self) -> bool {
        self.pdu.rejected.is_some()
    }
}

/// The state a new event is authorised by: (type, state key). The create event is in it for rooms up to v11.
pub fn auth_types(
    kind: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &AuthorizationRules,
) -> Result<Vec<(String, String)>> {
    let types = state_res::auth_types_for_event(&TimelineEventType::from(kind), sender, state_key, content, rules)
        .map_err(|e| Error::bad_json(format!("content: {e}")))?;
    Ok(types.into_iter().map(|(t, k)| (t.to_string(), k)).collect())
}

/// Checks an event against the state before it. `state` looks an event up by (type, state key).
pub fn check(
    event: &AuthEvent,
    rules: &AuthorizationRules,
    state: impl Fn(&str, &str) -> Option<AuthEvent>,
) -> Result<()> {
    if event.kind == TimelineEventType::RoomCreate {
        return state_res::check_state_independent_auth_rules(rules, event, |_| None::<AuthEvent>)
            .map_err(|e| Error::forbidden(capitalised(&e)));
    }
    let fetch = |kind: &StateEventType, key: &str| state(&kind.to_string(), key);
    state_res::check_state_dependent_auth_rules(rules, event, fetch).map_err(|e| Error::forbidden(capitalised(&e)))
}

/// Checks what an event says about its own auth events. `event_by_id` must know all of them.
pub fn check_auth_events(
    event: &AuthEvent,
    rules: &AuthorizationRules,
    event_by_id: impl Fn(&EventId) -> Option<AuthEvent>,
) -> Result<()> {
    state_res::check_state_independent_auth_rules(rules, event, event_by_id)
        .map_err(|e| Error::forbidden(capitalised(&e)))
}

fn capitalised(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
