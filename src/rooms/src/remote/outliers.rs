//! Events whose place in the room is not known: what authorises other events, and the state of rooms just joined.

use super::check::{auth_of, by_authority, by_own_account};
use super::{AUTH_ERROR, Incoming, Known, outlier};
use crate::Rooms;
use rules::AuthEvent;
use rules::build::rules_of;
use ruma::{EventId, RoomId, RoomVersionId};
use slog::info;
use std::collections::HashSet;
use std::sync::Arc;
use types::{Boxed, OwnedEventId, Result};

impl Rooms {
    /// Stores those events that are not stored yet, each judged by the events it names; what is forbidden is stored
    /// as rejected, what names events nobody has is left out. Answers with all of them that are stored now, and what
    /// authorises them.
    pub(crate) fn take_outliers<'a>(
        &'a self,
        room_id: &'a RoomId,
        version: &'a RoomVersionId,
        events: Vec<Incoming>,
    ) -> Boxed<'a, Result<Known>> {
        Box::pin(async move {
            let rules = rules_of(version)?.authorization;
            let mut known = self.authorities_of(&events, &rules).await?;
            let new: Vec<Incoming> = events.into_iter().filter(|e| !known.contains_key(&e.pdu.event_id)).collect();
            let mut taken = Vec::with_capacity(new.len());
            for mut event in by_authority(new, |e| &e.pdu, &rules)? {
                let id = event.pdu.event_id.clone();
                if known.contains_key(&id) {
                    continue;
                }
                if event.pdu.room_id != room_id || !auth_of(&event.pdu, &rules)?.iter().all(|a| known.contains_key(a)) {
                    info!(self.cx.log, "an event without its authority is left out"; "event" => %id, "room" => %room_id);
                    continue;
                }
                if let Err(e) = by_own_account(&AuthEvent::new(Arc::new(event.pdu.clone())), &rules, &known) {
                    info!(self.cx.log, "an event is rejected"; "event" => %id, "room" => %room_id, "error" => %e);
                    event.pdu.rejected = Some(AUTH_ERROR.to_owned());
                }
                let prepared = outlier(event.pdu, event.json);
                known.insert(id, AuthEvent::new(prepared.pdu.clone()));
                taken.push(prepared);
            }
            if !taken.is_empty() {
                self.hand_remote(room_id, taken, false).await?;
            }
            Ok(known)
        })
    }

    /// Those of the events, and of what authorises them, that are stored.
    async fn authorities_of(
        &self,
        events: &[Incoming],
        rules: &ruma::room_version_rules::AuthorizationRules,
    ) -> Result<Known> {
        let mut ids: HashSet<OwnedEventId> = HashSet::new();
        for event in events {
            ids.insert(event.pdu.event_id.clone());
            ids.extend(auth_of(&event.pdu, rules)?);
        }
        let ids: Vec<&EventId> = ids.iter().map(|id| &**id).collect();
        Ok(self.cx.store.events(&ids).await?.into_iter().map(|(id, e)| (id, AuthEvent::new(e))).collect())
    }
}
