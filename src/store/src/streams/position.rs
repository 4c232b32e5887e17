//! How far a stream has come: the arithmetic of Synapse's multi-writer id generator, without IO.
//!
//! Ids are handed out by a sequence before the rows that carry them are committed, by several writers
//! at once. A reader may only go up to a position below which nothing can appear any more.

use super::Row;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Positions of one stream as this process knows them. Backfill counts upwards here.
#[derive(Debug)]
pub struct Position {
    me: String,
    /// Do we write this stream?
    writer: bool,
    /// Ids of ours that were given out and are not finished.
    unfinished: BTreeSet<i64>,
    /// Requests for ids under way, by the highest id known when they began: what they get is above.
    requests: BTreeMap<i64, u32>,
    /// Own finished ids above `own`.
    finished: BTreeSet<i64>,
    own: i64,
    /// Highest id seen by anybody.
    max_seen: i64,
    others: HashMap<String, i64>,
    /// Every id up to here, of all writers, is known to be persisted.
    upto: i64,
    /// Persisted ids above `upto`.
    known: BTreeSet<i64>,
    /// Announced rows of own ids that the position has not passed yet.
    rows: BTreeMap<i64, Vec<Row>>,
}

/// Keeps `known` from growing without bound when a writer stays away.
const MAX_KNOWN: usize = 100_000;

impl Position {
    /// `own`: our position if we write; `others`: the other writers'.
    pub fn new(me: &str, writer: bool, own: i64, others: HashMap<String, i64>) -> Self {
        let max_seen = others.values().copied().max().unwrap_or(own).max(own);
        let mut p = Self {
            me: me.to_owned(),
            writer,
            unfinished: BTreeSet::new(),
            requests: BTreeMap::new(),
            finished: BTreeSet::new(),
            own,
            max_seen,
            others,
            upto: 0,
            known: BTreeSet::new(),
            rows: BTreeMap::new(),
        };
        p.upto = p.minimum();
        p
    }

    fn idle(&self) -> bool {
        self.unfinished.is_empty() && self.requests.is_empty()
    }

