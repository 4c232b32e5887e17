//! What state events add: state groups, chain cover, current state, memberships, sliding sync summaries.

use super::groups::{self, Groups};
use super::{NewEvent, RoomSummary, RoomWrite, StateChange, rooms_of};
use crate::Store;
use crate::db::Conn;
use futures::future::{try_join, try_join3};
use std::collections::HashMap;
use std::sync::Arc;
use types::json::strip_nul;
use types::{Pdu, Result};

const STATE_EVENTS: &str = "INSERT INTO state_events (event_id, room_id, type, state_key)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])";
const AUTH: &str = "INSERT INTO event_auth (event_id, room_id, auth_id)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[])";
const CHAINS: &str = "INSERT INTO event_auth_chains (event_id, chain_id, sequence_number)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])";
const LINKS: &str = "INSERT INTO event_auth_chain_links
    (origin_chain_id, origin_sequence_number, target_chain_id, target_sequence_number)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])";
const CHAIN_LATER: &str = "INSERT INTO event_auth_chain_to_calculate (event_id, room_id, type, state_key)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) ON CONFLICT DO NOTHING";
const ROOMS: &str = "INSERT INTO rooms (room_id, creator, is_public, room_version, has_auth_chain_index)
    SELECT r, c, p, v, true FROM unnest($1::text[], $2::text[], $3::bool[], $4::text[]) AS t(r, c, p, v)";
const DEPTHS: &str = "INSERT INTO room_depth (room_id, min_depth) SELECT r, 1 FROM unnest($1::text[]) AS t(r)
    ON CONFLICT (room_id) DO NOTHING";
const MEMBERSHIPS: &str = "INSERT INTO room_memberships
    (event_id, event_stream_ordering, user_id, sender, room_id, membership, display_name, avatar_url)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])";
const DELTAS: &str = "INSERT INTO current_state_delta_stream
    (stream_id, instance_name, room_id, type, state_key, event_id, prev_event_id)
    SELECT s, $2, r, t, k, e, p
    FROM unnest($1::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS x(s, r, t, k, e, p)";
const CURRENT_GONE: &str = "DELETE FROM current_state_events c
    USING unnest($1::text[], $2::text[], $3::text[]) AS x(r, t, k)
    WHERE c.room_id = x.r AND c.type = x.t AND c.state_key = x.k";
const CURRENT: &str =
    "INSERT INTO current_state_events (room_id, type, state_key, event_id, membership, event_stream_ordering)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
    ON CONFLICT (room_id, type, state_key) DO UPDATE SET event_id = EXCLUDED.event_id,
        membership = EXCLUDED.membership, event_stream_ordering = EXCLUDED.event_stream_ordering";
const LOCAL_GONE: &str = "DELETE FROM local_current_membership c
    USING unnest($1::text[], $2::text[]) AS x(r, u) WHERE c.room_id = x.r AND c.user_id = x.u";
const LOCAL: &str =
    "INSERT INTO local_current_membership (room_id, user_id, event_id, membership, event_stream_ordering)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
    ON CONFLICT (user_id, room_id) DO UPDATE SET event_id = EXCLUDED.event_id,
        membership = EXCLUDED.membership, event_stream_ordering = EXCLUDED.event_stream_ordering";
const JOINED_ROOMS: &str = "INSERT INTO sliding_sync_joined_rooms
    (room_id, event_stream_ordering, bump_stamp, room_type, room_name, is_encrypted, tombstone_successor_room_id)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bool[], $7::text[])
    ON CONFLICT (room_id) DO UPDATE SET room_type = EXCLUDED.room_type, room_name = EXCLUDED.room_name,
        is_encrypted = EXCLUDED.is_encrypted, tombstone_successor_room_id = EXCLUDED.tombstone_successor_room_id";
const SNAPSHOT_GONE: &str = "DELETE FROM sliding_sync_membership_snapshots c
    USING unnest($1::text[], $2::text[]) AS x(r, u) WHERE c.room_id = x.r AND c.user_id = x.u";
const SNAPSHOTS: &str = "INSERT INTO sliding_sync_membership_snapshots
    (room_id, user_id, sender, membership_event_id, membership, forgotten, event_stream_ordering, event_instance_name,
     has_known_state, room_type, room_name, is_encrypted, tombstone_successor_room_id)
    SELECT r, u, s, e, m, 0, o, i, k, t, n, c, x
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[],
                $9::text[], $10::bool[], $11::text[], $12::bool[]) AS v(r, u, s, e, m, o, i, t, n, c, x, k)
    ON CONFLICT (room_id, user_id) DO UPDATE SET sender = EXCLUDED.sender,
        membership_event_id = EXCLUDED.membership_event_id, membership = EXCLUDED.membership,
        forgotten = 0, event_stream_ordering = EXCLUDED.event_stream_ordering,
        event_instance_name = EXCLUDED.event_instance_name, has_known_state = EXCLUDED.has_known_state,
        room_type = EXCLUDED.room_type, room_name = EXCLUDED.room_name, is_encrypted = EXCLUDED.is_encrypted,
        tombstone_successor_room_id = EXCLUDED.tombstone_successor_room_id";
