//! From a server's name to where it is (spec: Server-Server API, "Server discovery").

use crate::well_known::WellKnown;
use config::Config;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use types::Boxed;

const DEFAULT_PORT: u16 = 8448;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Hosts (names, or addresses without brackets) and ports in the order to try them.
    pub hosts: Vec<(String, u16)>,
    /// What the certificate must be for: a name, or an address without brackets.
    pub tls_name: String,
    pub host_header: String,
}

/// A name of a server in its parts.
struct Name<'a> {
    /// Without brackets.
    host: &'a str,
    port: Option<u16>,
    is_address: bool,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Self {
        let (bare, port) = match name.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') && (host.ends_with(']') || !host.contains(':')) => {
                (host, port.parse().ok())
            }
            _ => (name, None),
        };
        let host = bare.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(bare);
        Self { host, port, is_address: host.parse::<IpAddr>().is_ok() }
    }

    /// The target if neither a delegation nor DNS has a say.
    fn plain(&self, host_header: &str) -> Option<Target> {
        (self.is_address || self.port.is_some()).then(|| Target {
            hosts: vec![(self.host.to_owned(), self.port.unwrap_or(DEFAULT_PORT))],
            tls_name: self.host.to_owned(),
            host_header: host_header.to_owned(),
        })
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Discovery(Arc<Inner>);

struct Inner {
    well_known: WellKnown,
    /// Made when first needed; None: this machine's resolver is not configured.
    dns: OnceLock<Option<TokioResolver>>,
}

impl Discovery {
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Inner { well_known: WellKnown::new(config), dns: OnceLock::new() }))
    }

    /// Where a server is. Delegations and DNS answers are remembered as long as they are valid.
    pub fn target<'a>(&'a self, server: &'a str) -> Boxed<'a, Result<Target>> {
        Box::pin(async move {
            if let Some(target) = Name::parse(server).plain(server) {
                return Ok(target);
            }
            let delegated = self.0.well_known.delegation(server).await;
            let server = delegated.as_deref().unwrap_or(server);
            if let Some(target) = Name::parse(server).plain(server) {
                return Ok(target);
            }
            let hosts = match self.service(server).await? {
                Some(hosts) => hosts,
                None => vec![(server.to_owned(), DEFAULT_PORT)],
            };
            Ok(Target { hosts, tls_name: server.to_owned(), host_header: server.to_owned() })
        })
    }

    /// Hosts and ports by SRV records: the current service name, else the deprecated one.
    async fn service(&self, host: &str) -> Result<Option<Vec<(String, u16)>>> {
        let made = || TokioResolver::builder_tokio().ok().and_then(|b| b.build().ok());
        let Some(dns) = self.0.dns.get_or_init(made) else { return Ok(None) };
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            match dns.srv_lookup(format!("{service}.{host}.")).await {
                Ok(found) => {
                    let records = found.answers().iter().filter_map(|r| match &r.data {
                        RData::SRV(srv) => Some((srv.priority, srv.weight, srv.target.to_ascii(), srv.port)),
                        _ => None,
                    });
                    let hosts = ordered(records.collect());
                    if !hosts.is_empty() {
                        return Ok(Some(hosts));
                    }
                }
                Err(e) if e.is_no_records_found() || e.is_nx_domain() => {}
                Err(e) => return Err(Error::new(ErrorKind::NotFound, format!("{service}.{host}: {e}"))),
            }
        }
        Ok(None)
    }
}

/// By priority; among equals by chance, the heavier ones sooner (RFC 2782). A target of `.` is no server.
fn ordered(mut records: Vec<(u16, u16, String, u16)>) -> Vec<(String, u16)> {
    records.retain(|(_, _, target, _)| target != ".");
    // The larger the weight, the nearer to zero its share of chance.
    let chance = |weight: u16| -rand::random_range(f64::EPSILON..1.0).ln() / (f64::from(weight) + 0.01);
    let mut drawn: Vec<_> = records.into_iter().map(|(p, w, target, port)| (p, chance(w), target, port)).collect();
    drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    drawn.into_iter().map(|(_, _, target, port)| (target.trim_end_matches('.').to_owned(), port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_port_and_addresses_need_no_discovery() {
        let cases = [
            ("example.org:443", Some(("example.org", 443))),
            ("1.2.3.4", Some(("1.2.3.4", 8448))),
            ("1.2.3.4:99", Some(("1.2.3.4", 99))),
            ("[::1]", Some(("::1", 8448))),
            ("[::1]:99", Some(("::1", 99))),
            ("example.org", None),
        ];
        for (name, expected) in cases {
            let target = Name::parse(name).plain(name);
            assert_eq!(target.as_ref().map(|t| (t.hosts[0].0.as_str(), t.hosts[0].1)), expected, "{name}");
            if let Some(target) = target {
                assert_eq!((target.host_header.as_str(), target.tls_name), (name, target.hosts[0].0.clone()));
            }
        }
    }

    #[test]
    fn services_go_by_priority() {
        let found =
            ordered(vec![(20, 0, "b.example.".into(), 2), (10, 5, "a.example.".into(), 1), (0, 0, ".".into(), 0)]);
        assert_eq!(found, [("a.example".to_owned(), 1), ("b.example".to_owned(), 2)]);
    }
}
