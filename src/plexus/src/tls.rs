//! TLS of listeners with `tls: true`.

use config::federation::Tls;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use types::{Error, Result};

/// Reads `tls_certificate_path` and `tls_private_key_path`.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let missing = |key| Error::internal(format!("listeners: tls needs {key}"));
    let certificate = tls.certificate.as_deref().ok_or_else(|| missing("tls_certificate_path"))?;
    let key = tls.private_key.as_deref().ok_or_else(|| missing("tls_private_key_path"))?;
    let failed = |key: &str, path: &Path, e: pem::Error| Error::internal(format!("{key}: {}: {e}", path.display()));
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|e| failed("tls_certificate_path", certificate, e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| failed("tls_private_key_path", key, e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