const ABANDON_DELTA: &str = "INSERT INTO current_state_delta_stream
    (stream_id, instance_name, room_id, type, state_key, event_id, prev_event_id)
    SELECT x.s, $2, c.room_id, c.type, c.state_key, NULL, c.event_id
    FROM unnest($1::bigint[], $3::text[]) AS x(s, r) JOIN current_state_events c ON c.room_id = x.r";
const ABANDON_STATE: &str = "DELETE FROM current_state_events WHERE room_id = ANY($1)";
const ABANDON_ROOM: &str = "DELETE FROM sliding_sync_joined_rooms WHERE room_id = ANY($1)";

pub(super) const STATEMENTS: &[&str] = &[
    groups::GROUPS,
    groups::EDGES,
    groups::ENTRIES,
    STATE_EVENTS,
    AUTH,
    CHAINS,
    LINKS,
    CHAIN_LATER,
    ROOMS,
    DEPTHS,
    MEMBERSHIPS,
    DELTAS,
    CURRENT_GONE,
    CURRENT,
    LOCAL_GONE,
    LOCAL,
    JOINED_ROOMS,
    SNAPSHOT_GONE,
    SNAPSHOTS,
    ABANDON_DELTA,
    ABANDON_STATE,
    ABANDON_ROOM,
];

/// Nothing here has to be written for it.
pub(super) fn is_plain(w: &RoomWrite) -> bool {
    w.new_room.is_none() && w.groups.is_empty() && w.delta.is_empty() && !w.abandoned && !w.has_state()
}

/// What does not need stream ids; sent along with the hot statement.
pub(super) async fn run_before(conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let groups = Groups::of(writes.iter().flat_map(|w| w.groups.iter().map(move |g| (w.room_id.as_str(), g))));
    if !groups.ids.is_empty() {
        let (edges, entries) = (&groups.edges, &groups.entries);
        try_join3(
            conn.execute(groups::GROUPS, &[&groups.ids, &groups.rooms, &groups.events]),
            conn.execute(groups::EDGES, &[&edges.0, &edges.1]),
            conn.execute(
                groups::ENTRIES,
                &[&entries.groups, &entries.rooms, &entries.kinds, &entries.keys, &entries.events],
            ),
        )
        .await?;
    }
    let new: Vec<_> = writes.iter().filter_map(|w| Some((w.room_id.as_str(), w.new_room.as_ref()?))).collect();
    if !new.is_empty() {
        let rooms: Vec<&str> = new.iter().map(|(r, _)| *r).collect();
        let creators: Vec<&str> = new.iter().map(|(_, n)| n.creator.as_str()).collect();
        let public: Vec<bool> = new.iter().map(|(_, n)| n.is_public).collect();
        let versions: Vec<&str> = new.iter().map(|(_, n)| n.version.as_str()).collect();
        try_join(conn.execute(ROOMS, &[&rooms, &creators, &public, &versions]), conn.execute(DEPTHS, &[&rooms]))
            .await?;
    }
    Ok(())
}

/// What repeats stream ids or refers to rows of the hot statement. The statements go out together; those that a
/// connection has to prepare first come after others, so that none may count on another of these parts.
pub(super) async fn run_after(store: &Store, conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    futures::try_join!(
        state_events(conn, writes),
        chain_cover(conn, writes),
        memberships(conn, writes),
        abandoned(store, conn, writes),
        current_state(store, conn, writes),
        local_members(store, conn, writes),
        summaries(conn, writes),
    )?;
    Ok(())
}

/// A statement that is only run if it has something to do.
async fn when(wanted: bool, statement: impl Future<Output = Result<u64>>) -> Result<u64> {
    if wanted { statement.await } else { Ok(0) }
}

