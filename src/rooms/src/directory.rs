//! The public room directory (spec: "Listing rooms").

use crate::Rooms;
use crate::abroad::path;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ruma::{RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::directory::{DirectoryQuery, Listed, Network};
use types::{Error, Requester, Result};

/// Most rooms one page may hold.
const MAX_ROOMS: i64 = 100;

/// Which rooms to list.
#[derive(Clone, Debug)]
pub struct Listing {
    pub network: Network,
    pub search: Option<String>,
    pub room_types: Option<Vec<Option<String>>>,
    /// `next_batch` or `prev_batch` of an earlier page.
    pub since: Option<String>,
    /// None: as many as a page may hold.
    pub limit: Option<i64>,
}

/// A room of the directory.
#[derive(Debug, Serialize)]
pub struct Entry {
    room_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canonical_alias: Option<String>,
    num_joined_members: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
    world_readable: bool,
    guest_can_join: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_type: Option<String>,
}

impl From<Listed> for Entry {
    fn from(l: Listed) -> Self {
        Self {
            room_id: l.room_id,
            name: l.name,
            topic: l.topic,
            canonical_alias: l.canonical_alias,
            num_joined_members: l.joined_members,
            avatar_url: l.avatar,
            world_readable: l.history_visibility.as_deref() == Some("world_readable"),
            guest_can_join: l.guest_access.as_deref() == Some("can_join"),
            join_rule: l.join_rules,
            room_type: l.room_type,
        }
    }
}

/// Body of `/publicRooms`.
#[derive(Debug, Default, Serialize)]
pub struct PublicRooms {
    chunk: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    total_room_count_estimate: i64,
}

/// Position in the list: base64 of a MessagePack map, as in Synapse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Batch {
    /// Joined members of the last room.
    #[serde(rename = "m")]
    members: i64,
    #[serde(rename = "r")]
    room_id: String,
    #[serde(rename = "d")]
    forwards: bool,
}

impl Batch {
    fn parse(token: &str) -> Result<Self> {
        let bad = || Error::invalid_param("since is not a token of this directory");
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
        rmp_serde::from_slice(&bytes).map_err(|_| bad())
    }

    fn of(room: &Listed, forwards: bool) -> Self {
        Self { members: room.joined_members, room_id: room.room_id.clone(), forwards }
    }

    fn token(&self) -> Result<String> {
        Ok(URL_SAFE_NO_PAD.encode(rmp_serde::to_vec_named(self)?))
    }
}

/// The pages before and after: `rooms` holds what is shown, `more` whether the query found more in its direction.
fn batches(since: Option<&Batch>, rooms: &[Listed], more: bool) -> Result<(Option<String>, Option<String>)> {
    let token = |room: Option<&Listed>, forwards| room.map(|r| Batch::of(r, forwards).token()).transpose();
    let (first, last) = (rooms.first(), rooms.last());
    match since {
        None => Ok((None, if more { token(last, true)? } else { None })),
        Some(b) if b.forwards => {
            // An empty page after the end leads back by a token below every room.
            let end = Batch { members: 0, room_id: String::new(), forwards: false };
            let prev = match first {
                Some(r) => Batch::of(r, false),
                None => end,
            };
            Ok((Some(prev.token()?), if more { token(last, true)? } else { None }))
        }
        Some(_) => Ok((if more { token(first, false)? } else { None }, token(last, true)?)),
    }
}

impl Rooms {
    /// A page of the public directory.
    pub async fn public_rooms(&self, listing: &Listing) -> Result<PublicRooms> {
        if !self.cx.config.directory.enable_room_list_search {
            return Ok(PublicRooms::default());
        }
        let since = listing.since.as_deref().map(Batch::parse).transpose()?;
        let limit = listing.limit.unwrap_or(MAX_ROOMS).clamp(1, MAX_ROOMS);
        let forwards = since.as_ref().is_none_or(|b| b.forwards);
        let query = DirectoryQuery {
            network: listing.network.clone(),
            search: listing.search.as_ref().filter(|s| !s.is_empty()).map(|s| s.to_lowercase()),
            room_types: listing.room_types.clone(),
            after: since.as_ref().map(|b| (b.members, b.room_id.clone())),
            forwards,
            // One more shows whether there is another page.
            limit: limit + 1,
            federated_only: false,
        };
        let store = &self.cx.store;
        if since.is_none() {
            store.await_statistics().await?;
        }
        let (mut rooms, total) = futures::try_join!(store.public_rooms(&query), store.count_public_rooms(&query))?;
        let more = rooms.len() as i64 > limit;
        if more {
            // The surplus room is the one farthest in the direction of the page.
            if forwards {
                rooms.pop();
            } else {
                rooms.remove(0);
            }
        }
        let (prev_batch, next_batch) = batches(since.as_ref(), &rooms, more)?;
        let chunk = rooms.into_iter().map(Entry::from).collect();
        Ok(PublicRooms { chunk, prev_batch, next_batch, total_room_count_estimate: total })
    }

