//! Device keys, one-time keys and fallback keys: `e2e_device_keys_json`, `e2e_one_time_keys_json`,
//! `e2e_fallback_keys_json`.

use crate::{Cache, Registry, Store, Tx, transaction};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use types::{Boxed, Result};

/// What every `/sync` of a device asks for.
pub(crate) struct KeyCaches {
    one_time_counts: Cache<(String, String), Arc<BTreeMap<String, i64>>>,
    unused_fallback: Cache<(String, String), Arc<Vec<String>>>,
}

impl KeyCaches {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            one_time_counts: registry.cache("count_e2e_one_time_keys", 10_000),
            unused_fallback: registry.cache("get_e2e_unused_fallback_key_types", 10_000),
        }
    }
}

/// Uploaded keys of a device with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceKeys {
    pub display_name: Option<String>,
    /// As uploaded, with the owner's own cross-signing signatures merged in. None: nothing uploaded.
    pub keys: Option<Map<String, Value>>,
}

/// (user id, device id)
pub type UserDevice = (String, String);

/// Keys by user and device.
pub type KeysByDevice = BTreeMap<String, BTreeMap<String, DeviceKeys>>;

/// A one-time key to be stored or just claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct OneTimeKey {
    pub algorithm: String,
    pub key_id: String,
    /// Canonical JSON.
    pub json: String,
}

/// Keys claimed: user, device, `algorithm:key_id`, key.
pub type Claimed = Vec<(String, String, String, Value)>;

/// A request for `count` one-time keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub user_id: String,
    pub device_id: String,
    pub algorithm: String,
    pub count: i64,
}

/// Signatures of each device's owner on it: (user, device) → [(key id, signature)].
type OwnSignatures = HashMap<UserDevice, Vec<(String, String)>>;

