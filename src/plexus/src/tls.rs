//! TLS of listeners with `tls: true`.

use config::federation::Tls;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use types::{Error, Result};

/// Reads `tls_certificate_path` and `tls_private_key_path`.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let missing = |key| Error::internal(format!("listeners: tls needs {key}"));
    let certificate = tls.certificate.as_deref().ok_or_else(|| missing("tls_certificate_path"))?;
    let key = tls.private_key.as_deref().ok_or_else(|| missing("tls_private_key_path"))?;
    let chain = rustls_pemfile::certs(&mut reader("tls_certificate_path", certificate)?).collect::<Result<Vec<_>, _>>()?;
    let key = rustls_pemfile::private_key(&mut reader("tls_private_key_path", key)?)?
        .ok_or_else(|| Error::internal(format!("tls_private_key_path: no private key in {}", key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn reader(key: &str, path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|e| Error::internal(format!("{key}: {}: {e}", path.display())))?;
    Ok(BufReader::new(file))
}
