//! Caches under Synapse's names, so that invalidations from and for Synapse processes hit the right one.

use dashmap::DashMap;
use quick_cache::sync::{Cache as Quick, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::borrow::Borrow;
use std::future::Future;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use types::Result;

/// A key that can be read from the `keys` array of the `caches` stream.
pub trait WireKey: Hash + Eq + Clone + Send + Sync + 'static {
    /// None if the array does not hold exactly one full key (a prefix, say): then everything is dropped.
    fn from_wire(keys: &[String]) -> Option<Self>;
    fn to_wire(&self) -> Vec<String>;
}

impl WireKey for String {
    fn from_wire(keys: &[String]) -> Option<Self> {
        if let [k] = keys { Some(k.clone()) } else { None }
    }
    fn to_wire(&self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl WireKey for (String, String) {
    fn from_wire(keys: &[String]) -> Option<Self> {
        if let [a, b] = keys { Some((a.clone(), b.clone())) } else { None }
    }
    fn to_wire(&self) -> Vec<String> {
        vec![self.0.clone(), self.1.clone()]
    }
}

impl WireKey for (String, String, String) {
    fn from_wire(keys: &[String]) -> Option<Self> {
        if let [a, b, c] = keys { Some((a.clone(), b.clone(), c.clone())) } else { None }
    }
    fn to_wire(&self) -> Vec<String> {
        vec![self.0.clone(), self.1.clone(), self.2.clone()]
    }
}

/// State groups and the like: never on the wire as anything but decimal.
impl WireKey for i64 {
    fn from_wire(keys: &[String]) -> Option<Self> {
        if let [k] = keys { k.parse().ok() } else { None }
    }
    fn to_wire(&self) -> Vec<String> {
        vec![self.to_string()]
    }
}

const EPOCHS: usize = 256;

/// Values a weighed cache is taken to hold: half as many keys are remembered after their values had to go.
const WEIGHED: usize = 1_024;
/// Pieces of a cache with a lock each; every piece takes memory also when it is empty.
const SHARDS: usize = 2;

/// What a value takes of a cache's capacity.
struct Weigh<V>(fn(&V) -> usize);

impl<V> Clone for Weigh<V> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<K, V> Weighter<K, V> for Weigh<V> {
    fn weight(&self, _: &K, value: &V) -> u64 {
        (self.0)(value) as u64
    }
}

struct Inner<K, V> {
    name: &'static str,
    map: Quick<K, V, Weigh<V>>,
    /// Counts invalidations by hash of the key: a value whose load overlapped one is not kept.
    epochs: Vec<AtomicU64>,
    all: AtomicU64,
    hasher: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// A bounded cache. Cheap to clone; values should be (an `Arc`, a small struct).
pub struct Cache<K, V>(Arc<Inner<K, V>>);

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What the registry needs to know of a cache.
pub trait Forget: Send + Sync {
    /// None: everything.
    fn forget_wire(&self, keys: Option<&[String]>);
    /// (name, entries, hits, misses) for the metrics.
    fn figures(&self) -> (&'static str, u64, u64, u64);
}

impl<K: WireKey, V: Clone + Send + Sync + 'static> Cache<K, V> {
    /// `capacity`: entries held at most.
    pub fn new(name: &'static str, capacity: usize) -> Self {
        Self::with(name, SHARDS, capacity, capacity, |_| 1)
    }

    /// For values of very different sizes. `capacity`: the sum of what `weigh` says of the values held; a value above
    /// it is not kept.
    pub fn weighed(name: &'static str, capacity: usize, weigh: fn(&V) -> usize) -> Self {
        // In one piece, so that a value may take all of it.
        Self::with(name, 1, capacity.min(WEIGHED), capacity, weigh)
    }

    /// `items`: how many are expected. Half as many keys of values that had to go are remembered, and their values
    /// kept when they come again; without them whatever is read in a circle wider than the cache is never kept.
    fn with(name: &'static str, shards: usize, items: usize, capacity: usize, weigh: fn(&V) -> usize) -> Self {
        let mut options = OptionsBuilder::new();
        options.shards(shards).estimated_items_capacity(items.max(8)).weight_capacity(capacity.max(8) as u64);
        let options = options.build().expect("both capacities are given");
        let hasher = quick_cache::DefaultHashBuilder::default();
        let map = Quick::with_options(options, Weigh(weigh), hasher, DefaultLifecycle::default());
        Self::over(name, map)
    }

    fn over(name: &'static str, map: Quick<K, V, Weigh<V>>) -> Self {
        Self(Arc::new(Inner {
            name,
            map,
            epochs: (0..EPOCHS).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
            hasher: RandomState::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }))
    }

    pub fn name(&self) -> &'static str {
        self.0.name
    }

    fn slot<Q: Hash + ?Sized>(&self, key: &Q) -> &AtomicU64 {
        &self.0.epochs[(self.0.hasher.hash_one(key) as usize) % EPOCHS]
    }

    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.0.map.get(key);
        let counter = if found.is_some() { &self.0.hits } else { &self.0.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// A stamp to take before loading and to hand to [`Cache::put_since`].
    pub fn stamp<Q: Hash + ?Sized>(&self, key: &Q) -> Stamp
    where
        K: Borrow<Q>,
    {
        Stamp(self.slot(key).load(Ordering::Acquire), self.0.all.load(Ordering::Acquire))
    }

    /// Keeps a loaded value unless the key was invalidated since the stamp was taken.
    pub fn put_since(&self, stamp: Stamp, key: K, value: V) {
        if self.stamp(&key) == stamp {
            self.0.map.insert(key.clone(), value);
            // An invalidation between the check and the insert must win.
            if self.stamp(&key) != stamp {
                self.0.map.remove(&key);
            }
        }
    }

    /// Keeps a value that is known to be current.
    pub fn put(&self, key: K, value: V) {
        self.0.map.insert(key, value);
    }

    /// The cached value or the result of `load`.
    pub async fn get_or_load<Q, F>(&self, key: &Q, load: F) -> Result<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: Future<Output = Result<V>>,
    {
        if let Some(v) = self.get(key) {
            return Ok(v);
        }
        let stamp = self.stamp(key);
        let v = load.await?;
        self.put_since(stamp, key.to_owned(), v.clone());
        Ok(v)
    }

    pub fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slot(key).fetch_add(1, Ordering::AcqRel);
        self.0.map.remove(key);
    }

    pub fn forget_all(&self) {
        self.0.all.fetch_add(1, Ordering::AcqRel);
        self.0.map.clear();
    }
}

/// See [`Cache::stamp`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64, u64);

impl<K: WireKey, V: Clone + Send + Sync + 'static> Forget for Cache<K, V> {
    fn forget_wire(&self, keys: Option<&[String]>) {
        match keys.and_then(K::from_wire) {
            Some(key) => self.forget(&key),
            None => self.forget_all(),
        }
    }

    fn figures(&self) -> (&'static str, u64, u64, u64) {
        let i = &self.0;
        (i.name, i.map.len() as u64, i.hits.load(Ordering::Relaxed), i.misses.load(Ordering::Relaxed))
    }
}

/// All caches of the process by name; names that are not here are ignored, as in Synapse.
pub struct Registry {
    caches: DashMap<&'static str, Arc<dyn Forget>>,
    factors: config::misc::Caches,
}

/// The factor capacities are given for: Synapse's default.
const USUAL_FACTOR: f64 = 0.5;

impl Registry {
    /// Caches scaled by `caches.global_factor` or what `caches.per_cache_factors` says of their name.
    pub fn new(factors: config::misc::Caches) -> Self {
        Self { caches: DashMap::new(), factors }
    }

