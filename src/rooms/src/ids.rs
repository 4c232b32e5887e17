//! Ids taken from sequences ahead of need, and ids the server chooses.

use crate::Rooms;
use rand::Rng;
use ruma::{OwnedEventId, OwnedRoomId};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use store::Store;
use types::Result;

/// Ids of a sequence, fetched many at a time. Those left over at the end are lost, which sequences allow.
pub(crate) struct IdPool {
    sequence: &'static str,
    ids: Mutex<VecDeque<i64>>,
}

const AT_ONCE: usize = 100;

impl IdPool {
    pub fn new(sequence: &'static str) -> Self {
        Self { sequence, ids: Mutex::new(VecDeque::new()) }
    }

    fn pop(&self) -> Option<i64> {
        self.ids.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
    }

    /// One id no other process has or will get.
    pub async fn take(&self, store: &Store) -> Result<i64> {
        self.take_above(store, i64::MIN).await
    }

    /// An id above `floor`, which came from the same sequence. State groups need one above that of the group they
    /// build on: Synapse takes the row of the highest group for the latest.
    pub async fn take_above(&self, store: &Store, floor: i64) -> Result<i64> {
        loop {
            while let Some(id) = self.pop() {
                if id > floor {
                    return Ok(id);
                }
            }
            let fresh = store.sequence_ids(self.sequence, AT_ONCE as i32).await?;
            self.ids.lock().unwrap_or_else(|e| e.into_inner()).extend(fresh);
        }
    }
}

fn letters(n: usize) -> String {
    let mut rng = rand::rng();
    (0..n)
        .map(|_| if rng.random_bool(0.5) { rng.random_range('a'..='z') } else { rng.random_range('A'..='Z') })
        .collect()
}

impl Rooms {
    /// `!` + 18 letters + server, for rooms up to v11.
    pub(crate) fn new_room_id(&self) -> Result<OwnedRoomId> {
        Ok(format!("!{}:{}", letters(18), self.writing.signer.server_name).try_into()?)
    }

    /// Unix seconds, a counter and five letters, for rooms v1 and v2.
    pub(crate) fn new_event_id(&self) -> Result<OwnedEventId> {
        let n = self.writing.event_counter.fetch_add(1, Ordering::Relaxed);
        let seconds = self.cx.now_ms() / 1000;
        Ok(format!("${seconds}{n}{}:{}", letters(5), self.writing.signer.server_name).try_into()?)
    }
}
