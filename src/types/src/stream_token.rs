//! Sync and pagination tokens, in Synapse 1.163.2's textual forms.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;

/// A position in a stream with several writers.
///
/// Everything up to `stream` is covered; writers named in `ahead` (ids of table `instance_map`)
/// are covered up to their own, higher, position. Textual form: `n`, or `m<n>~<id>.<pos>~…`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MultiToken {
    pub stream: i64,
    pub ahead: BTreeMap<i64, i64>,
}

impl MultiToken {
    pub fn at(stream: i64) -> Self {
        Self { stream, ahead: BTreeMap::new() }
    }

    /// Position covered for the writer with this `instance_map` id (`None`: a writer without id).
    pub fn for_instance(&self, instance: Option<i64>) -> i64 {
        instance.and_then(|i| self.ahead.get(&i)).copied().unwrap_or(self.stream)
    }

    /// Highest position covered for any writer: an upper bound for queries by id alone.
    pub fn max(&self) -> i64 {
        self.ahead.values().copied().max().unwrap_or(self.stream).max(self.stream)
    }

    /// True if every row `self` covers is covered by `other`.
    pub fn is_before_or_eq(&self, other: &Self) -> bool {
        self.stream <= other.stream
            && self.ahead.iter().all(|(i, p)| *p <= other.for_instance(Some(*i)))
            && other.ahead.keys().all(|i| self.for_instance(Some(*i)) <= other.for_instance(Some(*i)))
    }

    /// The smallest token that covers both.
    pub fn union(&self, other: &Self) -> Self {
        let stream = self.stream.max(other.stream);
        let ahead = self
            .ahead
            .keys()
            .chain(other.ahead.keys())
            .map(|i| (*i, self.for_instance(Some(*i)).max(other.for_instance(Some(*i)))))
            .filter(|(_, p)| *p > stream)
            .collect();
        Self { stream, ahead }
    }

    fn parse_multi(s: &str) -> Option<Self> {
        let mut parts = s.strip_prefix('m')?.split('~');
        let stream = parts.next()?.parse().ok()?;
        let mut ahead = BTreeMap::new();
        for part in parts.filter(|p| !p.is_empty()) {
            let (id, pos) = part.split_once('.')?;
            ahead.insert(id.parse().ok()?, pos.parse().ok()?);
        }
        Some(Self { stream, ahead })
    }

    /// Reads the form used in fields 2–14: a bare integer or the m-form.
    pub fn parse(s: &str) -> Option<Self> {
        if s.starts_with('m') { Self::parse_multi(s) } else { s.parse().ok().map(Self::at) }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, plain_prefix: &str) -> fmt::Result {
        if self.ahead.is_empty() {
            return write!(f, "{plain_prefix}{}", self.stream);
        }
        write!(f, "m{}", self.stream)?;
        self.ahead.iter().try_for_each(|(id, pos)| write!(f, "~{id}.{pos}"))
    }
}

impl fmt::Display for MultiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

/// Position among room events: live (by stream ordering) or topological (by depth, then stream).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RoomToken {
    Live(MultiToken),
    /// `t<depth>-<stream ordering>`; backfilled events have negative stream orderings.
    Topological {
        depth: i64,
        stream: i64,
    },
}

impl Default for RoomToken {
    fn default() -> Self {
        RoomToken::Live(MultiToken::default())
    }
}

impl RoomToken {
    pub fn live(stream: i64) -> Self {
        RoomToken::Live(MultiToken::at(stream))
    }

    pub fn parse(s: &str) -> Option<Self> {
        if let Some(n) = s.strip_prefix('s') {
            return n.parse().ok().map(Self::live);
        }
        if let Some(t) = s.strip_prefix('t') {
            let (depth, stream) = t.split_once('-')?;
            return Some(Self::Topological { depth: depth.parse().ok()?, stream: stream.parse().ok()? });
        }
        MultiToken::parse_multi(s).map(RoomToken::Live)
    }

    /// The stream position, whichever form this is; for a live token the position all writers reached.
    pub fn stream(&self) -> i64 {
        match self {
            RoomToken::Live(m) => m.stream,
            RoomToken::Topological { stream, .. } => *stream,
        }
    }
}

