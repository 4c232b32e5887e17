//! `[tls]`: what goes between the hosts of a cluster is encrypted, and each host knows the others by their certificate.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ClusterFile, Place, Plan};

/// `[tls]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// This host's certificate and what leads to the CA's, PEM. It is for the host's address and for `name`.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Certificates of the CA that all hosts' descend from, PEM. Readable by all: it is no secret.
    pub ca: PathBuf,
    /// A DNS name that every host's certificate is for too. nginx, which shares requests out over several hosts, asks
    /// for it; nobody looks it up.
    #[serde(default = "default_name")]
    pub name: String,
}

fn default_name() -> String {
    "plexus".into()
}

/// What is wrong with `[tls]` or the lack of it.
pub fn check(file: &ClusterFile) -> Result<(), String> {
    let several = file.hosts.len() > 1;
    if several && file.tls.is_none() && !file.private_network {
        return Err("tls: missing; tokens, messages and passwords would go from host to host for all to read; allowed: \
                    certificate, key and ca, or private_network = true where nobody else is on the network between the hosts"
            .into());
    }
    let Some(tls) = &file.tls else { return Ok(()) };
    if !several {
        return Err("tls: there is one host only; allowed where there are several in hosts".into());
    }
    if file.private_network {
        return Err("private_network: tls is set too; allowed: one of them".into());
    }
    // It becomes a word of nginx's configuration.
    if tls.name.is_empty() || !tls.name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)) {
        return Err(format!("tls.name: found {:?}; allowed: letters, digits, - and .", tls.name));
    }
    Ok(())
}

impl Plan {
    /// What processes that listen on ports speak TLS with.
    pub fn tls(&self) -> Option<&TlsFile> {
        self.file.tls.as_ref()
    }

    /// What a client puts before an address.
    pub fn scheme(&self, place: &Place) -> &'static str {
        match place {
            Place::Tcp(_) if self.tls().is_some() => "https",
            _ => "http",
        }
    }
}
