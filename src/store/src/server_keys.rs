//! Signing keys of other servers: `server_signature_keys` (what Synapse's tools read) and `server_keys_json`
//! (the signed answers the keys came in, which both servers read keys from).

use crate::{Cache, Store, WireKey, transaction};
use serde_json::Value;
use std::collections::HashMap;
use types::{Boxed, Result};

/// (server, key id). On the wire both travel as the JSON of a pair, in one text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyName(pub String, pub String);

impl WireKey for KeyName {
    fn from_wire(keys: &[String]) -> Option<Self> {
        let [pair] = keys else { return None };
        let (server, key_id) = serde_json::from_str(pair).ok()?;
        Some(Self(server, key_id))
    }

    fn to_wire(&self) -> Vec<String> {
        vec![serde_json::json!([self.0, self.1]).to_string()]
    }
}

/// A key to verify with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// Base64 without padding.
    pub key: String,
    /// Nothing that was signed later counts. Milliseconds.
    pub valid_until_ms: i64,
}

/// The signed answer a key came in.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyAnswer {
    pub key_id: String,
    pub json: String,
    pub added_ms: i64,
    pub valid_until_ms: i64,
}

/// Keys of one server as they were fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedKeys {
    pub server_name: String,
    /// By key id, with old ones.
    pub keys: HashMap<String, ServerKey>,
    /// The raw bytes of each key in `keys`.
    pub raw: HashMap<String, Vec<u8>>,
    /// The signed answer, canonical JSON.
    pub json: String,
}

pub(crate) type ServerKeyCache = Cache<KeyName, ServerKey>;