impl fmt::Display for RoomToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoomToken::Live(m) => m.write(f, "s"),
            RoomToken::Topological { depth, stream } => write!(f, "t{depth}-{stream}"),
        }
    }
}

/// The 14 fields of a `/sync` token, in wire order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamToken {
    pub room: RoomToken,
    pub presence: i64,
    pub typing: i64,
    pub receipts: MultiToken,
    pub account_data: i64,
    pub push_rules: i64,
    pub to_device: i64,
    pub device_lists: MultiToken,
    /// Unused since groups were removed; always written as 0.
    pub groups: i64,
    pub un_partial_stated_rooms: i64,
    pub thread_subscriptions: i64,
    pub sticky_events: MultiToken,
    pub quarantined_media: MultiToken,
    pub profile_updates: i64,
}

impl StreamToken {
    const FIELDS: usize = 14;

    /// A token for `/messages` and the like: only the room part counts.
    pub fn of_room(room: RoomToken) -> Self {
        Self { room, ..Self::default() }
    }

    /// Missing trailing fields read as 0, so tokens of older versions stay valid.
    pub fn parse(s: &str) -> Result<Self> {
        let bad = || Error::invalid_param(format!("Invalid stream token {s:?}"));
        let parts: Vec<&str> = s.split('_').collect();
        if parts.len() > Self::FIELDS {
            return Err(bad());
        }
        let int = |i: usize| parts.get(i).map_or(Some(0), |p| p.parse::<i64>().ok()).ok_or_else(bad);
        let multi =
            |i: usize| parts.get(i).map_or(Some(MultiToken::default()), |p| MultiToken::parse(p)).ok_or_else(bad);
        Ok(Self {
            room: RoomToken::parse(parts[0]).ok_or_else(bad)?,
            presence: int(1)?,
            typing: int(2)?,
            receipts: multi(3)?,
            account_data: int(4)?,
            push_rules: int(5)?,
            to_device: int(6)?,
            device_lists: multi(7)?,
            groups: int(8)?,
            un_partial_stated_rooms: int(9)?,
            thread_subscriptions: int(10)?,
            sticky_events: multi(11)?,
            quarantined_media: multi(12)?,
            profile_updates: int(13)?,
        })
    }
}

impl fmt::Display for StreamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}_{}_{}_{}_{}_{}_{}_{}_{}_{}_{}_{}_{}_{}",
            self.room,
            self.presence,
            self.typing,
            self.receipts,
            self.account_data,
            self.push_rules,
            self.to_device,
            self.device_lists,
            self.groups,
            self.un_partial_stated_rooms,
            self.thread_subscriptions,
            self.sticky_events,
            self.quarantined_media,
            self.profile_updates
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_real_synapse_survive() {
        for s in [
            "s10_3_0_1_1_1_1_4_0_1_2_1_1_1",
            "m51~1.53_28_0_m5~1.7_7_3_2_15_0_1_2_1_1_1",
            "t15-51_0_0_0_0_0_0_0_0_0_0_0_0_0",
            "t5--3_0_0_0_0_0_0_0_0_0_0_0_0_0",
        ] {
            assert_eq!(StreamToken::parse(s).unwrap().to_string(), s);
        }
    }

    #[test]
    fn short_tokens_are_padded_and_long_ones_refused() {
        let t = StreamToken::parse("s5_1").unwrap();
        assert_eq!(t.to_string(), "s5_1_0_0_0_0_0_0_0_0_0_0_0_0");
        assert!(StreamToken::parse("s1_0_0_0_0_0_0_0_0_0_0_0_0_0_0").is_err());
        assert!(StreamToken::parse("x1").is_err());
        assert!(StreamToken::parse("").is_err());
    }

    #[test]
    fn empty_m_part_is_accepted() {
        assert_eq!(MultiToken::parse("m5~"), Some(MultiToken::at(5)));
    }

    #[test]
    fn union_covers_both() {
        let a = MultiToken::parse("m5~1.9").unwrap();
        let b = MultiToken::parse("m7~2.8").unwrap();
        let u = a.union(&b);
        assert_eq!(u.to_string(), "m7~1.9~2.8");
        assert!(a.is_before_or_eq(&u) && b.is_before_or_eq(&u) && !u.is_before_or_eq(&b));
    }
}
