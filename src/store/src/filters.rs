//! Storing filters: table `user_filters`. A filter never changes.

use crate::{Store, transaction};
use ruma::UserId;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::Result;

impl Store {
    /// Stores a filter; the same filter has the same id.
    pub async fn add_filter(&self, user_id: &UserId, filter: &Map<String, Value>) -> Result<i64> {
        let json = serde_json::to_vec(&sorted(filter))?;
        let (id, localpart) = (user_id.as_str(), user_id.localpart());
        let mut attempt = 0;
        loop {
            let added = transaction!(self, "add_user_filter", |tx| {
                let sql = "SELECT filter_id FROM user_filters WHERE full_user_id = $1 AND filter_json = $2";
                if let Some(row) = tx.query_opt(sql, &[&id, &json]).await? {
                    return Ok(row.get::<_, i64>(0));
                }
                let sql = "INSERT INTO user_filters (full_user_id, user_id, filter_id, filter_json)
                           SELECT $1, $2, COALESCE(MAX(filter_id) + 1, 0), $3 FROM user_filters WHERE full_user_id = $1
                           RETURNING filter_id";
                let row = tx.query_opt(sql, &[&id, &localpart, &json]).await?;
                row.map(|r| r.get(0)).ok_or_else(|| types::Error::internal("a filter got no id"))
            });
            match added {
                // Another request of the user got the id first.
                Err(e) if crate::db::is_constraint(&e) && attempt < 5 => attempt += 1,
                other => return other,
            }
        }
    }
}

/// JSON with sorted keys: canonical but for fractions, which filters may have.
#[derive(Serialize)]
#[serde(untagged)]
enum Sorted<'a> {
    Object(BTreeMap<&'a str, Sorted<'a>>),
    Array(Vec<Sorted<'a>>),
    Other(&'a Value),
}

fn sorted(map: &Map<String, Value>) -> Sorted<'_> {
    Sorted::Object(map.iter().map(|(k, v)| (k.as_str(), sorted_value(v))).collect())
}

fn sorted_value(value: &Value) -> Sorted<'_> {
    match value {
        Value::Object(map) => sorted(map),
        Value::Array(list) => Sorted::Array(list.iter().map(sorted_value).collect()),
        other => Sorted::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let filter: Map<String, Value> = serde_json::from_str(r#"{"b":[{"d":1.5,"c":null}],"a":"ü"}"#).unwrap();
        assert_eq!(serde_json::to_string(&sorted(&filter)).unwrap(), r#"{"a":"ü","b":[{"c":null,"d":1.5}]}"#);
    }
}
