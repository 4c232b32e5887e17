//! The cache all processes share, in Redis: `cache_v1:<cache>:<key>` → JSON. A miss is always legal.

use bb8_redis::RedisConnectionManager;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Event id → state group before the event.
pub const PREV_STATE_GROUP: &str = "event_to_prev_state_group";
/// State group → servers with joined members.
pub const JOINED_HOSTS: &str = "get_joined_hosts";
/// How long the entries of both live.
pub const TTL: Duration = Duration::from_secs(3600);

/// Nothing waits longer than this for Redis: the cache is there to save time.
const PATIENCE: Duration = Duration::from_millis(500);

/// Cheap to clone. Without Redis everything is a miss.
#[derive(Clone)]
pub struct SharedCache {
    pub(crate) pool: Option<bb8::Pool<RedisConnectionManager>>,
}

fn name(cache: &str, key: &str) -> String {
    format!("cache_v1:{cache}:{key}")
}

impl SharedCache {
    /// Whether there is a Redis at all.
    pub fn is_there(&self) -> bool {
        self.pool.is_some()
    }

    /// The value, if it is there, readable and Redis answers in time.
    pub async fn get<T: DeserializeOwned>(&self, cache: &str, key: &str) -> Option<T> {
        let pool = self.pool.as_ref()?;
        let load = async {
            let mut conn = pool.get().await.ok()?;
            redis::cmd("GET").arg(name(cache, key)).query_async::<Option<String>>(&mut *conn).await.ok()?
        };
        let text = tokio::time::timeout(PATIENCE, load).await.ok()??;
        serde_json::from_str(&text).ok()
    }

    /// Keeps a value for `ttl`, as well as Redis can.
    pub async fn set<T: Serialize + ?Sized>(&self, cache: &str, key: &str, value: &T, ttl: Duration) {
        let (Some(pool), Ok(text)) = (&self.pool, serde_json::to_string(value)) else { return };
        let store = async {
            let Ok(mut conn) = pool.get().await else { return };
            let ms = ttl.as_millis() as u64;
            // A lost entry costs its reader a query, nothing more.
            let _: redis::RedisResult<()> =
                redis::cmd("SET").arg(name(cache, key)).arg(text).arg("PX").arg(ms).query_async(&mut *conn).await;
        };
        let _ = tokio::time::timeout(PATIENCE, store).await;
    }
}
