//! Which addresses may be connected to.

use config::ip::IpRanges;
use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use types::Boxed;

/// A connection that takes longer to open is given up.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Addresses that are denied, and exceptions from them. Cheap to clone.
#[derive(Clone)]
pub struct Ranges(Arc<(IpRanges, IpRanges)>);

impl Ranges {
    pub fn new(deny: IpRanges, allow: IpRanges) -> Self {
        Self(Arc::new((deny, allow)))
    }

    /// Whether the address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        let (deny, allow) = &*self.0;
        !deny.contains(address) || allow.contains(address)
    }

    /// Refuses a host that is a denied address. Names are checked when they have been resolved.
    pub fn check_literal(&self, host: &str) -> Result<()> {
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if !self.allows(address) => Err(denied(host)),
            _ => Ok(()),
        }
    }

    /// Addresses of a host (a name, or an address without brackets) that may be connected to; never empty.
    pub fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            let known = !all.is_empty();
            let allowed: Vec<SocketAddr> = all.into_iter().filter(|a| self.allows(a.ip())).collect();
            match (allowed.is_empty(), known) {
                (false, _) => Ok(allowed),
                (true, true) => Err(denied(host)),
                (true, false) => Err(Error::new(ErrorKind::NotFound, format!("{host} has no address"))),
            }
        })
    }
}

fn denied(host: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("the addresses of {host} are in ip_range_blacklist"))
}

/// The resolver of a hyper client.
#[derive(Clone)]
pub struct AllowedAddresses(pub Ranges);

impl tower_service::Service<Name> for AllowedAddresses {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let ranges = self.0.clone();
        Box::pin(async move { Ok(ranges.resolve(name.as_str(), 0).await?.into_iter()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        let (mut deny, mut allow) = (IpRanges::default(), IpRanges::default());
        assert!(deny.add("127.0.0.0/8") && allow.add("127.0.0.2"));
        Ranges::new(deny, allow)
    }

    #[test]
    fn denied_addresses_are_refused_but_for_exceptions() {
        for (host, allowed) in
            [("127.0.0.1", false), ("[::ffff:127.0.0.1]", false), ("127.0.0.2", true), ("8.8.8.8", true)]
        {
            assert_eq!(ranges().check_literal(host).is_ok(), allowed, "{host}");
        }
    }

    #[tokio::test]
    async fn names_are_resolved_to_allowed_addresses_only() {
        let refused = ranges().resolve("127.0.0.1", 80).await.expect_err("denied");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert_eq!(ranges().resolve("127.0.0.2", 80).await.expect("allowed").len(), 1);
    }
}
