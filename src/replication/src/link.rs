//! How to reach Redis.

use config::Redis;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use std::path::Path;
use types::{Error, Result};

/// A client for one of the two connections. `with_db`: select `redis.dbid` (pub/sub has no databases).
pub(crate) fn client(redis: &Redis, with_db: bool) -> Result<Client> {
    let mut settings = RedisConnectionInfo::default();
    if let Some(user) = &redis.username {
        settings = settings.set_username(user);
    }
    if let Some(password) = &redis.password {
        settings = settings.set_password(password.expose());
    }
    if let Some(db) = redis.dbid.filter(|_| with_db) {
        settings = settings.set_db(db);
    }
    let address = address(redis);
    let info = address.into_connection_info()?.set_redis_settings(settings);
    match &redis.tls {
        Some(tls) if redis.path.is_none() => with_tls(info, tls),
        _ => Ok(Client::open(info)?),
    }
}

fn address(redis: &Redis) -> ConnectionAddr {
    let (host, port) = (redis.host.clone(), redis.port);
    match (&redis.path, &redis.tls) {
        (Some(path), _) => ConnectionAddr::Unix(path.clone()),
        (None, Some(_)) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        (None, None) => ConnectionAddr::Tcp(host, port),
    }
}

fn with_tls(info: ConnectionInfo, tls: &config::redis::RedisTls) -> Result<Client> {
    let client_tls = match (&tls.certificate_file, &tls.private_key_file) {
        (Some(cert), Some(key)) => Some(redis::ClientTlsConfig {
            client_cert: read("certificate_file", cert)?,
            client_key: read("private_key_file", key)?,
        }),
        _ => None,
    };
    let root_cert = match (&tls.ca_file, &tls.ca_path) {
        (Some(file), _) => Some(read("ca_file", file)?),
        (None, Some(folder)) => Some(read_folder(folder)?),
        (None, None) => None,
    };
    Ok(Client::build_with_tls(info, redis::TlsCertificates { client_tls, root_cert })?)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::internal(format!("redis.{key}: {}: {e}", path.display())))
}

/// All certificates of a folder, one after the other.
fn read_folder(folder: &Path) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let entries =
        std::fs::read_dir(folder).map_err(|e| Error::internal(format!("redis.ca_path: {}: {e}", folder.display())))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            all.extend(read("ca_path", &path)?);
            all.push(b'\n');
        }
    }
    Ok(all)
}
