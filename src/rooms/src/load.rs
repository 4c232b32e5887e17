//! Reading a room's hot state from the database.

use crate::Rooms;
use crate::head::{Head, Tip, summarise};
use crate::resolve::difference;
use rules::AuthEvent;
use rules::build::{reference_to, rules_of};
use ruma::{EventId, OwnedEventId, RoomId};
use types::{Boxed, Error, EventFormat, Result};

/// State events every room needs at hand.
const HOT: [&str; 6] = [
    "m.room.create",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.name",
    "m.room.encryption",
    "m.room.tombstone",
];

impl Rooms {
    /// Loads a room this process owns.
    pub(crate) fn load<'a>(&'a self, room_id: &'a RoomId) -> Boxed<'a, Result<Head>> {
        Box::pin(async move {
            let store = &self.cx.store;
            let (row, tips, members) =
                futures::try_join!(store.room_row(room_id), store.extremities(room_id), store.members_of(room_id))?;
            let row = row.ok_or_else(|| Error::forbidden("Unknown room"))?;
            let rules = rules_of(&row.version)?;
            let server = self.writing.signer.server_name.as_str();
            let mut head = Head::empty(room_id.to_owned(), row.version, rules, server, row.has_auth_chain_index);
            if tips.is_empty() {
                // A room whose creation is under way elsewhere.
                return Ok(head);
            }
            let mut groups: Vec<i64> = tips.iter().filter_map(|t| t.state_group).collect();
            groups.sort_unstable();
            groups.dedup();
            for tip in &tips {
                let reference = reference_to(&tip.event_id, &tip.json, &head.version)?;
                head.tips.push(Tip { reference, depth: tip.depth, group: tip.state_group });
            }
            match groups[..] {
                [] => return Err(Error::internal(format!("no state is known at the end of {room_id}"))),
                [group] => {
                    let known = store.state_of_group(group).await?;
                    (head.group, head.hops, head.state) = (group, known.hops, known.state.clone());
                }
                [base, ..] => {
                    head.state = self.resolve_groups(&head, &groups).await?;
                    self.group_for_state(&mut head, base).await?;
                }
            }
            let hot: Vec<OwnedEventId> = HOT.iter().filter_map(|kind| head.state_id(kind, "").cloned()).collect();
            self.need(&mut head, &hot).await?;
            for kind in HOT {
                if let Some(event) = head.state_event(kind, "").map(|e| e.pdu().clone()) {
                    summarise(&mut head.summary, &event, "");
                }
            }
            for member in members.into_iter().filter(|m| m.membership == "join") {
                if member.user_id.split_once(':').is_some_and(|(_, host)| host == server) {
                    if member.participant {
                        head.members.participants.insert(member.user_id.clone());
                    }
                    head.members.local.insert(member.user_id.clone(), member.display_name);
                }
                head.members.joined.insert(member.user_id);
            }
            head.abandoned = head.members.joined.is_empty();
            if groups.len() > 1 && !head.abandoned {
                // Whoever stored the ends may have resolved them otherwise.
                let current = store.current_state(room_id).await?;
                let changes = difference(&current, &head.state);
                head.pending_delta = self.named(&mut head, changes).await?;
            }
            Ok(head)
        })
    }

    /// Makes sure state events are at hand.
    pub(crate) async fn need(&self, head: &mut Head, ids: &[OwnedEventId]) -> Result<()> {
        self.know(head, ids).await?;
        match ids.iter().find(|id| !head.events.contains_key(*id)) {
            Some(id) => Err(Error::internal(format!("state event {id} of {} is missing", head.room_id))),
            None => Ok(()),
        }
    }

    /// Gets those state events that are stored. Events in rooms this server is not in lack what authorised them.
    pub(crate) async fn know(&self, head: &mut Head, ids: &[OwnedEventId]) -> Result<()> {
        let missing: Vec<&EventId> = ids.iter().filter(|id| !head.events.contains_key(*id)).map(|id| &**id).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for (id, event) in self.cx.store.events(&missing).await? {
            head.events.insert(id, AuthEvent::new(event));
        }
        Ok(())
    }

    /// Makes sure the reference hashes of events are at hand; only rooms v1 and v2 need any.
    pub(crate) async fn need_hashes(&self, head: &mut Head, ids: &[OwnedEventId]) -> Result<()> {
        if EventFormat::of(&head.version) != EventFormat::V1 {
            return Ok(());
        }
        let missing: Vec<&str> = ids.iter().filter(|id| !head.hashes.contains_key(*id)).map(|i| i.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for (id, json) in self.cx.store.event_jsons(&missing).await? {
            let id: OwnedEventId = id.try_into()?;
            if let Some(hash) = reference_to(&id, &json, &head.version)?.hash {
                head.hashes.insert(id, hash);
            }
        }
        Ok(())
    }
}