impl Store {
    /// Those of the wanted keys that are known.
    pub fn server_keys<'a>(&'a self, wanted: &'a [KeyName]) -> Boxed<'a, Result<HashMap<KeyName, ServerKey>>> {
        Box::pin(async move {
            let cache = &self.federation.server_keys;
            let mut found = HashMap::new();
            let mut missing = Vec::new();
            for name in wanted {
                match cache.get(name) {
                    Some(key) => drop(found.insert(name.clone(), key)),
                    None => missing.push((name, cache.stamp(name))),
                }
            }
            if missing.is_empty() {
                return Ok(found);
            }
            let servers: Vec<&str> = missing.iter().map(|(n, _)| n.0.as_str()).collect();
            let ids: Vec<&str> = missing.iter().map(|(n, _)| n.1.as_str()).collect();
            let sql = "SELECT DISTINCT ON (server_name, key_id) server_name, key_id, key_json, ts_valid_until_ms
                       FROM server_keys_json
                       WHERE (server_name, key_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
                       ORDER BY server_name, key_id, ts_added_ms DESC";
            for row in self.db.query(sql, &[&servers, &ids]).await? {
                let name = KeyName(row.get(0), row.get(1));
                let Some(key) = key_in(row.get(2), &name.1) else { continue };
                let key = ServerKey { key, valid_until_ms: row.get::<_, Option<i64>>(3).unwrap_or(0) };
                if let Some((_, stamp)) = missing.iter().find(|(n, _)| **n == name) {
                    cache.put_since(*stamp, name.clone(), key.clone());
                }
                found.insert(name, key);
            }
            Ok(found)
        })
    }

    /// The latest answer for each of these keys of a server, or for all it has.
    pub async fn server_key_answers(&self, server: &str, key_ids: Option<&[String]>) -> Result<Vec<KeyAnswer>> {
        let sql = "SELECT DISTINCT ON (key_id) key_id, key_json, ts_added_ms, ts_valid_until_ms FROM server_keys_json
                   WHERE server_name = $1 AND ($2::text[] IS NULL OR key_id = ANY($2))
                   ORDER BY key_id, ts_added_ms DESC";
        let rows = self.db.query(sql, &[&server, &key_ids]).await?;
        let answers = rows.iter().filter_map(|row| {
            let json = String::from_utf8(row.get::<_, Vec<u8>>(1)).ok()?;
            Some(KeyAnswer { key_id: row.get(0), json, added_ms: row.get(2), valid_until_ms: row.get(3) })
        });
        Ok(answers.collect())
    }

    /// Keeps what `from` (the server itself or a notary) answered.
    pub fn store_server_keys<'a>(
        &'a self,
        from: &'a str,
        fetched: &'a [FetchedKeys],
        now_ms: i64,
    ) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let all = || fetched.iter().flat_map(|f| f.keys.iter().map(move |(id, key)| (f, id, key)));
            let servers: Vec<&str> = all().map(|(f, _, _)| f.server_name.as_str()).collect();
            let ids: Vec<&str> = all().map(|(_, id, _)| id.as_str()).collect();
            let until: Vec<i64> = all().map(|(_, _, key)| key.valid_until_ms).collect();
            let raw: Vec<&[u8]> =
                all().map(|(f, id, _)| f.raw.get(id).map(Vec::as_slice).unwrap_or_default()).collect();
            let json: Vec<&[u8]> = all().map(|(f, _, _)| f.json.as_bytes()).collect();
            let mut forget = Vec::new();
            for (f, id, _) in all() {
                let name = KeyName(f.server_name.clone(), id.clone());
                forget.push((self.federation.server_keys.name().to_owned(), Some(name.to_wire())));
                forget.push(("get_server_key_json_for_remote".to_owned(), Some(vec![name.0, name.1])));
            }
            transaction!(self, "store_server_keys_response", |tx| {
                tx.run(
                    "INSERT INTO server_signature_keys
                         (server_name, key_id, from_server, ts_added_ms, ts_valid_until_ms, verify_key)
                     SELECT s, k, $3, $4, u, v FROM unnest($1::text[], $2::text[], $5::bigint[], $6::bytea[]) AS t(s, k, u, v)
                     ON CONFLICT (server_name, key_id) DO UPDATE SET from_server = EXCLUDED.from_server,
                         ts_added_ms = EXCLUDED.ts_added_ms, ts_valid_until_ms = EXCLUDED.ts_valid_until_ms,
                         verify_key = EXCLUDED.verify_key",
                    &[&servers, &ids, &from, &now_ms, &until, &raw],
                )
                .await?;
                tx.run(
                    "INSERT INTO server_keys_json
                         (server_name, key_id, from_server, ts_added_ms, ts_valid_until_ms, key_json)
                     SELECT s, k, $3, $4, u, j FROM unnest($1::text[], $2::text[], $5::bigint[], $6::bytea[]) AS t(s, k, u, j)
                     ON CONFLICT (server_name, key_id, from_server) DO UPDATE SET ts_added_ms = EXCLUDED.ts_added_ms,
                         ts_valid_until_ms = EXCLUDED.ts_valid_until_ms, key_json = EXCLUDED.key_json",
                    &[&servers, &ids, &from, &now_ms, &until, &json],
                )
                .await?;
                tx.forget_many(self, forget.clone()).await
            })
        })
    }
}

/// A key in the signed answer it came in, old ones included.
fn key_in(json: &[u8], key_id: &str) -> Option<String> {
    let answer: Value = serde_json::from_slice(json).ok()?;
    let key = ["verify_keys", "old_verify_keys"].iter().find_map(|part| answer[part][key_id]["key"].as_str())?;
    Some(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_on_the_wire_as_synapse_does() {
        let name = KeyName("example.org".into(), "ed25519:a".into());
        assert_eq!(name.to_wire(), [r#"["example.org","ed25519:a"]"#]);
        assert_eq!(KeyName::from_wire(&[r#"["example.org", "ed25519:a"]"#.to_owned()]), Some(name));
    }

    #[test]
    fn keys_are_found_among_current_and_old_ones() {
        let json = br#"{"verify_keys":{"ed25519:a":{"key":"A"}},"old_verify_keys":{"ed25519:b":{"key":"B"}}}"#;
        assert_eq!(key_in(json, "ed25519:a").as_deref(), Some("A"));
        assert_eq!(key_in(json, "ed25519:b").as_deref(), Some("B"));
        assert_eq!(key_in(json, "ed25519:c"), None);
    }
}
