//! New rooms: all their first events in one commit.

use crate::ask::Answer;
use crate::committer::Job;
use crate::flight::Flight;
use crate::head::Head;
use crate::parts::Parts;
use crate::{NewRoom, Rooms, Sent, Template};
use config::StreamGroup;
use rules::build::rules_of;
use ruma::{RoomId, RoomVersionId, UserId};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::persist::NewRoomRow;
use tokio::sync::oneshot;
use types::{Error, Requester, Result, json::raw};

/// A room whose id falls to another writer is tried again under another id this often.
const TRIES: i64 = 2_000;

impl Rooms {
    /// Makes a room. The first event must be `m.room.create`; version and creator are filled in where the
    /// room version wants them. Answers with all events in order.
    pub async fn create(&self, who: &Requester, new: NewRoom) -> Result<Vec<Sent>> {
        if !self.cx.duties.writes(StreamGroup::Events) {
            return self.create_elsewhere(who, new).await;
        }
        let rules = rules_of(&new.version)?;
        let hashed = rules.authorization.room_create_event_id_as_room_id;
        let mut templates = new.events;
        complete_create(&mut templates, &new.version, &new.creator)?;
        let (mut head, mut parts) =
            self.new_head(&new.version, rules, hashed, new.room_id.as_deref(), who, &templates).await?;
        for template in templates.iter().skip(1) {
            parts.add(self.make(&mut head, who, template).await?);
        }
        let row = NewRoomRow { version: new.version, creator: new.creator.to_string(), is_public: new.is_public };
        let (write, slots) = parts.into_write(&mut head, Some(row));
        let flight = Arc::new(Flight::default());
        let (reply, answer) = oneshot::channel();
        flight.took_off();
        self.writing.committer.submit(Job { write, slots, flight, reply, txn: None }).await?;
        match answer.await {
            Ok(Ok(Answer::Sent(sent))) => {
                let room_id = head.room_id.clone();
                if self.crowd().is_some() {
                    head.shrink();
                }
                self.handle(&room_id, Some(head));
                Ok(sent)
            }
            Ok(Err(e)) => Err(e),
            _ => Err(Error::unavailable("The room could not be created just now")),
        }
    }

    /// The head of a room that falls to this process, with its create event made.
    async fn new_head(
        &self,
        version: &RoomVersionId,
        rules: ruma::room_version_rules::RoomVersionRules,
        hashed: bool,
        chosen: Option<&RoomId>,
        who: &Requester,
        templates: &[Template],
    ) -> Result<(Head, Parts)> {
        let server = self.writing.signer.server_name.as_str();
        for _ in 0..TRIES {
            let room_id = match chosen {
                Some(id) => id.to_owned(),
                None => self.new_room_id()?,
            };
            if !hashed && !self.is_mine(&room_id) {
                continue;
            }
            let mut head = Head::empty(room_id, version.clone(), rules.clone(), server, true);
            let mut create = templates[0].clone();
            if hashed {
                create.origin_server_ts = Some(creation_time(self.cx.now_ms()));
            }
            let step = self.make(&mut head, who, &create).await?;
            if self.is_mine(&head.room_id) {
                let mut parts = Parts::default();
                parts.add(step);
                return Ok((head, parts));
            }
        }
        Err(Error::unavailable("This process writes no rooms"))
    }
}

/// A time of creation no other room of this process has. Where the room id is the create event's hash, two
/// rooms that one user makes alike in the same millisecond would be the same room.
fn creation_time(now_ms: i64) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let later = |last: i64| now_ms.max(last + 1);
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
    later(before.unwrap_or_default())
}

/// Puts version and creator into the create event as the room version wants them.
pub(crate) fn complete_create(templates: &mut [Template], version: &RoomVersionId, creator: &UserId) -> Result<()> {
    let first = templates.first_mut().filter(|t| t.kind == "m.room.create" && t.state_key.as_deref() == Some(""));
    let create = first.ok_or_else(|| Error::internal("a room must begin with its create event"))?;
    let mut content: Map<String, Value> = serde_json::from_str(create.content.get())?;
    content.insert("room_version".into(), version.as_str().into());
    if rules_of(version)?.authorization.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".into(), creator.as_str().into());
    }
    create.content = raw(&content)?;
    Ok(())
}
