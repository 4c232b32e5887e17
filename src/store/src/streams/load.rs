//! Positions at start, from `stream_positions`, the sequences and the tables.

use super::{Definition, Position, State, Stream, Streams};
use crate::db::Db;
use dashmap::DashMap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{Notify, broadcast};
use types::{Error, Result};

impl Streams {
    /// Reads where every stream is. `writers`: configured writers of each stream.
    pub async fn load(db: Db, instance: &str, writers: impl Fn(Stream) -> Vec<String>) -> Result<Arc<Self>> {
        drop_former_writers(&db, &writers).await?;
        for (sequence, table, id) in OTHER_SEQUENCES {
            let max = db.query_opt(&format!("SELECT COALESCE(MAX({id}), 1) FROM {table}"), &[]).await?;
            settle_sequence(&db, sequence, max.map_or(1, |r| r.get(0))).await?;
        }
        let saved = saved_positions(&db).await?;
        let mut states = Vec::with_capacity(Stream::ALL.len());
        for stream in Stream::ALL {
            let writers = writers(stream);
            let position = load_position(&db, stream, instance, &writers, &saved).await?;
            states.push(State {
                position: Mutex::new(position),
                moved: Notify::new(),
                unsaved: Notify::new(),
                writers,
            });
        }
        let instance_ids = instance_ids(&db, &states).await?;
        let [bus, announcements] = [(); 2].map(|()| broadcast::channel(super::BUS_CAPACITY).0);
        let (instance, forgets) = (instance.into(), OnceLock::new());
        Ok(Arc::new(Self { db, instance, states, bus, announcements, forgets, instance_ids }))
    }
}

/// Sequences that are no stream's, with the table and column that hold their numbers.
const OTHER_SEQUENCES: [(&str, &str, &str); 2] =
    [("state_group_id_seq", "state_groups", "id"), ("event_auth_chain_id", "event_auth_chains", "chain_id")];

/// Deletes the positions of processes that no longer write a stream: one that comes back must not start at a
/// position of old.
async fn drop_former_writers(db: &Db, writers: impl Fn(Stream) -> Vec<String>) -> Result<()> {
    let named = Stream::ALL.into_iter().filter_map(|s| Some((s.definition().positions?, writers(s))));
    for (name, writers) in named.filter(|(_, writers)| !writers.is_empty()) {
        let sql = "DELETE FROM stream_positions WHERE stream_name = $1 AND instance_name <> ALL($2)";
        db.execute(sql, &[&name, &writers]).await?;
    }
    Ok(())
}

type Saved = HashMap<String, HashMap<String, i64>>;

async fn saved_positions(db: &Db) -> Result<Saved> {
    let mut saved = Saved::new();
    for row in db.query("SELECT stream_name, instance_name, stream_id FROM stream_positions", &[]).await? {
        saved.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    Ok(saved)
}

async fn load_position(db: &Db, stream: Stream, me: &str, writers: &[String], saved: &Saved) -> Result<Position> {
    let d = stream.definition();
    let writes = stream == Stream::Caches || writers.iter().any(|w| w == me);
    let Some(sequence) = d.sequence else {
        let others = writers.iter().filter(|w| *w != me).map(|w| (w.clone(), 0)).collect();
        return Ok(Position::new(me, writes, 0, others));
    };
    let last = settle_sequence(db, sequence, max_id(db, d).await?).await?;
    let mut others = HashMap::new();
    let Some(name) = d.positions else {
        return Ok(Position::new(me, writes, last, others));
    };
    let saved = saved.get(name);
    let known = |w: &String| saved.and_then(|s| s.get(w)).map(|p| if d.negative { -p } else { *p });
    if let Some(beyond) = writers.iter().filter_map(known).find(|p| *p > last) {
        return Err(Error::internal(format!(
            "stream_positions has {beyond} for stream {name}, above {last}, the last value of sequence {sequence}"
        )));
    }
    let baseline = writers.iter().filter_map(known).min();
    for w in writers.iter().filter(|w| *w != me) {
        let at = match (known(w), baseline) {
            (Some(p), _) => p,
            (None, Some(b)) => b,
            (None, None) => max_id(db, d).await?,
        };
        // A single writer's rows below the sequence are all there is to know before it speaks up.
        others.insert(w.clone(), if writers.len() == 1 { at.max(max_id(db, d).await?) } else { at });
    }
    Ok(Position::new(me, writes, last, others))
}

/// Highest id in the stream's tables (counted upwards), at least 1.
async fn max_id(db: &Db, d: &Definition) -> Result<i64> {
    let mut max = 1;
    for s in d.sources {
        let best = if d.negative { format!("-MIN({})", s.id) } else { format!("MAX({})", s.id) };
        let sql = format!("SELECT ({best})::bigint FROM {}", s.table);
        let found: Option<i64> = db.query_opt(&sql, &[]).await?.and_then(|r| r.get(0));
        max = max.max(found.unwrap_or(1));
    }
    Ok(max)
}

/// Moves a sequence that lags behind its tables, whose highest id is `max`; returns its last value.
async fn settle_sequence(db: &Db, sequence: &str, max: i64) -> Result<i64> {
    let sql = format!("SELECT last_value FROM {sequence}");
    let last: i64 =
        db.query_opt(&sql, &[]).await?.ok_or_else(|| Error::internal(format!("no sequence {sequence}")))?.get(0);
    if max > last {
        db.query(&format!("SELECT setval('{sequence}', $1)"), &[&max]).await?;
        return Ok(max);
    }
    Ok(last)
}

/// `instance_map`, with a row for every writer that may have to be named in a token.
async fn instance_ids(db: &Db, states: &[State]) -> Result<DashMap<String, i64>> {
    let mut names: Vec<&str> =
        states.iter().filter(|s| s.writers.len() > 1).flat_map(|s| &s.writers).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        db.execute(
            "INSERT INTO instance_map (instance_name)
             SELECT n FROM unnest($1::text[]) n WHERE NOT EXISTS (SELECT 1 FROM instance_map WHERE instance_name = n)
             ON CONFLICT (instance_name) DO NOTHING",
            &[&names],
        )
        .await?;
    }
    let rows = db.query("SELECT instance_name, instance_id FROM instance_map", &[]).await?;
    Ok(rows.iter().map(|r| (r.get::<_, String>(0), i64::from(r.get::<_, i32>(1)))).collect())
}
