//! The public room directory.

use crate::Store;
use tokio_postgres::types::ToSql;
use types::Result;

/// A listed room.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub room_id: String,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub canonical_alias: Option<String>,
    pub avatar: Option<String>,
    pub history_visibility: Option<String>,
    pub guest_access: Option<String>,
    pub join_rules: Option<String>,
    pub room_type: Option<String>,
    pub joined_members: i64,
}

/// Which list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The main list.
    Main,
    /// An application service's network.
    Of { appservice: String, network: String },
    /// All of them.
    Any,
}

impl Network {
    /// A network by its `third_party_instance_id`: application service and network, parted by a bar.
    pub fn named(id: &str) -> Result<Self> {
        let parts = id.split_once('|');
        let (appservice, network) =
            parts.ok_or_else(|| types::Error::bad_request(format!("Invalid third party instance ID: {id:?}")))?;
        Ok(Self::Of { appservice: appservice.to_owned(), network: network.to_owned() })
    }
}

/// What to list, biggest rooms first.
#[derive(Clone, Debug)]
pub struct DirectoryQuery {
    pub network: Network,
    /// Lower-cased text to look for in name, topic, canonical alias.
    pub search: Option<String>,
    /// `m.room.create` types; None stands for rooms without one.
    pub room_types: Option<Vec<Option<String>>>,
    /// Start after (joined members, room id).
    pub after: Option<(i64, String)>,
    pub forwards: bool,
    pub limit: i64,
    /// Leave out rooms that are not federated.
    pub federated_only: bool,
}

/// Everything that is listed, with its figures (kept by the background-tasks process in the statistics
/// tables). `$1` and `$2` name an application service's network, `$3` asks for all lists.
const LISTED: &str = "
    WITH published AS (
        SELECT room_id FROM rooms WHERE is_public AND ($1::text IS NULL OR $3)
        UNION
        SELECT room_id FROM appservice_room_list WHERE $3 OR (appservice_id = $1 AND network_id = $2)
    ), listed AS (
        SELECT room_id, s.name, s.topic, s.canonical_alias, s.avatar, s.history_visibility, s.guest_access,
               s.join_rules, s.room_type, s.is_federatable, c.joined_members::bigint AS joined_members
        FROM published JOIN room_stats_state s USING (room_id) JOIN room_stats_current c USING (room_id)
    )
    SELECT room_id, name, topic, canonical_alias, avatar, history_visibility, guest_access, join_rules,
           room_type, joined_members
    FROM listed
    WHERE (join_rules IN ('public', 'knock', 'knock_restricted') OR history_visibility = 'world_readable')
      AND joined_members > 0";

impl Store {
    /// Listed rooms, biggest first (in either direction).
    pub async fn public_rooms(&self, q: &DirectoryQuery) -> Result<Vec<Listed>> {
        let (appservice, network, any) = network_params(&q.network);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&appservice, &network, &any];
        let mut sql = LISTED.to_owned();
        let like = search_pattern(q);
        let (some_types, typeless) = type_params(q);
        push_filter(&mut sql, &mut params, q, &like, &some_types, &typeless);
        if let Some((members, room_id)) = &q.after {
            let op = if q.forwards { "<" } else { ">" };
            params.push(members);
            params.push(room_id);
            sql.push_str(&format!(" AND (joined_members, room_id) {op} (${}, ${})", params.len() - 1, params.len()));
        }
        let order = if q.forwards { "DESC" } else { "ASC" };
        params.push(&q.limit);
        sql.push_str(&format!(" ORDER BY joined_members {order}, room_id {order} LIMIT ${}", params.len()));
        let mut rooms: Vec<Listed> = self.db.query(&sql, &params).await?.iter().map(listed).collect();
        if !q.forwards {
            rooms.reverse();
        }
        Ok(rooms)
    }

    /// How many rooms [`Store::public_rooms`] would list without a limit.
    pub async fn count_public_rooms(&self, q: &DirectoryQuery) -> Result<i64> {
        let (appservice, network, any) = network_params(&q.network);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&appservice, &network, &any];
        let mut sql = LISTED.to_owned();
        let like = search_pattern(q);
        let (some_types, typeless) = type_params(q);
        push_filter(&mut sql, &mut params, q, &like, &some_types, &typeless);
        let row = self.db.query_opt(&format!("SELECT count(*) FROM ({sql}) AS all_rooms"), &params).await?;
        Ok(row.map_or(0, |r| r.get(0)))
    }
}

fn network_params(network: &Network) -> (Option<&str>, Option<&str>, bool) {
    match network {
        Network::Main => (None, None, false),
        Network::Any => (None, None, true),
        Network::Of { appservice, network } => (Some(appservice), Some(network), false),
    }
}

fn search_pattern(q: &DirectoryQuery) -> Option<String> {
    q.search.as_ref().map(|s| format!("%{s}%"))
}

fn type_params(q: &DirectoryQuery) -> (Vec<String>, bool) {
    let types = q.room_types.iter().flatten();
    (types.clone().flatten().cloned().collect(), types.clone().any(Option::is_none))
}

fn push_filter<'a>(
    sql: &mut String,
    params: &mut Vec<&'a (dyn ToSql + Sync)>,
    q: &'a DirectoryQuery,
    like: &'a Option<String>,
    some_types: &'a Vec<String>,
    typeless: &'a bool,
) {
    if like.is_some() {
        params.push(like);
        let n = params.len();
        sql.push_str(&format!(
            " AND (lower(name) LIKE ${n} OR lower(topic) LIKE ${n} OR lower(canonical_alias) LIKE ${n})"
        ));
    }
    if q.room_types.as_ref().is_some_and(|t| !t.is_empty()) {
        params.push(some_types);
        params.push(typeless);
        sql.push_str(&format!(
            " AND (room_type = ANY(${}) OR (${} AND room_type IS NULL))",
            params.len() - 1,
            params.len()
        ));
    }
    if q.federated_only {
        sql.push_str(" AND is_federatable");
    }
}

fn listed(r: &tokio_postgres::Row) -> Listed {
    Listed {
        room_id: r.get(0),
        name: r.get(1),
        topic: r.get(2),
        canonical_alias: r.get(3),
        avatar: r.get(4),
        history_visibility: r.get(5),
        guest_access: r.get(6),
        join_rules: r.get(7),
        room_type: r.get(8),
        joined_members: r.get(9),
    }
}