    /// A page of another server's directory. `query`: the body of its `POST /publicRooms`. A server that does not
    /// search is asked for all its rooms, and the search is made here. 502 if it does not answer.
    pub async fn public_rooms_of(&self, server: &ServerName, query: &Value) -> Result<Value> {
        if !self.cx.config.directory.enable_room_list_search {
            return Ok(json!({"chunk": [], "total_room_count_estimate": 0}));
        }
        let unfit = |_| Error::client(502, "M_UNKNOWN", "Failed to fetch room list");
        let path = path("v1", &["publicRooms"]);
        let term = query["filter"]["generic_search_term"].as_str().filter(|t| !t.is_empty());
        match (self.fed.post(server.as_str(), &path, query).await, term) {
            (Err(e), _) if !(e.is_unrecognized() || e.status() == Some(404)) => Err(unfit(e)),
            (Ok(page), _) => Ok(page),
            (Err(_), term) => {
                let mut page = self.fed.get(server.as_str(), &path).await.map_err(unfit)?;
                if let (Some(term), Some(Value::Array(chunk))) = (term, page.get_mut("chunk")) {
                    let term = term.to_lowercase();
                    let says =
                        |room: &Value, key: &str| room[key].as_str().is_some_and(|t| t.to_lowercase().contains(&term));
                    chunk.retain(|room| ["name", "topic", "canonical_alias"].iter().any(|key| says(room, key)));
                }
                Ok(page)
            }
        }
    }

    /// Lists a room in the directory or takes it off.
    pub async fn set_listed(&self, who: &Requester, room_id: &RoomId, public: bool) -> Result<()> {
        let directory = &self.cx.config.directory;
        if who.is_guest {
            return Err(Error::forbidden("Guests cannot edit the published room list"));
        }
        if public && !directory.enable_room_list_search {
            return Err(Error::forbidden("This user is not permitted to publish rooms to the room list"));
        }
        if self.cx.store.room(room_id.as_str()).await?.is_none() {
            return Err(Error::bad_request("Unknown room"));
        }
        if !self.may_change_listing(who, room_id).await? {
            let text = "This server requires you to be a moderator in the room to edit its room list entry";
            return Err(Error::forbidden(text));
        }
        if public {
            let mut aliases = self.cx.store.aliases_of(room_id.as_str()).await?;
            let canonical = self.current_event(room_id, "m.room.canonical_alias", "").await?;
            aliases.extend(canonical.and_then(|e| e.content_str("alias")));
            let aliases: Vec<&str> = aliases.iter().map(String::as_str).collect();
            if !directory.may_publish_room(who.user_id.as_str(), room_id.as_str(), &aliases) {
                return Err(Error::client(403, "M_UNKNOWN", "Not allowed to publish room"));
            }
        }
        self.cx.store.set_public(room_id.as_str(), public).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_synapses() {
        // Printed by Synapse's RoomListNextBatch(last_joined_members=3, last_room_id="!a:b", direction_is_forward=True).
        let batch = Batch { members: 3, room_id: "!a:b".into(), forwards: true };
        assert_eq!(batch.token().unwrap(), "g6FtA6FypCFhOmKhZMM");
        assert_eq!(Batch::parse("g6FtA6FypCFhOmKhZMM").unwrap(), batch);
        assert_eq!(Batch::parse("nonsense!").unwrap_err().errcode(), Some("M_INVALID_PARAM"));
    }

    #[test]
    fn pages_lead_both_ways() {
        let room = |id: &str, n| Listed { room_id: id.into(), joined_members: n, ..Listed::default() };
        let rooms = [room("!b:a", 5), room("!c:a", 4)];
        assert!(matches!(batches(None, &rooms, true).unwrap(), (None, Some(_))));
        assert!(matches!(batches(None, &rooms, false).unwrap(), (None, None)));
        let forwards = Batch::of(&rooms[0], true);
        assert!(matches!(batches(Some(&forwards), &rooms, false).unwrap(), (Some(_), None)));
        assert!(matches!(batches(Some(&forwards), &[], false).unwrap(), (Some(_), None)));
        let back = Batch::of(&rooms[0], false);
        assert!(matches!(batches(Some(&back), &rooms, false).unwrap(), (None, Some(_))));
    }
}