impl Store {
    /// Keys of all devices of `users` and of single `devices`. `with_keyless`: devices that uploaded none, too.
    pub fn device_keys<'a>(
        &'a self,
        users: &'a [String],
        devices: &'a [UserDevice],
        with_keyless: bool,
    ) -> Boxed<'a, Result<KeysByDevice>> {
        Box::pin(async move {
            let join = if with_keyless { "LEFT" } else { "INNER" };
            let sql = format!(
                "SELECT d.user_id, d.device_id, d.display_name, k.key_json
                 FROM devices d {join} JOIN e2e_device_keys_json k USING (user_id, device_id)
                 WHERE NOT COALESCE(d.hidden, false)
                   AND (d.user_id = ANY($1) OR (d.user_id, d.device_id) IN
                        (SELECT * FROM unnest($2::text[], $3::text[])))"
            );
            let signatures = "
                SELECT target_user_id, target_device_id, key_id, signature FROM e2e_cross_signing_signatures
                WHERE user_id = target_user_id
                  AND (target_user_id = ANY($1) OR (target_user_id, target_device_id) IN
                       (SELECT * FROM unnest($2::text[], $3::text[])))";
            let (of_users, of_devices): (Vec<&str>, Vec<&str>) =
                devices.iter().map(|(u, d)| (u.as_str(), d.as_str())).unzip();
            let params: crate::Params<'_> = &[&users, &of_users, &of_devices];
            let (rows, signatures) =
                futures::try_join!(self.db.query(&sql, params), self.db.query(signatures, params))?;
            let mut by_device = OwnSignatures::new();
            for row in signatures {
                by_device.entry((row.get(0), row.get(1))).or_default().push((row.get(2), row.get(3)));
            }
            let mut result = KeysByDevice::new();
            for row in rows {
                let (user, device): UserDevice = (row.get(0), row.get(1));
                let mut keys =
                    row.get::<_, Option<&str>>(3).map(serde_json::from_str::<Map<String, Value>>).transpose()?;
                if let (Some(keys), Some(signatures)) = (&mut keys, by_device.remove(&(user.clone(), device.clone()))) {
                    merge_signatures(keys, &user, signatures);
                }
                let keys = DeviceKeys { display_name: row.get(2), keys };
                result.entry(user).or_default().insert(device, keys);
            }
            Ok(result)
        })
    }

    /// Stores a device's identity keys; false if they were the same before.
    pub async fn set_device_keys(&self, user_id: &str, device_id: &str, keys: &Value, now_ms: i64) -> Result<bool> {
        transaction!(self, "set_e2e_device_keys", |tx| { tx.set_device_keys(user_id, device_id, keys, now_ms).await })
    }

    /// Stored one-time keys of a device among `key_ids`, as (algorithm, key id) → JSON text.
    pub async fn one_time_keys(
        &self,
        user_id: &str,
        device_id: &str,
        key_ids: &[&str],
    ) -> Result<HashMap<(String, String), String>> {
        let sql = "SELECT algorithm, key_id, key_json FROM e2e_one_time_keys_json
                   WHERE user_id = $1 AND device_id = $2 AND key_id = ANY($3)";
        let rows = self.db.query(sql, &[&user_id, &device_id, &key_ids]).await?;
        Ok(rows.iter().map(|r| ((r.get(0), r.get(1)), r.get(2))).collect())
    }

    /// Stores new one-time keys. False, and nothing is stored, if one of them exists by now.
    pub async fn add_one_time_keys(
        &self,
        user_id: &str,
        device_id: &str,
        keys: &[OneTimeKey],
        now_ms: i64,
    ) -> Result<bool> {
        let outcome = transaction!(self, "add_e2e_one_time_keys_insert", |tx| {
            tx.add_one_time_keys(self, user_id, device_id, keys, now_ms).await
        });
        match outcome {
            Err(e) if crate::db::is_constraint(&e) => Ok(false),
            Err(e) => Err(e),
            Ok(()) => Ok(true),
        }
    }

    /// How many one-time keys are left, by algorithm; `signed_curve25519` is always there.
    pub async fn count_one_time_keys(&self, user_id: &str, device_id: &str) -> Result<Arc<BTreeMap<String, i64>>> {
        let key = (user_id.to_owned(), device_id.to_owned());
        let load = async {
            let sql = "SELECT algorithm, COUNT(key_id) FROM e2e_one_time_keys_json
                       WHERE user_id = $1 AND device_id = $2 GROUP BY algorithm";
            let mut counts = BTreeMap::from([("signed_curve25519".to_owned(), 0)]);
            for row in self.db.query(sql, &[&user_id, &device_id]).await? {
                counts.insert(row.get(0), row.get(1));
            }
            Ok(Arc::new(counts))
        };
        self.key_caches.one_time_counts.get_or_load(&key, load).await
    }

    /// Algorithms for which the device has a fallback key that nobody claimed yet.
    pub async fn unused_fallback_key_types(&self, user_id: &str, device_id: &str) -> Result<Arc<Vec<String>>> {
        let key = (user_id.to_owned(), device_id.to_owned());
        let load = async {
            let sql = "SELECT algorithm FROM e2e_fallback_keys_json
                       WHERE user_id = $1 AND device_id = $2 AND NOT used ORDER BY algorithm";
            let rows = self.db.query(sql, &[&user_id, &device_id]).await?;
            Ok(Arc::new(rows.iter().map(|r| r.get(0)).collect()))
        };
        self.key_caches.unused_fallback.get_or_load(&key, load).await
    }

    /// Stores fallback keys, one an algorithm.
    pub async fn set_fallback_keys(&self, user_id: &str, device_id: &str, keys: &Map<String, Value>) -> Result<()> {
        transaction!(self, "set_e2e_fallback_keys_txn", |tx| {
            tx.set_fallback_keys(self, user_id, device_id, keys).await
        })
    }

    /// Takes one-time keys out of the store, oldest first; nobody else can get them.
    pub async fn claim_one_time_keys(&self, claims: &[Claim]) -> Result<Claimed> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let users: Vec<&str> = claims.iter().map(|c| c.user_id.as_str()).collect();
        let devices: Vec<&str> = claims.iter().map(|c| c.device_id.as_str()).collect();
        let algorithms: Vec<&str> = claims.iter().map(|c| c.algorithm.as_str()).collect();
        let counts: Vec<i64> = claims.iter().map(|c| c.count).collect();
        transaction!(self, "claim_e2e_one_time_keys", |tx| {
            let rows = tx.query(CLAIM_ONE_TIME_KEYS, &[&users, &devices, &algorithms, &counts]).await?;
            let claimed = claimed(&rows)?;
            tx.forget_for_devices(self, "count_e2e_one_time_keys", &claimed).await?;
            Ok(claimed)
        })
    }

    /// Reads fallback keys; those whose `mark` is set count as used from now on. Counts are not looked at.
    pub async fn claim_fallback_keys(&self, claims: &[Claim], mark: &[bool]) -> Result<Claimed> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let users: Vec<&str> = claims.iter().map(|c| c.user_id.as_str()).collect();
        let devices: Vec<&str> = claims.iter().map(|c| c.device_id.as_str()).collect();
        let algorithms: Vec<&str> = claims.iter().map(|c| c.algorithm.as_str()).collect();
        let sql = "UPDATE e2e_fallback_keys_json k SET used = k.used OR c.mark
                   FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[]) AS c(user_id, device_id, algorithm, mark)
                   WHERE (k.user_id, k.device_id, k.algorithm) = (c.user_id, c.device_id, c.algorithm)
                   RETURNING k.user_id, k.device_id, k.algorithm, k.key_id, k.key_json";
        transaction!(self, "_claim_e2e_fallback_keys_bulk", |tx| {
            let claimed = claimed(&tx.query(sql, &[&users, &devices, &algorithms, &mark]).await?)?;
            tx.forget_for_devices(self, "get_e2e_unused_fallback_key_types", &claimed).await?;
            Ok(claimed)
        })
    }
}