async fn state_events(conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let events: Vec<&NewEvent> = writes.iter().flat_map(|w| &w.events).filter(|e| e.pdu.is_state()).collect();
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = events.iter().map(|e| e.pdu.event_id.as_str()).collect();
    let rooms: Vec<&str> = events.iter().map(|e| e.pdu.room_id.as_str()).collect();
    let kinds: Vec<&str> = events.iter().map(|e| e.pdu.kind.as_str()).collect();
    let keys: Vec<&str> = events.iter().map(|e| e.pdu.state_key.as_deref().unwrap_or_default()).collect();
    let mut auth: (Vec<&str>, Vec<&str>, Vec<&str>) = Default::default();
    for (e, id) in events.iter().flat_map(|e| e.auth_ids.iter().map(move |a| (e, a))) {
        auth.0.push(e.pdu.event_id.as_str());
        auth.1.push(e.pdu.room_id.as_str());
        auth.2.push(id.as_str());
    }
    try_join(
        conn.execute(STATE_EVENTS, &[&ids, &rooms, &kinds, &keys]),
        conn.execute(AUTH, &[&auth.0, &auth.1, &auth.2]),
    )
    .await?;
    Ok(())
}

async fn chain_cover(conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    futures::try_join!(chain_places(conn, writes), chains_later(conn, writes))?;
    Ok(())
}

async fn chain_places(conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let events = writes.iter().flat_map(|w| &w.events);
    let placed: Vec<_> = events.filter_map(|e| Some((e.pdu.event_id.as_str(), e.chain.as_ref()?))).collect();
    if !placed.is_empty() {
        let ids: Vec<&str> = placed.iter().map(|(id, _)| *id).collect();
        let chains: Vec<i64> = placed.iter().map(|(_, c)| c.chain).collect();
        let sequences: Vec<i64> = placed.iter().map(|(_, c)| c.sequence).collect();
        let mut links: [Vec<i64>; 4] = Default::default();
        for (c, (chain, sequence)) in placed.iter().flat_map(|(_, c)| c.links.iter().map(move |l| (c, *l))) {
            for (column, value) in links.iter_mut().zip([c.chain, c.sequence, chain, sequence]) {
                column.push(value);
            }
        }
        try_join(
            conn.execute(CHAINS, &[&ids, &chains, &sequences]),
            conn.execute(LINKS, &[&links[0], &links[1], &links[2], &links[3]]),
        )
        .await?;
    }
    Ok(())
}

async fn chains_later(conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let later: Vec<&NewEvent> = writes.iter().flat_map(|w| &w.events).filter(|e| e.chain_later).collect();
    if !later.is_empty() {
        let ids: Vec<&str> = later.iter().map(|e| e.pdu.event_id.as_str()).collect();
        let rooms: Vec<&str> = later.iter().map(|e| e.pdu.room_id.as_str()).collect();
        let kinds: Vec<&str> = later.iter().map(|e| e.pdu.kind.as_str()).collect();
        let keys: Vec<&str> = later.iter().map(|e| e.pdu.state_key.as_deref().unwrap_or_default()).collect();
        conn.execute(CHAIN_LATER, &[&ids, &rooms, &kinds, &keys]).await?;
    }
    Ok(())
}

async fn memberships(conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let accepted = writes.iter().flat_map(|w| &w.events).filter(|e| e.pdu.rejected.is_none() && e.pdu.is_state());
    let members: Vec<(&NewEvent, String)> = accepted.filter_map(|e| Some((e, e.pdu.membership()?))).collect();
    if members.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = members.iter().map(|(e, _)| e.pdu.event_id.as_str()).collect();
    let orders: Vec<i64> = members.iter().map(|(e, _)| e.pdu.stream()).collect();
    let users: Vec<&str> = members.iter().map(|(e, _)| e.pdu.state_key.as_deref().unwrap_or_default()).collect();
    let senders: Vec<&str> = members.iter().map(|(e, _)| e.pdu.sender.as_str()).collect();
    let rooms: Vec<&str> = members.iter().map(|(e, _)| e.pdu.room_id.as_str()).collect();
    let kinds: Vec<&str> = members.iter().map(|(_, m)| m.as_str()).collect();
    let clean = |e: &NewEvent, key: &str| e.pdu.content_str(key).filter(|s| !s.contains('\0'));
    let names: Vec<Option<String>> = members.iter().map(|(e, _)| clean(e, "displayname")).collect();
    let avatars: Vec<Option<String>> = members.iter().map(|(e, _)| clean(e, "avatar_url")).collect();
    conn.execute(MEMBERSHIPS, &[&ids, &orders, &users, &senders, &rooms, &kinds, &names, &avatars]).await?;
    Ok(())
}

/// Lowest stream id of a write: deltas carry it, so that no reader sees an event before its state.
pub(super) fn first_id(w: &RoomWrite) -> i64 {
    let first = w.events.first().map(|e| e.pdu.stream());
    first.or(w.revived.first().map(|r| r.at)).unwrap_or_default()
}

