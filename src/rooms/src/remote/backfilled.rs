//! What the owner of a room does with history that was fetched later: it is stored, and changes neither the room's
//! ends nor its current state.

use crate::head::Head;
use crate::prepared::Prepared;
use crate::take::auth_ids;
use crate::{Rooms, Sent};
use rules::{AuthEvent, relation};
use store::persist::{NewEvent, Revived, RoomWrite};
use types::Result;

impl Rooms {
    /// Stores history. Answers with what was new; an error leaves the head good for nothing.
    pub(crate) async fn take_backfill(&self, head: &mut Head, events: &[Prepared]) -> Result<Vec<Sent>> {
        let known = self.look_ahead(head, events).await?;
        let mut write = RoomWrite::nothing(&head.room_id);
        for p in events {
            let standing = known.get(&p.pdu.event_id);
            let outlier = standing.is_some_and(|s| s.outlier && !s.rejected) && p.is_accepted();
            if standing.is_some() && !outlier {
                continue;
            }
            let auth_ids = auth_ids(head, &p.pdu)?;
            self.know(head, &auth_ids).await?;
            let mut pdu = p.pdu.clone();
            let place = match (&pdu.state_key, outlier) {
                (Some(_), false) => {
                    let (pool, store) = (&self.writing.chains, &self.cx.store);
                    head.chains.place(store, pool, &pdu, &auth_ids, &head.events).await?.parts()
                }
                _ => (None, false),
            };
            if outlier && let Some(stored) = self.cx.store.event(&pdu.event_id).await? {
                let pdu = std::sync::Arc::make_mut(&mut pdu);
                (pdu.stream_ordering, pdu.instance_name) = (stored.stream_ordering, stored.instance_name.clone());
            }
            head.events.insert(pdu.event_id.clone(), AuthEvent::new(pdu.clone()));
            let event = NewEvent {
                json: p.json.clone(),
                state_group: p.group,
                auth_ids,
                chain: place.0,
                chain_later: place.1,
                push: Vec::new(),
                staged: false,
                push_thread: String::new(),
                relation: relation(&pdu).map(|r| (r.parent, r.rel_type, r.key)),
                remote: true,
                pdu,
            };
            match outlier {
                true => write.revived.push(Revived { event, at: 0 }),
                false => write.events.push(event),
            }
        }
        if !write.is_empty() {
            self.cx.store.write_backfill(&mut write, self.cx.now_ms()).await?;
        }
        let instance = self.cx.instance.to_string();
        Ok(write
            .events
            .iter()
            .map(|e| Sent {
                event_id: e.pdu.event_id.clone(),
                room_id: head.room_id.clone(),
                stream_ordering: -e.pdu.stream(),
                instance: instance.clone(),
            })
            .collect())
    }
}