// Two claims of the same key meet at the DELETE: the later one fails to serialise and is tried again.
const CLAIM_ONE_TIME_KEYS: &str = "
    WITH claims(user_id, device_id, algorithm, claim_count) AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
    ), picked AS (
        SELECT k.user_id, k.device_id, k.algorithm, k.key_id
        FROM claims c CROSS JOIN LATERAL (
            SELECT o.user_id, o.device_id, o.algorithm, o.key_id FROM e2e_one_time_keys_json o
            WHERE o.user_id = c.user_id AND o.device_id = c.device_id AND o.algorithm = c.algorithm
            ORDER BY o.ts_added_ms LIMIT c.claim_count
        ) k
    )
    DELETE FROM e2e_one_time_keys_json k USING picked p
    WHERE (k.user_id, k.device_id, k.algorithm, k.key_id) = (p.user_id, p.device_id, p.algorithm, p.key_id)
    RETURNING k.user_id, k.device_id, k.algorithm, k.key_id, k.key_json";

fn claimed(rows: &[tokio_postgres::Row]) -> Result<Claimed> {
    let one = |r: &tokio_postgres::Row| {
        let name = format!("{}:{}", r.get::<_, &str>(2), r.get::<_, &str>(3));
        Ok((r.get(0), r.get(1), name, serde_json::from_str(r.get(4))?))
    };
    rows.iter().map(one).collect()
}

/// Adds signatures `user` made to an object's `signatures`.
pub fn merge_signatures(
    object: &mut Map<String, Value>,
    user: &str,
    signatures: impl IntoIterator<Item = (String, String)>,
) {
    let mut all = match object.remove("signatures") {
        Some(Value::Object(all)) => all,
        _ => Map::new(),
    };
    let mut theirs = match all.remove(user) {
        Some(Value::Object(theirs)) => theirs,
        _ => Map::new(),
    };
    theirs.extend(signatures.into_iter().map(|(key, signature)| (key, Value::String(signature))));
    all.insert(user.to_owned(), Value::Object(theirs));
    object.insert("signatures".to_owned(), Value::Object(all));
}

impl Tx {
    async fn forget_for_devices(&mut self, store: &Store, cache: &str, claimed: &Claimed) -> Result<()> {
        let devices: HashSet<(&String, &String)> = claimed.iter().map(|(u, d, _, _)| (u, d)).collect();
        let entries = devices.into_iter().map(|(u, d)| (cache.to_owned(), Some(vec![u.clone(), d.clone()])));
        self.forget_many(store, entries.collect()).await
    }

