//! TLS to PostgreSQL as libpq does it: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>). Files are read once, at start.

use config::Database;
use config::database::SslMode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use types::{Error, Result};
use x509_cert::Certificate;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, oid::ObjectIdentifier};
use x509_cert::ext::pkix::SubjectAltName;

/// How to connect, and how else if that fails.
#[derive(Clone)]
pub(crate) struct Ways {
    first: Way,
    otherwise: Option<Way>,
}

#[derive(Clone)]
enum Way {
    Plain,
    /// TLS if the server offers it.
    Offered(MakeRustlsConnect),
    Tls(MakeRustlsConnect),
}

impl Ways {
    pub(crate) fn of(d: &Database) -> Result<Self> {
        let local = d.hostaddr.is_none() && d.host.as_deref().is_none_or(|h| h.starts_with('/'));
        let (first, otherwise) = match d.sslmode {
            SslMode::Disable => (Way::Plain, None),
            _ if local => (Way::Plain, None),
            SslMode::Allow => (Way::Plain, Some(Way::Tls(connector(d)?))),
            SslMode::Prefer => (Way::Offered(connector(d)?), Some(Way::Plain)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Way::Tls(connector(d)?), None),
        };
        Ok(Self { first, otherwise })
    }

    pub(crate) async fn connect(&self, config: &Config) -> Result<Client, tokio_postgres::Error> {
        match (self.first.connect(config).await, &self.otherwise) {
            (Err(_), Some(other)) => other.connect(config).await,
            (outcome, _) => outcome,
        }
    }
}

impl Way {
    async fn connect(&self, config: &Config) -> Result<Client, tokio_postgres::Error> {
        // The error of a connection reaches whoever waits for an answer on it.
        match self {
            Self::Plain => {
                let (client, connection) = config.clone().ssl_mode(Negotiation::Disable).connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            }
            Self::Offered(tls) | Self::Tls(tls) => {
                let mode = if matches!(self, Self::Tls(_)) { Negotiation::Require } else { Negotiation::Prefer };
                let (client, connection) = config.clone().ssl_mode(mode).connect(tls.clone()).await?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    }
}

fn connector(d: &Database) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let check = Check {
        roots: roots(d)?,
        name: d.sslmode == SslMode::VerifyFull,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let tls = match identity(d)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| Error::internal(format!("database.args.sslcert and sslkey: {e}")))?,
        None => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(tls))
}

/// A file where libpq looks for it when the configuration does not say.
fn of_home(name: &str) -> Option<PathBuf> {
    Some(std::env::home_dir()?.join(".postgresql").join(name))
}

/// What the server's certificate must descend from; `None`: it is not checked. As in libpq the file is obeyed in every
/// mode once it exists, and must exist only for `verify-ca` and `verify-full`.
fn roots(d: &Database) -> Result<Option<Roots>> {
    if d.sslrootcert.as_deref() == Some(Path::new("system")) {
        if d.sslmode != SslMode::VerifyFull {
            return Err(Error::internal(
                "database.args.sslmode: too weak for sslrootcert: system; allowed: verify-full",
            ));
        }
        return Ok(Some(Roots::new(rustls_native_certs::load_native_certs().certs)));
    }
    let file = d.sslrootcert.clone().or_else(|| of_home("root.crt")).unwrap_or_default();
    if !file.exists() {
        return match d.sslmode {
            SslMode::VerifyCa | SslMode::VerifyFull => Err(Error::internal(format!(
                "database.args.sslrootcert: {} does not exist; sslmode verify-ca and verify-full need CA certificates",
                file.display()
            ))),
            _ => Ok(None),
        };
    }
    let roots = Roots::new(certificates("sslrootcert", &file)?);
    if roots.certificates.is_empty() {
        return Err(Error::internal(format!("database.args.sslrootcert: no certificate in {}", file.display())));
    }
    Ok(Some(roots))
}

/// Our certificate and key, if there are any.
fn identity(d: &Database) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let file = d.sslcert.clone().or_else(|| of_home("postgresql.crt"));
    let Some(certificate) = file.filter(|f| f.exists()) else { return Ok(None) };
    let key = d.sslkey.clone().or_else(|| of_home("postgresql.key")).unwrap_or_default();
    let secret = PrivateKeyDer::from_pem_file(&key)
        .map_err(|e| Error::internal(format!("database.args.sslkey: {}: {e}", key.display())))?;
    Ok(Some((certificates("sslcert", &certificate)?, secret)))
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|e| Error::internal(format!("database.args.{key}: {}: {e}", file.display())))
}

#[derive(Debug)]
struct Roots {
    anchors: RootCertStore,
    /// As they stand in the file: a server's own self-signed certificate may be among them.
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut anchors = RootCertStore::empty();
        anchors.add_parsable_certificates(certificates.iter().cloned());
        Self { anchors, certificates }
    }
}

/// Checks a server's certificate as far as `sslmode` says.
#[derive(Debug)]
struct Check {
    /// `None`: any certificate will do.
    roots: Option<Roots>,
    /// Whether the certificate must be for the host's name.
    name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        if roots.certificates.contains(certificate) {
            in_time(certificate, now)?;
        } else {
            let parsed = ParsedCertificate::try_from(certificate)?;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &roots.anchors,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        if self.name && !has_common_name(certificate, host) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, host)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, rustls::Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// The dates of a certificate that is trusted by itself. `openssl req -x509` makes CA certificates, which are none
/// for a server in the eyes of webpki, but PostgreSQL's handbook tells to use them as that.
fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let validity = parse(certificate)?.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// `id-at-commonName` (RFC 5280).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Whether a certificate without alternative names has the host as its common name; libpq still takes these.
fn has_common_name(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let Ok(parsed) = parse(certificate) else { return false };
    let fields = parsed.tbs_certificate;
    if fields.extensions.iter().flatten().any(|e| e.extn_id == SubjectAltName::OID) {
        return false;
    }
    let (host, mut parts) = (host.to_str(), fields.subject.0.iter().flat_map(|set| set.0.iter()));
    parts.any(|part| {
        let text = part.value.decode_as::<Utf8StringRef<'_>>().map(|s| s.as_str().to_owned());
        let text = text.or_else(|_| part.value.decode_as::<PrintableStringRef<'_>>().map(|s| s.as_str().to_owned()));
        part.oid == COMMON_NAME && text.is_ok_and(|name| matches(&name, &host))
    })
}

/// `*.example.org` stands for one label.
fn matches(name: &str, host: &str) -> bool {
    let rest = host.split_once('.').map(|(_, rest)| rest);
    name.eq_ignore_ascii_case(host)
        || name.strip_prefix("*.").is_some_and(|n| rest.is_some_and(|rest| n.eq_ignore_ascii_case(rest)))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn common_names_match_whole_or_by_one_label() {
        assert!(matches("DB.example.org", "db.example.org"));
        assert!(matches("*.example.org", "db.example.org"));
        assert!(!matches("*.example.org", "a.db.example.org"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(!matches("example.org", "db.example.org"));
    }
}