    /// Minimum of the positions that bound what is persisted.
    fn minimum(&self) -> i64 {
        let others = self.others.values().copied().min();
        let own = (self.writer && (!self.idle() || others.is_none())).then(|| self.own_position());
        match (others, own) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => self.own,
        }
    }

    /// Our own position as announced to others.
    pub fn own_position(&self) -> i64 {
        if self.writer && self.idle() { self.max_seen.max(self.own) } else { self.own }
    }

    /// Everything we wrote up to here is persisted; not raised by what others wrote.
    pub fn own_written(&self) -> i64 {
        self.own
    }

    /// Position of a writer. One we have not heard of is assumed to be where everybody is.
    pub fn of(&self, instance: &str) -> i64 {
        if instance == self.me {
            return self.own_position();
        }
        self.others.get(instance).copied().unwrap_or(self.upto)
    }

    pub fn upto(&self) -> i64 {
        self.upto
    }

    /// Writers that are known to be ahead of `upto`.
    pub fn ahead(&self) -> impl Iterator<Item = (&str, i64)> {
        let own = (self.writer && self.own_position() > self.upto).then(|| (self.me.as_str(), self.own_position()));
        self.others.iter().filter(|(_, p)| **p > self.upto).map(|(i, p)| (i.as_str(), *p)).chain(own)
    }

    /// A request for ids begins; returns the bound to hand back to [`Position::allocated`].
    pub fn requesting(&mut self) -> i64 {
        let bound = self.max_seen.max(self.own);
        *self.requests.entry(bound).or_default() += 1;
        bound
    }

    /// The request got these ids (none: it failed).
    pub fn allocated(&mut self, bound: i64, ids: &[i64]) {
        if let Some(n) = self.requests.get_mut(&bound) {
            *n -= 1;
            if *n == 0 {
                self.requests.remove(&bound);
            }
        }
        self.unfinished.extend(ids);
        self.max_seen = ids.iter().copied().max().unwrap_or(self.max_seen).max(self.max_seen);
    }

    /// Own ids are done with, committed (with rows to announce) or given up (without).
    /// Returns the rows that may now be announced, by token, oldest first.
    pub fn finish(&mut self, ids: &[i64], rows: impl IntoIterator<Item = (i64, Row)>) -> Vec<(i64, Vec<Row>)> {
        for (id, row) in rows {
            // Most ids have one row, and a vector that grows begins with four places.
            self.rows.entry(id).or_insert_with(|| Vec::with_capacity(1)).push(row);
        }
        for id in ids {
            self.unfinished.remove(id);
            self.finished.insert(*id);
            self.learn(*id);
        }
        self.advance_own();
        self.advance_upto();
        self.drain()
    }

    fn advance_own(&mut self) {
        let bound =
            self.unfinished.first().map(|i| i - 1).into_iter().chain(self.requests.keys().next().copied()).min();
        let reached = match bound {
            None => self.finished.last().copied(),
            Some(b) => self.finished.range(..=b).next_back().copied(),
        };
        if let Some(r) = reached {
            self.own = self.own.max(r);
            self.finished = self.finished.split_off(&(r + 1));
        }
    }

    fn drain(&mut self) -> Vec<(i64, Vec<Row>)> {
        let later = self.rows.split_off(&(self.own + 1));
        std::mem::replace(&mut self.rows, later).into_iter().collect()
    }

    fn learn(&mut self, id: i64) {
        self.max_seen = self.max_seen.max(id);
        if id > self.upto && self.known.len() < MAX_KNOWN {
            self.known.insert(id);
        }
    }

    fn advance_upto(&mut self) {
        self.upto = self.upto.max(self.minimum());
        self.known = self.known.split_off(&(self.upto + 1));
        while self.known.first() == Some(&(self.upto + 1)) {
            self.upto += 1;
            self.known.pop_first();
        }
    }

    /// Another writer has reached `token`. False if we knew.
    pub fn advance(&mut self, instance: &str, token: i64) -> bool {
        let known = self.others.get(instance).copied().unwrap_or(i64::MIN);
        if token <= known {
            return false;
        }
        self.others.insert(instance.to_owned(), token);
        self.learn(token);
        self.advance_upto();
        true
    }

    /// A writer of an in-memory stream started anew at `token`.
    pub fn reset(&mut self, instance: &str, token: i64) {
        self.others.insert(instance.to_owned(), token);
        self.max_seen = token;
        self.known.clear();
        self.upto = self.minimum();
    }

    /// The next id of an in-memory stream, announced at once.
    pub fn next_in_memory(&mut self) -> i64 {
        self.own += 1;
        self.max_seen = self.max_seen.max(self.own);
        self.upto = self.own;
        self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(s: &str) -> Row {
        Row::ToDevice { entity: s.into() }
    }

    #[test]
    fn a_single_writer_waits_for_its_slowest_transaction() {
        let mut p = Position::new("master", true, 1, HashMap::new());
        let b = p.requesting();
        p.allocated(b, &[2, 3]);
        assert!(p.finish(&[3], [(3, row("b"))]).is_empty());
        assert_eq!((p.own_position(), p.upto()), (1, 1));
        let out = p.finish(&[2], [(2, row("a"))]);
        assert_eq!(out.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((p.own_position(), p.upto()), (3, 3));
    }

    #[test]
    fn a_request_under_way_holds_the_position() {
        let mut p = Position::new("master", true, 1, HashMap::new());
        let slow = p.requesting();
        let fast = p.requesting();
        p.allocated(fast, &[3]);
        assert!(p.finish(&[3], [(3, row("b"))]).is_empty());
        p.allocated(slow, &[2]);
        assert!(p.finish(&[], []).is_empty());
        assert_eq!(p.finish(&[2], [(2, row("a"))]).len(), 2);
        assert_eq!(p.upto(), 3);
    }

    #[test]
    fn two_writers_bound_each_other() {
        let mut p = Position::new("a", true, 5, HashMap::from([("b".to_owned(), 5)]));
        let bound = p.requesting();
        p.allocated(bound, &[7]);
        p.finish(&[7], []);
        // 6 is b's and unknown: everybody is only known to be at 5, we are ahead.
        assert_eq!(p.upto(), 5);
        assert_eq!(p.ahead().collect::<Vec<_>>(), [("a", 7)]);
        assert!(p.advance("b", 6));
        assert_eq!(p.upto(), 7);
        assert_eq!(p.ahead().count(), 0);
        assert!(!p.advance("b", 6));
    }

    #[test]
    fn an_idle_writer_does_not_hold_others_back() {
        let mut p = Position::new("a", true, 5, HashMap::from([("b".to_owned(), 5)]));
        p.advance("b", 9);
        assert_eq!(p.upto(), 9);
        assert_eq!(p.own_position(), 9);
    }

    #[test]
    fn given_up_ids_do_not_block() {
        let mut p = Position::new("master", true, 1, HashMap::new());
        let b = p.requesting();
        p.allocated(b, &[2]);
        let b = p.requesting();
        p.allocated(b, &[3]);
        p.finish(&[3], []);
        p.finish(&[2], []);
        assert_eq!(p.upto(), 3);
    }
}