    /// See [`Store::set_device_keys`].
    pub(crate) async fn set_device_keys(
        &mut self,
        user_id: &str,
        device_id: &str,
        keys: &Value,
        now_ms: i64,
    ) -> Result<bool> {
        let sql = "INSERT INTO e2e_device_keys_json (user_id, device_id, ts_added_ms, key_json)
                   VALUES ($1, $2, $3, $4)
                   ON CONFLICT (user_id, device_id)
                   DO UPDATE SET ts_added_ms = EXCLUDED.ts_added_ms, key_json = EXCLUDED.key_json
                   WHERE e2e_device_keys_json.key_json <> EXCLUDED.key_json";
        // serde_json keeps keys sorted: this is canonical JSON, which Synapse compares as text.
        Ok(self.run(sql, &[&user_id, &device_id, &now_ms, &keys.to_string()]).await? > 0)
    }

    /// See [`Store::add_one_time_keys`].
    pub(crate) async fn add_one_time_keys(
        &mut self,
        store: &Store,
        user_id: &str,
        device_id: &str,
        keys: &[OneTimeKey],
        now_ms: i64,
    ) -> Result<()> {
        let algorithms: Vec<&str> = keys.iter().map(|k| k.algorithm.as_str()).collect();
        let ids: Vec<&str> = keys.iter().map(|k| k.key_id.as_str()).collect();
        let texts: Vec<&str> = keys.iter().map(|k| k.json.as_str()).collect();
        let sql = "INSERT INTO e2e_one_time_keys_json
                       (user_id, device_id, algorithm, key_id, ts_added_ms, key_json)
                   SELECT $1, $2, t.algorithm, t.key_id, $3, t.json
                   FROM unnest($4::text[], $5::text[], $6::text[]) AS t(algorithm, key_id, json)";
        self.run(sql, &[&user_id, &device_id, &now_ms, &algorithms, &ids, &texts]).await?;
        let keys = vec![user_id.to_owned(), device_id.to_owned()];
        self.forget_named(store, "count_e2e_one_time_keys", Some(keys)).await
    }

    /// See [`Store::set_fallback_keys`].
    pub(crate) async fn set_fallback_keys(
        &mut self,
        store: &Store,
        user_id: &str,
        device_id: &str,
        keys: &Map<String, Value>,
    ) -> Result<()> {
        // One key an algorithm; of several the last one counts.
        let mut by_algorithm: BTreeMap<&str, (&str, String)> = BTreeMap::new();
        for (name, key) in keys {
            if let Some((algorithm, id)) = name.split_once(':') {
                by_algorithm.insert(algorithm, (id, key.to_string()));
            }
        }
        let algorithms: Vec<&str> = by_algorithm.keys().copied().collect();
        let ids: Vec<&str> = by_algorithm.values().map(|(id, _)| *id).collect();
        let texts: Vec<&str> = by_algorithm.values().map(|(_, text)| text.as_str()).collect();
        // Uploading the same key again must not make it look unused.
        let sql = "INSERT INTO e2e_fallback_keys_json AS old (user_id, device_id, algorithm, key_id, key_json, used)
                   SELECT $1, $2, t.algorithm, t.key_id, t.json, false
                   FROM unnest($3::text[], $4::text[], $5::text[]) AS t(algorithm, key_id, json)
                   ON CONFLICT (user_id, device_id, algorithm)
                   DO UPDATE SET key_id = EXCLUDED.key_id, key_json = EXCLUDED.key_json, used = false
                   WHERE old.key_id <> EXCLUDED.key_id OR old.key_json::jsonb <> EXCLUDED.key_json::jsonb";
        self.run(sql, &[&user_id, &device_id, &algorithms, &ids, &texts]).await?;
        let keys = vec![user_id.to_owned(), device_id.to_owned()];
        self.forget_named(store, "get_e2e_unused_fallback_key_types", Some(keys)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn signatures_are_added_to_those_that_are_there() {
        let mut keys = json!({"signatures": {"@a:x": {"ed25519:D": "s1"}, "@b:x": {"ed25519:E": "s2"}}});
        let Some(object) = keys.as_object_mut() else { unreachable!() };
        merge_signatures(object, "@a:x", [("ed25519:K".to_owned(), "s3".to_owned())]);
        assert_eq!(
            keys,
            json!({"signatures": {"@a:x": {"ed25519:D": "s1", "ed25519:K": "s3"}, "@b:x": {"ed25519:E": "s2"}}})
        );
    }
}
