//! From the events a request came to, to what is written of them.

use crate::committer::Slot;
use crate::head::Head;
use crate::make::{Made, Step};
use ruma::OwnedEventId;
use store::persist::{NewRoomRow, Revived, RoomWrite};

/// What the templates of a request came to.
#[derive(Default)]
pub(crate) struct Parts {
    made: Vec<Made>,
    slots: Vec<Slot>,
}

impl Parts {
    pub fn add(&mut self, step: Step) {
        match step {
            Step::Made(made) => {
                self.slots.push(match made.revived {
                    true => Slot::Existing(made.event.pdu.event_id.clone()),
                    false => Slot::New(self.made.iter().filter(|m| !m.revived).count()),
                });
                self.made.push(*made);
            }
            Step::Existing(id) => self.slots.push(Slot::Existing(id)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    pub fn into_write(self, head: &mut Head, new_room: Option<NewRoomRow>) -> (RoomWrite, Vec<Slot>) {
        let changed = !self.made.is_empty();
        let tips: Vec<OwnedEventId> = head.tips.iter().map(|t| t.reference.id.clone()).collect();
        let mut write = RoomWrite {
            room_id: head.room_id.clone(),
            new_room,
            events: Vec::with_capacity(self.made.len()),
            revived: Vec::new(),
            extremities: changed.then_some(tips),
            groups: std::mem::take(&mut head.pending_groups),
            delta: std::mem::take(&mut head.pending_delta),
            abandoned: false,
            summary: head.summary.clone(),
            participants: std::mem::take(&mut head.pending_participants),
        };
        for made in self.made {
            write.abandoned |= made.abandoned;
            write.groups.extend(made.groups);
            for change in made.delta {
                match write.delta.iter_mut().find(|c| c.kind == change.kind && c.state_key == change.state_key) {
                    // Two changes of one entry in a request come to one.
                    Some(earlier) => earlier.event_id = change.event_id,
                    None => write.delta.push(change),
                }
            }
            match made.revived {
                true => write.revived.push(Revived { event: made.event, at: 0 }),
                false => write.events.push(made.event),
            }
        }
        (write, self.slots)
    }
}
