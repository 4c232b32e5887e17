//! Where PostgreSQL and Redis of a cluster are: its own, one of its hosts, or somebody else's.

use super::{ClusterFile, DatabaseAt, RedisAt, RedisPlace, SOCKET_PATH_MAX, hosts};
use std::path::Path;

pub(super) fn database(cluster: &ClusterFile, data_dir: &Path) -> DatabaseAt {
    let (file, base_port) = (&cluster.database, cluster.base_port);
    let host = file.host.clone().or_else(|| hosts::address_of(cluster, |h| h.database).map(|a| a.to_string()));
    let private = host.is_none();
    // That of the cluster's own hosts is known by the cluster's own CA.
    let tls = if file.host.is_none() { cluster.tls.as_ref() } else { None };
    let socket_dir = data_dir.join("run");
    // The socket is called .s.PGSQL.PORT inside the folder; a long path leaves only TCP.
    let fits = socket_dir.as_os_str().len() + 20 <= SOCKET_PATH_MAX;
    let own_host = if fits { socket_dir.display().to_string() } else { "127.0.0.1".into() };
    DatabaseAt {
        private,
        host: host.unwrap_or(own_host),
        port: file.port.unwrap_or(if private { base_port + 2 } else { 5432 }),
        user: file.user.clone().unwrap_or_else(|| "synapse".into()),
        name: file.name.clone().unwrap_or_else(|| "synapse".into()),
        passfile: file.passfile.clone().or_else(|| (private && !fits).then(|| data_dir.join("secrets/pgpass"))),
        sslmode: tls.map(|_| "verify-full".into()).or_else(|| file.sslmode.clone()),
        sslrootcert: tls.map(|tls| tls.ca.clone()).or_else(|| file.sslrootcert.clone()),
    }
}

pub(super) fn redis(cluster: &ClusterFile, data_dir: &Path) -> RedisAt {
    let (file, base_port) = (&cluster.redis, cluster.base_port);
    let host = file.host.clone().or_else(|| hosts::address_of(cluster, |h| h.redis).map(|a| a.to_string()));
    let private = host.is_none() && file.path.is_none();
    let own_tls = if file.host.is_none() && file.path.is_none() { cluster.tls.as_ref() } else { None };
    let socket = data_dir.join("run/redis.sock");
    let place = match (&file.path, host) {
        (Some(path), _) => RedisPlace::Socket(path.clone()),
        (None, Some(host)) => RedisPlace::Tcp(host, file.port.unwrap_or(6379)),
        (None, None) if socket.as_os_str().len() <= SOCKET_PATH_MAX => RedisPlace::Socket(socket),
        (None, None) => RedisPlace::Tcp("127.0.0.1".into(), file.port.unwrap_or(base_port + 3)),
    };
    RedisAt {
        private,
        place,
        username: file.username.clone(),
        password_path: file.password_path.clone(),
        tls: own_tls.is_some() || file.tls,
        ca: own_tls.map(|tls| tls.ca.clone()).or_else(|| file.ca.clone()),
    }
}
