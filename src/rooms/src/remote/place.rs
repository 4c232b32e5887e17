//! Gives an event of another server its place in the room, and judges it there.

use super::check::{auth_of, by_own_account};
use super::{AUTH_ERROR, Incoming, Known, remote};
use crate::power::Levels;
use crate::prepared::Prepared;
use crate::{Rooms, StateMap};
use rules::AuthEvent;
use rules::build::rules_of;
use ruma::EventId;
use slog::info;
use std::collections::HashMap;
use std::sync::Arc;
use types::{Boxed, Error, EventFormat, OwnedEventId, Pdu, Result};

/// What is missing to judge an event.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Missing {
    pub prev: Vec<OwnedEventId>,
    pub auth: Vec<OwnedEventId>,
}

/// An event at its place, with the state before it.
pub(crate) struct Placed {
    pub prepared: Prepared,
    pub before: StateMap,
}

/// How an event is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// By the room as it is now, too: what it forbids is stored and not shown (spec: "Soft failure").
    Live,
    /// By its own time only.
    History,
}

impl Rooms {
    /// What of an event's surroundings is not stored.
    pub(crate) async fn missing_of(&self, pdu: &Pdu) -> Result<Missing> {
        let rules = rules_of(&pdu.room_version)?.authorization;
        let auth = auth_of(pdu, &rules)?;
        let ids: Vec<&EventId> = pdu.prev_events.iter().chain(&auth).map(|id| &**id).collect();
        let known = self.cx.store.standing_of(&ids).await?;
        let lacks = |id: &&OwnedEventId| known.get(*id).is_none_or(|k| k.outlier && !k.rejected);
        Ok(Missing {
            prev: pdu.prev_events.iter().filter(lacks).cloned().collect(),
            auth: auth.iter().filter(|id| !known.contains_key(*id)).cloned().collect(),
        })
    }

    /// Places an event. `state`: the state before it, where not all events before it are stored.
    pub(crate) async fn place_event(&self, event: Incoming, state: Option<StateMap>, judge: Judge) -> Result<Placed> {
        let Incoming { mut pdu, json, .. } = event;
        let (base, before) = match state {
            Some(state) => (None, state),
            None => self.state_where_it_meets(&pdu).await?,
        };
        self.judge(&mut pdu, &before, judge).await?;
        let (group, base) = self.store_state(&pdu.room_id.clone(), &pdu, &before, base).await?;
        Ok(Placed { prepared: remote(pdu, json, Some(group), Some(base)), before })
    }

    /// The state before an event all of whose predecessors are stored, and its group if there is one.
    async fn state_where_it_meets(&self, pdu: &Pdu) -> Result<(Option<i64>, StateMap)> {
        let store = &self.cx.store;
        if pdu.prev_events.is_empty() {
            // The create event.
            return Ok((None, StateMap::new()));
        }
        let found = store.groups_of_events(&pdu.prev_events).await?;
        let mut groups: Vec<i64> = pdu.prev_events.iter().filter_map(|id| found.get(id)).copied().collect();
        groups.sort_unstable();
        groups.dedup();
        match groups[..] {
            [] => Err(Error::internal(format!("no state is known before {}", pdu.event_id))),
            [group] => Ok((Some(group), store.state_of_group(group).await?.state.clone())),
            _ => {
                let mut states = Vec::with_capacity(groups.len());
                for group in &groups {
                    states.push(store.state_of_group(*group).await?.state.clone());
                }
                let resolved = self.resolve_states(&pdu.room_version, states.clone(), &HashMap::new()).await?;
                let same = states.iter().position(|s| *s == resolved).map(|i| groups[i]);
                Ok((same, resolved))
            }
        }
    }

    /// Rejects what the rules forbid at its place; in a live room, what the room as it is now forbids fails softly.
    fn judge<'a>(&'a self, pdu: &'a mut Pdu, before: &'a StateMap, judge: Judge) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let rules = rules_of(&pdu.room_version)?.authorization;
            let types = rules::auth::auth_types(&pdu.kind, &pdu.sender, pdu.state_key.as_deref(), &pdu.content, &rules);
            let Ok(mut types) = types else {
                pdu.rejected = Some(AUTH_ERROR.to_owned());
                return Ok(());
            };
            types.extend(crate::power::KEYS.map(|(k, s)| (k.to_owned(), s.to_owned())));
            let at_place: Vec<OwnedEventId> = types.iter().filter_map(|key| before.get(key)).cloned().collect();
            let mut ids = auth_of(pdu, &rules)?;
            ids.extend(at_place.iter().cloned());
            let stored = self.cx.store.events(&ids).await?;
            let known: Known = stored.into_iter().map(|(id, e)| (id, AuthEvent::new(e))).collect();
            let event = AuthEvent::new(Arc::new(pdu.clone()));
            let here = |kind: &str, key: &str| known.get(before.get(&(kind.to_owned(), key.to_owned()))?).cloned();
            if let Err(e) =
                by_own_account(&event, &rules, &known).and_then(|()| rules::auth::check(&event, &rules, here))
            {
                info!(self.cx.log, "an event is rejected"; "event" => %pdu.event_id, "room" => %pdu.room_id, "error" => %e);
                pdu.rejected = Some(AUTH_ERROR.to_owned());
                return Ok(());
            }
            if pdu.kind == "m.room.redaction" && EventFormat::of(&pdu.room_version) != EventFormat::V1 {
                let state =
                    crate::access::by_key(at_place.iter().filter_map(|id| known.get(id)).map(|e| e.pdu().clone()));
                let levels = Levels::of(&state);
                pdu.meta.recheck_redaction = levels.of_user(&pdu.sender) < levels.to_redact();
            }
            if judge == Judge::Live {
                let keys: Vec<(&str, &str)> = types.iter().map(|(k, s)| (k.as_str(), s.as_str())).collect();
                let current = self.current_events(&pdu.room_id, &keys).await?;
                let now = |kind: &str, key: &str| {
                    current.get(&(kind.to_owned(), key.to_owned())).cloned().map(AuthEvent::new)
                };
                if !current.is_empty()
                    && let Err(e) = rules::auth::check(&event, &rules, now)
                {
                    info!(self.cx.log, "an event fails softly"; "event" => %pdu.event_id, "room" => %pdu.room_id, "error" => %e);
                    pdu.meta.soft_failed = true;
                }
            }
            Ok(())
        })
    }
}