    fn scaled(&self, name: &str, capacity: usize) -> usize {
        (capacity as f64 * self.factors.factor(name) / USUAL_FACTOR) as usize
    }

    /// Makes a cache and registers it. `capacity`: at the usual factor.
    pub fn cache<K: WireKey, V: Clone + Send + Sync + 'static>(
        &self,
        name: &'static str,
        capacity: usize,
    ) -> Cache<K, V> {
        self.sized(name, self.scaled(name, capacity))
    }

    /// As [`Registry::cache`], with this capacity whatever the factor is.
    pub fn sized<K: WireKey, V: Clone + Send + Sync + 'static>(
        &self,
        name: &'static str,
        capacity: usize,
    ) -> Cache<K, V> {
        let cache = Cache::new(name, capacity);
        self.caches.insert(name, Arc::new(cache.clone()));
        cache
    }

    /// As [`Registry::cache`], for [`Cache::weighed`].
    pub fn weighed<K: WireKey, V: Clone + Send + Sync + 'static>(
        &self,
        name: &'static str,
        capacity: usize,
        weigh: fn(&V) -> usize,
    ) -> Cache<K, V> {
        let cache = Cache::weighed(name, self.scaled(name, capacity), weigh);
        self.caches.insert(name, Arc::new(cache.clone()));
        cache
    }

    /// Obeys one row of the `caches` stream (not the `*_fake` names, which are several caches at once).
    pub fn forget(&self, name: &str, keys: Option<&[String]>) {
        if let Some(cache) = self.caches.get(name) {
            cache.forget_wire(keys);
        }
    }

    /// Drops everything: after a gap that cannot be filled.
    pub fn forget_everything(&self) {
        for c in self.caches.iter() {
            c.forget_wire(None);
        }
    }

    pub fn figures(&self) -> Vec<(&'static str, u64, u64, u64)> {
        self.caches.iter().map(|c| c.figures()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_loaded_across_an_invalidation_is_not_kept() {
        let c: Cache<String, i32> = Cache::new("t", 10);
        let stamp = c.stamp("k");
        c.forget("k");
        c.put_since(stamp, "k".into(), 1);
        assert_eq!(c.get("k"), None);
        c.put_since(c.stamp("k"), "k".into(), 2);
        assert_eq!(c.get("k"), Some(2));
        c.forget_wire(Some(&["k".to_owned()]));
        assert_eq!(c.get("k"), None);
    }

    #[test]
    fn large_values_take_the_place_of_many() {
        let c: Cache<i64, Arc<Vec<u8>>> = Cache::weighed("t", 1_000, |v| v.len().max(10));
        (0..1_000).for_each(|i| c.put(i, Arc::new(vec![0; 5])));
        assert!((50..=100).contains(&c.figures().1), "{}", c.figures().1);
        c.put(-1, Arc::new(vec![0; 900]));
        assert!(c.get(&-1).is_some() && c.figures().1 <= 11);
        c.put(-2, Arc::new(vec![0; 1_001]));
        assert!(c.get(&-2).is_none());
    }

    #[test]
    fn capacities_follow_the_factors() {
        let factors = config::misc::Caches {
            event_cache_size: 0,
            global_factor: 1.0,
            per_cache_factors: [("get_user_by_id".to_owned(), 0.25), ("get_partial_rooms".to_owned(), 0.0)].into(),
            entry_ttl_ms: None,
            sync_response_cache_duration_ms: 0,
            autotuning: None,
        };
        let registry = Registry::new(factors);
        let held = |cache: Cache<i64, i32>| {
            (0..1_000).for_each(|i| cache.put(i, 0));
            cache.figures().1
        };
        assert!((190..=200).contains(&held(registry.cache("get_room_summary", 100))));
        assert!((45..=50).contains(&held(registry.cache("get_user_by_id", 100))));
        // What is read again and again is kept whatever the factor is.
        assert!((1..=8).contains(&held(registry.cache("get_partial_rooms", 1))));
        assert!((95..=100).contains(&held(registry.sized("*getEvent*", 100))));
    }

    #[test]
    fn prefixes_drop_everything() {
        let c: Cache<(String, String), i32> = Cache::new("t", 10);
        c.put(("a".into(), "b".into()), 1);
        c.forget_wire(Some(&["a".to_owned()]));
        assert_eq!(c.get(&("a".to_owned(), "b".to_owned())), None);
    }
}
