//! Who writes a stream, who owns a key of it, and where that process is.

use sha2::{Digest, Sha256};

use crate::stream_group::StreamGroup;
use crate::workers::{InstanceLocation, MAIN, Workers};

/// Answers who owns what. Borrowed from [`crate::Config`]: see [`crate::Config::owners`].
#[derive(Clone, Copy, Debug)]
pub struct Owners<'a> {
    pub(crate) workers: &'a Workers,
}

impl<'a> Owners<'a> {
    /// The writers of a group in the order of the file; never empty.
    pub fn writers(self, group: StreamGroup) -> &'a [String] {
        self.workers.writers.get(&group).map_or(&[], Vec::as_slice)
    }

    /// The process that owns a key of a group: the room id for events. For groups where any writer may write any
    /// row the key only spreads the work.
    pub fn owner(self, group: StreamGroup, key: &str) -> &'a str {
        shard(self.writers(group), key).unwrap_or(MAIN)
    }

    /// The process that sends to a server. `None`: one that this configuration doesn't know.
    pub fn federation_sender(self, destination: &str) -> Option<&'a str> {
        shard(&self.workers.federation_senders, destination)
    }

    /// The process that runs a user's pushers. `None`: one that this configuration doesn't know.
    pub fn pusher(self, user_id: &str) -> Option<&'a str> {
        shard(&self.workers.pushers, user_id)
    }

    /// Where an instance takes requests of the cluster; `None` if `instance_map` doesn't have it.
    pub fn address(self, instance: &str) -> Option<&'a InstanceLocation> {
        self.workers.instance_map.get(instance)
    }
}

/// Synapse's sharding: the SHA-256 of the key as a little-endian number, modulo the count of instances.
pub fn shard<'a>(instances: &'a [String], key: &str) -> Option<&'a str> {
    let count = instances.len() as u64;
    if count < 2 {
        return instances.first().map(String::as_str);
    }
    let digest = Sha256::digest(key.as_bytes());
    let rest = digest.iter().rev().fold(0u64, |rest, byte| (rest * 256 + u64::from(*byte)) % count);
    instances.get(rest as usize).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_as_synapse_does() {
        // Seen in a Synapse cluster with these two writers.
        let writers = ["ep1".to_owned(), "gw1".to_owned()];
        assert_eq!(shard(&writers, "!rIL_18NmPNnzre_ZA93kFWfH09FR2w3tnae8zN-nKxQ"), Some("gw1"));
        assert_eq!(shard(&writers, "!AmTzro86pb4BQH1RZ5zpksL5GdtUk2WBxmsvcShmPws"), Some("ep1"));
        assert_eq!(shard(&writers[..1], "anything"), Some("ep1"));
        assert_eq!(shard(&[], "anything"), None);
    }

    #[test]
    fn every_group_has_its_own_name() {
        for group in StreamGroup::ALL {
            assert_eq!(StreamGroup::named(group.name()), Some(group));
        }
        assert_eq!(StreamGroup::of_stream("backfill"), Some(StreamGroup::Events));
        assert_eq!(StreamGroup::of_stream("pushers"), None);
    }
}
