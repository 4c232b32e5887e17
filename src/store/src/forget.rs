//! Telling every process, Synapse's included, to drop a cache entry (stream `caches`).

use crate::{Cache, Row, Store, Stream, Tx, WireKey};
use std::time::{SystemTime, UNIX_EPOCH};
use types::Result;

impl Tx {
    /// Drops `key` of a cache of ours here and everywhere once the transaction has committed.
    pub async fn forget<K: WireKey, V: Clone + Send + Sync + 'static>(
        &mut self,
        store: &Store,
        cache: &Cache<K, V>,
        key: K,
    ) -> Result<()> {
        self.forget_named(store, cache.name(), Some(key.to_wire())).await
    }

    /// As [`Tx::forget`] by Synapse's name of the cache, whether or not we have it. `keys` None: all of it.
    pub async fn forget_named(&mut self, store: &Store, name: &str, keys: Option<Vec<String>>) -> Result<()> {
        self.forget_many(store, vec![(name.to_owned(), keys)]).await
    }

    /// Several at once, in two statements.
    pub async fn forget_many(&mut self, store: &Store, entries: Vec<(String, Option<Vec<String>>)>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let ids = self.next_n(&store.streams, Stream::Caches, entries.len()).await?;
        let names: Vec<&str> = entries.iter().map(|(n, _)| n.as_str()).collect();
        // text[] columns cannot be unnested from ragged arrays: each row's keys travel as JSON.
        let keys: Vec<Option<String>> =
            entries.iter().map(|(_, k)| k.as_ref().map(serde_json::to_string).transpose()).collect::<Result<_, _>>()?;
        self.run(
            "INSERT INTO cache_invalidation_stream_by_instance
                 (stream_id, instance_name, cache_func, keys, invalidation_ts)
             SELECT id, $2, name,
                    CASE WHEN keys IS NULL THEN NULL
                         ELSE ARRAY(SELECT jsonb_array_elements_text(keys::jsonb)) END, $5
             FROM unnest($1::bigint[], $3::text[], $4::text[]) AS t(id, name, keys)",
            &[&ids, &store.instance(), &names, &keys, &at_ms],
        )
        .await?;
        for (id, (name, keys)) in ids.into_iter().zip(entries) {
            self.announce(Stream::Caches, id, Row::Cache { name, keys, at_ms });
        }
        Ok(())
    }
}
