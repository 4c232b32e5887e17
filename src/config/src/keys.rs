//! Signing keys, trusted key servers and the secrets that sign things.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use crate::read::Section;
use crate::secret::Secret;

/// Base64 with or without padding, as Matrix keys are written in both ways.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Secret bytes. `Debug` shows nothing of them.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps secret bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Keys and secrets of the server.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The server's signing keys; events are signed with the first. Never empty.
    pub signing: Vec<SigningKey>,
    /// `old_signing_keys`: key id → (public key, expiry in milliseconds since 1970).
    pub old: BTreeMap<String, OldKey>,
    /// `key_refresh_interval`, milliseconds.
    pub refresh_interval_ms: u64,
    /// `trusted_key_servers`.
    pub trusted_servers: Vec<TrustedKeyServer>,
    /// Keys that sign answers about other servers' keys (`key_server_signing_keys_path`, or the server's own).
    pub notary: Vec<SigningKey>,
    /// Signs macaroons and login tokens: `macaroon_secret_key`, else the registration secret, else a hash of the signing key.
    pub macaroon: SecretBytes,
    /// `form_secret`.
    pub form: Option<Secret>,
}

/// An ed25519 key pair by its seed.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// The part of the key id after `ed25519:`.
    pub version: String,
    seed: [u8; 32],
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.key_id())
    }
}

impl SigningKey {
    /// A key pair from its seed.
    pub fn new(version: impl Into<String>, seed: [u8; 32]) -> Self {
        Self { version: version.into(), seed }
    }

    /// `ed25519:version`.
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.version)
    }

    /// The 32 secret bytes.
    pub fn expose_seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// PKCS#8, version 1, as ruma and ring read it.
    pub fn expose_pkcs8(&self) -> Vec<u8> {
        const PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        [PREFIX.as_slice(), self.seed.as_slice()].concat()
    }

    /// One line of a key file, as Synapse writes it.
    pub fn expose_line(&self) -> String {
        format!("ed25519 {} {}\n", self.version, BASE64.encode(self.seed))
    }

    /// Reads one line of a key file.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [algorithm, version, key] = parts[..] else {
            return Err("not of the form: ed25519 VERSION BASE64");
        };
        if algorithm != "ed25519" {
            return Err("the algorithm is not ed25519");
        }
        let bytes = BASE64.decode(key).map_err(|_| "the key is no base64")?;
        let seed: [u8; 32] = bytes.try_into().map_err(|_| "the key hasn't 32 bytes")?;
        Ok(Self::new(version, seed))
    }
}

/// A key the server no longer signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldKey {
    /// The public key, base64.
    pub key: String,
    /// When it stopped being used, milliseconds since 1970.
    pub expired_ts: u64,
}

/// A server asked for other servers' keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKeyServer {
    /// Its name.
    pub server_name: String,
    /// Keys it must sign with (key id → base64); empty: any key it publishes.
    pub verify_keys: BTreeMap<String, String>,
}

/// Where the signing key is if the file doesn't say: `<folder>/<server_name>.signing.key`.
pub(crate) fn key_path(root: &Section<'_>, folder: &std::path::Path, server_name: &str) -> PathBuf {
    root.file("signing_key_path").unwrap_or_else(|| folder.join(format!("{server_name}.signing.key")))
}

pub(crate) fn read(
    root: &Section<'_>,
    folder: &std::path::Path,
    server_name: &str,
    registration_secret: Option<&Secret>,
) -> Keys {
    let signing = if root.has("signing_key") {
        let line = root.string("signing_key").unwrap_or_default();
        match SigningKey::parse(&line) {
            Ok(key) => vec![key],
            Err(e) => {
                root.error("signing_key", e);
                Vec::new()
            }
        }
    } else if root.has("server_name") || root.has("signing_key_path") {
        read_file(root, "signing_key_path", &key_path(root, folder, server_name))
    } else {
        // The key's file is named after the server; the missing name is an error already.
        Vec::new()
    };
    let notary = match root.file("key_server_signing_keys_path") {
        Some(path) => read_file(root, "key_server_signing_keys_path", &path),
        None => signing.clone(),
    };
    Keys {
        old: read_old(root),
        refresh_interval_ms: root.duration_or("key_refresh_interval", 86_400_000),
        trusted_servers: read_trusted(root),
        notary,
        macaroon: macaroon(root, registration_secret, &signing),
        form: root.secret("form_secret").filter(|s| !s.is_empty()),
        signing,
    }
}