async fn abandoned(store: &Store, conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let gone: Vec<&RoomWrite> = writes.iter().filter(|w| w.abandoned).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = gone.iter().map(|w| first_id(w)).collect();
    let rooms: Vec<&str> = gone.iter().map(|w| w.room_id.as_str()).collect();
    // One after the other: the first reads what the second deletes.
    conn.execute(ABANDON_DELTA, &[&ids, &store.instance(), &rooms]).await?;
    conn.execute(ABANDON_STATE, &[&rooms]).await?;
    conn.execute(ABANDON_ROOM, &[&rooms]).await?;
    Ok(())
}

/// The event a change puts in place.
fn event_of<'a>(w: &'a RoomWrite, c: &'a StateChange) -> Option<&'a Arc<Pdu>> {
    let id = c.event_id.as_ref()?;
    w.event(id).map(|e| &e.pdu).or(c.known.as_ref())
}

/// Entries of rooms' states, as columns.
#[derive(Default)]
struct Keys<'a> {
    rooms: Vec<&'a str>,
    kinds: Vec<&'a str>,
    keys: Vec<&'a str>,
}

impl<'a> Keys<'a> {
    fn add(&mut self, write: &'a RoomWrite, change: &'a StateChange) {
        self.rooms.push(write.room_id.as_str());
        self.kinds.push(&change.kind);
        self.keys.push(&change.state_key);
    }
}

async fn current_state(store: &Store, conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let changes: Vec<(&RoomWrite, &StateChange)> =
        writes.iter().filter(|w| !w.abandoned).flat_map(|w| w.delta.iter().map(move |c| (w, c))).collect();
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = changes.iter().map(|(w, _)| first_id(w)).collect();
    let rooms: Vec<&str> = changes.iter().map(|(w, _)| w.room_id.as_str()).collect();
    let kinds: Vec<&str> = changes.iter().map(|(_, c)| c.kind.as_str()).collect();
    let keys: Vec<&str> = changes.iter().map(|(_, c)| c.state_key.as_str()).collect();
    let new: Vec<Option<&str>> = changes.iter().map(|(_, c)| c.event_id.as_ref().map(|e| e.as_str())).collect();
    let old: Vec<Option<&str>> = changes.iter().map(|(_, c)| c.prev.as_ref().map(|e| e.as_str())).collect();
    let last = last_changes(&changes);
    let (mut gone, mut set) = (Keys::default(), Keys::default());
    let (mut events, mut memberships, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for (w, c) in &last {
        match event_of(w, c) {
            Some(pdu) => {
                set.add(w, c);
                events.push(pdu.event_id.as_str());
                memberships.push(pdu.membership());
                streams.push(pdu.stream());
            }
            None => gone.add(w, c),
        }
    }
    try_join3(
        conn.execute(DELTAS, &[&ids, &store.instance(), &rooms, &kinds, &keys, &new, &old]),
        when(!gone.rooms.is_empty(), conn.execute(CURRENT_GONE, &[&gone.rooms, &gone.kinds, &gone.keys])),
        conn.execute(CURRENT, &[&set.rooms, &set.kinds, &set.keys, &events, &memberships, &streams]),
    )
    .await?;
    Ok(())
}

/// The last change of each entry: one statement must not touch a row twice.
fn last_changes<'a>(changes: &[(&'a RoomWrite, &'a StateChange)]) -> Vec<(&'a RoomWrite, &'a StateChange)> {
    let mut last: HashMap<(&str, &str, &str), usize> = HashMap::new();
    for (i, (w, c)) in changes.iter().enumerate() {
        last.insert((w.room_id.as_str(), &c.kind, &c.state_key), i);
    }
    let mut indexes: Vec<usize> = last.into_values().collect();
    indexes.sort_unstable();
    indexes.into_iter().map(|i| changes[i]).collect()
}

async fn local_members(store: &Store, conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let suffix = format!(":{}", store.server_name);
    let changes: Vec<(&RoomWrite, &StateChange)> = writes
        .iter()
        .flat_map(|w| w.delta.iter().map(move |c| (w, c)))
        .filter(|(_, c)| c.kind == "m.room.member" && c.state_key.ends_with(&suffix))
        .collect();
    let last = last_changes(&changes);
    let (set, gone): (Vec<_>, Vec<_>) = last.into_iter().partition(|(w, c)| event_of(w, c).is_some());
    let rooms: Vec<&str> = gone.iter().map(|(w, _)| w.room_id.as_str()).collect();
    let users: Vec<&str> = gone.iter().map(|(_, c)| c.state_key.as_str()).collect();
    let set: Vec<_> = set.into_iter().filter_map(|(w, c)| Some((event_of(w, c)?, &w.summary, true))).collect();
    try_join3(
        when(!gone.is_empty(), conn.execute(LOCAL_GONE, &[&rooms, &users])),
        when(!gone.is_empty(), conn.execute(SNAPSHOT_GONE, &[&rooms, &users])),
        set_local(conn, &set),
    )
    .await?;
    Ok(())
}

