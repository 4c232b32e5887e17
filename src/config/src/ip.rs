//! Sets of IP networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of networks. An IPv4 network is in it with its IPv6 forms (mapped, compatible, 6to4) too, so that those
/// are no way round it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpRanges(Vec<(u128, u32)>);

impl IpRanges {
    /// Adds `10.0.0.0/8`, `::1` and the like; false if the text is neither.
    pub fn add(&mut self, text: &str) -> bool {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, prefix.parse::<u32>().ok()),
            None => (text, Some(u32::MAX)),
        };
        match (address.parse::<IpAddr>(), prefix) {
            (Ok(IpAddr::V4(v4)), Some(prefix)) if prefix <= 32 || prefix == u32::MAX => {
                let prefix = prefix.min(32);
                let low = u128::from(u32::from(v4));
                self.0.push((low, 96 + prefix));
                self.0.push(((0xffff << 32) | low, 96 + prefix));
                self.0.push(((0x2002 << 112) | (low << 80), 16 + prefix));
                true
            }
            (Ok(IpAddr::V6(v6)), Some(prefix)) if prefix <= 128 || prefix == u32::MAX => {
                self.0.push((u128::from(v6), prefix.min(128)));
                true
            }
            _ => false,
        }
    }

    /// Whether the address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = match address {
            IpAddr::V4(v4) => (0xffff << 32) | u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        };
        self.0.iter().any(|(network, prefix)| {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            bits & mask == network & mask
        })
    }

    /// Whether there is no network in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The unspecified addresses, for tests of callers.
pub const UNSPECIFIED: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_other_forms() {
        let mut ranges = IpRanges::default();
        assert!(ranges.add("10.0.0.0/8") && ranges.add("::1") && ranges.add("fe80::/10"));
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "::10.1.2.3", "2002:0a01:0203::1", "::1", "fe80::5"] {
            assert!(ranges.contains(inside.parse().expect("address")), "{inside}");
        }
        for outside in ["11.0.0.1", "::ffff:11.0.0.1", "2002:0b01::1", "::2", "2001::1"] {
            assert!(!ranges.contains(outside.parse().expect("address")), "{outside}");
        }
        for wrong in ["10.0.0.0/33", "::/129", "localhost", "10.0.0.0/", ""] {
            assert!(!ranges.add(wrong), "{wrong}");
        }
        let mut all = IpRanges::default();
        assert!(all.add("::/0"));
        assert!(all.contains("8.8.8.8".parse().expect("address")));
    }
}