fn read_file(root: &Section<'_>, key: &str, path: &std::path::Path) -> Vec<SigningKey> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            root.error(key, format!("can't read {}: {e}; generate-keys makes it", path.display()));
            return Vec::new();
        }
    };
    let mut keys = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match SigningKey::parse(line) {
            Ok(key) => keys.push(key),
            Err(e) => root.error(key, format!("{}, line {}: {e}", path.display(), i + 1)),
        }
    }
    if keys.is_empty() {
        root.error(key, format!("no usable signing key in {}", path.display()));
    }
    keys
}

fn macaroon(root: &Section<'_>, registration_secret: Option<&Secret>, signing: &[SigningKey]) -> SecretBytes {
    let own = root.secret("macaroon_secret_key").filter(|s| !s.is_empty());
    if let Some(secret) = own.as_ref().or(registration_secret) {
        return SecretBytes(secret.expose().as_bytes().to_vec());
    }
    root.warn("macaroon_secret_key", "missing; derived from the signing key");
    let seed = signing.first().map_or(&[0u8; 32], |k| k.expose_seed());
    SecretBytes(Sha256::digest(seed).to_vec())
}

fn read_old(root: &Section<'_>) -> BTreeMap<String, OldKey> {
    let mut keys = BTreeMap::new();
    for (id, section) in root.named_maps("old_signing_keys") {
        if !id.starts_with("ed25519:") {
            section.error("", "the key id's algorithm is unknown; allowed: ed25519:VERSION");
        }
        let key = section.string("key").filter(|k| BASE64.decode(k).is_ok_and(|b| b.len() == 32));
        match (key, section.int("expired_ts", 0, i64::MAX)) {
            (Some(key), Some(ts)) => {
                keys.insert(id.to_owned(), OldKey { key, expired_ts: ts as u64 });
            }
            _ => section.error("", "needs key (the public key, base64) and expired_ts (milliseconds since 1970)"),
        }
    }
    keys
}

fn read_trusted(root: &Section<'_>) -> Vec<TrustedKeyServer> {
    if !root.has("trusted_key_servers") && !root.has("perspectives") {
        return vec![TrustedKeyServer { server_name: "matrix.org".into(), verify_keys: BTreeMap::new() }];
    }
    let mut servers = Vec::new();
    for section in root.maps("trusted_key_servers") {
        let Some(server_name) = section.string("server_name") else {
            section.error("server_name", "missing; allowed: a server name");
            continue;
        };
        let keys = section.child("verify_keys");
        let verify_keys = keys.map.iter().filter_map(|(id, _)| Some((id.to_owned(), keys.string(id)?))).collect();
        servers.push(TrustedKeyServer { server_name, verify_keys });
    }
    for (name, section) in root.child("perspectives").named_maps("servers") {
        let keys = section.named_maps("verify_keys");
        let verify_keys = keys.iter().filter_map(|(id, key)| Some(((*id).to_owned(), key.string("key")?))).collect();
        servers.push(TrustedKeyServer { server_name: name.to_owned(), verify_keys });
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_lines_go_both_ways_and_never_into_debug() {
        let key = SigningKey::new("a_AbCd", [7; 32]);
        let line = key.expose_line();
        assert_eq!(SigningKey::parse(&line).as_ref(), Ok(&key));
        assert_eq!(format!("{key:?}"), "SigningKey(ed25519:a_AbCd)");
        for wrong in ["ed25519 a_x", "rsa a_x AAAA", "ed25519 a_x ???", "ed25519 a_x AAAA"] {
            assert!(SigningKey::parse(wrong).is_err(), "{wrong}");
        }
    }
}
