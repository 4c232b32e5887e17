//! Up to where to-device messages of devices have been deleted, so that not every sync asks again.

use quick_cache::sync::Cache;
use std::future::Future;
use types::Result;

/// (user, device) → position up to which nothing is left.
pub struct Delivered(Cache<(String, String), i64>);

impl Default for Delivered {
    fn default() -> Self {
        Self(Cache::new(20_000))
    }
}

impl Delivered {
    /// Runs `delete` unless it ran for this or a later position before, or nothing came in between.
    pub async fn once<F>(
        &self,
        user: &str,
        device: &str,
        upto: i64,
        unchanged: impl Fn(i64) -> bool,
        delete: impl FnOnce() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<u64>>,
    {
        let key = (user.to_owned(), device.to_owned());
        if self.0.get(&key).is_some_and(|at| at >= upto || unchanged(at)) {
            return Ok(());
        }
        delete().await?;
        self.0.insert(key, upto);
        Ok(())
    }
}