/// Notes memberships of local users, with what is known of the room; false: nothing is.
pub(super) async fn set_local(conn: &Conn, set: &[(&Arc<Pdu>, &RoomSummary, bool)]) -> Result<()> {
    if set.is_empty() {
        return Ok(());
    }
    let events = || set.iter().map(|(e, ..)| e);
    let rooms: Vec<&str> = events().map(|e| e.room_id.as_str()).collect();
    let users: Vec<&str> = events().map(|e| e.state_key.as_deref().unwrap_or_default()).collect();
    let senders: Vec<&str> = events().map(|e| e.sender.as_str()).collect();
    let ids: Vec<&str> = events().map(|e| e.event_id.as_str()).collect();
    let kinds: Vec<String> = events().map(|e| e.membership().unwrap_or_default()).collect();
    let orders: Vec<i64> = events().map(|e| e.stream()).collect();
    let writers: Vec<&str> = events().map(|e| e.instance_name.as_deref().unwrap_or(types::MASTER)).collect();
    let summary: Vec<&RoomSummary> = set.iter().map(|(_, s, _)| *s).collect();
    let clean = |s: Option<&String>| s.map(|s| strip_nul(s).into_owned());
    let types: Vec<Option<String>> = summary.iter().map(|s| clean(s.room_type.as_ref())).collect();
    let names: Vec<Option<String>> = summary.iter().map(|s| clean(s.name.as_ref())).collect();
    let encrypted: Vec<bool> = summary.iter().map(|s| s.encrypted).collect();
    let successors: Vec<Option<String>> = summary.iter().map(|s| clean(s.successor.as_ref())).collect();
    let known: Vec<bool> = set.iter().map(|(.., known)| *known).collect();
    try_join(
        conn.execute(LOCAL, &[&rooms, &users, &ids, &kinds, &orders]),
        conn.execute(
            SNAPSHOTS,
            &[
                &rooms,
                &users,
                &senders,
                &ids,
                &kinds,
                &orders,
                &writers,
                &types,
                &names,
                &encrypted,
                &successors,
                &known,
            ],
        ),
    )
    .await?;
    Ok(())
}

async fn summaries(conn: &Conn, writes: &[RoomWrite]) -> Result<()> {
    let mut last: HashMap<&str, &RoomSummary> = HashMap::new();
    for w in writes.iter().filter(|w| w.changes_summary()) {
        last.insert(w.room_id.as_str(), &w.summary);
    }
    if last.is_empty() {
        return Ok(());
    }
    let rooms: Vec<&str> = rooms_of(writes).into_iter().filter(|r| last.contains_key(r)).collect();
    let events = |room: &str| {
        let room = room.to_owned();
        writes.iter().filter(move |w| w.room_id.as_str() == room).flat_map(|w| &w.events)
    };
    let orders: Vec<i64> = rooms.iter().map(|r| events(r).map(|e| e.pdu.stream()).max().unwrap_or_default()).collect();
    let bumps: Vec<Option<i64>> =
        rooms.iter().map(|r| events(r).filter(|e| bumps(&e.pdu.kind)).map(|e| e.pdu.stream()).max()).collect();
    let of = |r: &str| last.get(r).copied();
    let clean = |s: Option<&String>| s.map(|s| strip_nul(s).into_owned());
    let types: Vec<Option<String>> = rooms.iter().map(|r| clean(of(r)?.room_type.as_ref())).collect();
    let names: Vec<Option<String>> = rooms.iter().map(|r| clean(of(r)?.name.as_ref())).collect();
    let encrypted: Vec<bool> = rooms.iter().map(|r| of(r).is_some_and(|s| s.encrypted)).collect();
    let successors: Vec<Option<String>> = rooms.iter().map(|r| clean(of(r)?.successor.as_ref())).collect();
    conn.execute(JOINED_ROOMS, &[&rooms, &orders, &bumps, &types, &names, &encrypted, &successors]).await?;
    Ok(())
}

/// Types that move a room up in sliding sync's lists.
fn bumps(kind: &str) -> bool {
    matches!(
        kind,
        "m.room.create"
            | "m.room.message"
            | "m.room.encrypted"
            | "m.sticker"
            | "m.call.invite"
            | "m.poll.start"
            | "m.beacon_info"
    )
}
