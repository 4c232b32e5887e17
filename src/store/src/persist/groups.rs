//! New state groups: `state_groups`, `state_group_edges`, `state_groups_state`.

use super::NewGroup;

pub(super) const GROUPS: &str = "INSERT INTO state_groups (id, room_id, event_id)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])";
pub(super) const EDGES: &str = "INSERT INTO state_group_edges (state_group, prev_state_group)
    SELECT * FROM unnest($1::bigint[], $2::bigint[])";
pub(super) const ENTRIES: &str = "INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])";

/// State groups as columns for the statements above.
#[derive(Default)]
pub(super) struct Groups<'a> {
    pub ids: Vec<i64>,
    pub rooms: Vec<&'a str>,
    /// Events the groups were made for.
    pub events: Vec<&'a str>,
    /// Groups that are others' deltas, and those others.
    pub edges: (Vec<i64>, Vec<i64>),
    pub entries: Entries<'a>,
}

/// What each group sets.
#[derive(Default)]
pub(super) struct Entries<'a> {
    pub groups: Vec<i64>,
    pub rooms: Vec<&'a str>,
    pub kinds: Vec<&'a str>,
    pub keys: Vec<&'a str>,
    pub events: Vec<&'a str>,
}

impl<'a> Groups<'a> {
    /// Of groups with the rooms they belong to.
    pub fn of(groups: impl IntoIterator<Item = (&'a str, &'a NewGroup)>) -> Self {
        let mut columns = Self::default();
        for (room, group) in groups {
            columns.ids.push(group.id);
            columns.rooms.push(room);
            columns.events.push(group.event_id.as_str());
            columns.edges.extend(group.prev.map(|prev| (group.id, prev)));
            for (kind, key, event) in &group.rows {
                columns.entries.groups.push(group.id);
                columns.entries.rooms.push(room);
                columns.entries.kinds.push(kind);
                columns.entries.keys.push(key);
                columns.entries.events.push(event.as_str());
            }
        }
        columns
    }
}
