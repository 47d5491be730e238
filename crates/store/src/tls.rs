//! TLS to a database that somebody else operates, in libpq's words and with its meaning: `sslmode` and `sslrootcert` of the
//! connection string.
//!
//! | `sslmode` | encrypted | the server's certificate |
//! | --- | --- | --- |
//! | `disable` | no | |
//! | `prefer`, and none | if the server can | not looked at |
//! | `require` | yes | not looked at; with `sslrootcert` as `verify-ca` |
//! | `verify-ca` | yes | of an authority that is trusted |
//! | `verify-full` | yes | that, and for the name by which the connection string calls the server |
//!
//! Trusted is what `sslrootcert` holds, or, without it and with `sslrootcert=system`, what this machine trusts. The file is
//! read for each connection: a renewed one counts from the next on.

use crate::error::StoreError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is looked at of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Authority,
    AuthorityAndName,
}

/// How a connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// It is refused by a server without TLS.
    is_required: bool,
    check: Check,
    /// The authorities; `None` for those that the machine trusts.
    root: Option<PathBuf>,
}

impl Tls {
    /// Take what concerns TLS out of a connection string. Returns the rest of it, and `None` when nothing is to be encrypted.
    /// A relative file lies in `folder`.
    pub(crate) fn take(dsn: &str, folder: &Path) -> Result<(String, Option<Self>), String> {
        let (place, options) = dsn.split_once('?').unwrap_or((dsn, ""));
        let (mut mode, mut root, mut rest) = (None, None, Vec::new());
        for option in options.split('&').filter(|o| !o.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => root = Some(decoded(value)?),
                _ => rest.push(option),
            }
        }
        let (is_required, check) = match (mode.unwrap_or("prefer"), &root) {
            ("disable", _) => return Ok((joined(place, &rest), None)),
            ("prefer", _) => (false, Check::Nothing),
            ("require", None) => (true, Check::Nothing),
            ("require" | "verify-ca", _) => (true, Check::Authority),
            ("verify-full", _) => (true, Check::AuthorityAndName),
            (other, _) => {
                return Err(format!(
                    "the connection string says sslmode={other}; there are disable, prefer, require, verify-ca and verify-full"
                ));
            }
        };
        let root = root.filter(|r| r != "system").map(|r| folder.join(r));
        Ok((joined(place, &rest), Some(Self { is_required, check, root })))
    }

    pub(crate) fn mode(&self) -> SslMode {
        if self.is_required { SslMode::Require } else { SslMode::Prefer }
    }

    /// What encrypts a connection.
    ///
    /// # Errors
    /// When the authorities cannot be read, in a sentence.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = match self.check {
            Check::Nothing => None,
            Check::Authority | Check::AuthorityAndName => {
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone());
                Some(verifier.build().map_err(|e| format!("take {} for authorities: {e}", self.trusted()))?)
            }
        };
        let verifier = Verifier { provider: provider.clone(), chain, with_name: self.check == Check::AuthorityAndName };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the versions that are on by default");
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let certificates: Vec<CertificateDer<'static>> = match &self.root {
            None => rustls_native_certs::load_native_certs().certs,
            Some(path) => {
                let hint = "it has to hold the authority's certificate as PEM, on each server's host";
                let unreadable =
                    |e: &dyn std::fmt::Display| format!("read sslrootcert {}: {e}; {hint}", path.display());
                let read = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))?;
                read.collect::<Result<_, _>>().map_err(|e| unreadable(&e))?
            }
        };
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(format!("{} holds no certificate; name a file that does with sslrootcert", self.trusted()));
        }
        Ok(roots)
    }

    fn trusted(&self) -> String {
        self.root.as_ref().map_or("the system's list of authorities".into(), |path| path.display().to_string())
    }

    /// What a failed connection says, if it is TLS that failed.
    pub(crate) fn fault(&self, at: &str, error: &tokio_postgres::Error) -> Option<StoreError> {
        let why = match cause(error) {
            Some(rustls::Error::InvalidCertificate(fault)) => self.certificate(fault),
            Some(other) => other.to_string(),
            None if error.source().is_some_and(|e| e.to_string().contains("does not support TLS")) => {
                "the server has no TLS, and the connection string requires it; have its operators set ssl=on, or use \
                 sslmode=prefer on a network that is trusted"
                    .to_owned()
            }
            None => return None,
        };
        Some(StoreError::Tls { at: at.to_owned(), why })
    }

    fn certificate(&self, fault: &CertificateError) -> String {
        match fault {
            CertificateError::UnknownIssuer => format!(
                "the server's certificate is of an authority that is not trusted here ({}); name the file with the \
                 authority's certificate with sslrootcert in the connection string",
                self.trusted()
            ),
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "the server's certificate is not for {} but for {}; call it by a name that is in its certificate, or use \
                 sslmode=verify-ca",
                expected.to_str(),
                if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") }
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired; have its operators renew it".to_owned()
            }
            other => format!("the server's certificate is refused: {other}"),
        }
    }
}

/// The error of TLS that an error of the driver came from.
fn cause<'a>(error: &'a tokio_postgres::Error) -> Option<&'a rustls::Error> {
    let mut next: Option<&'a (dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        next = inside.map(|e| e as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

fn joined(place: &str, options: &[&str]) -> String {
    if options.is_empty() { place.to_owned() } else { format!("{place}?{}", options.join("&")) }
}

/// Without the `%2F` of connection strings.
fn decoded(value: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut parts = value.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let byte = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.ok_or_else(|| format!("'{value}' in the connection string has a % without two digits"))?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| format!("'{value}' in the connection string is no text"))
}

/// Looks at as much of a server's certificate as was asked for.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    with_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, between, name, ocsp, now) {
            // The name is looked at last: all else is in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.with_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &str, rest: &str, expect: Option<(bool, Check, Option<&str>)>) {
        let (left, tls) = Tls::take(&format!("postgresql://chat@db/talk{options}"), Path::new("/host")).unwrap();
        assert_eq!(left, format!("postgresql://chat@db/talk{rest}"), "{options}");
        let tls = tls.map(|t| (t.is_required, t.check, t.root.map(|r| r.display().to_string())));
        assert_eq!(tls, expect.map(|(r, c, p)| (r, c, p.map(str::to_owned))), "{options}");
    }

    #[test]
    fn modes_mean_what_they_mean_to_libpq() {
        check("", "", Some((false, Check::Nothing, None)));
        check("?sslmode=disable&sslrootcert=ca.pem", "", None);
        check("?sslmode=prefer", "", Some((false, Check::Nothing, None)));
        check("?sslmode=require&keepalives=1", "?keepalives=1", Some((true, Check::Nothing, None)));
        check("?sslmode=require&sslrootcert=ca.pem", "", Some((true, Check::Authority, Some("/host/ca.pem"))));
        check(
            "?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca.pem",
            "",
            Some((true, Check::Authority, Some("/etc/ca.pem"))),
        );
        check("?sslrootcert=system&sslmode=verify-full", "", Some((true, Check::AuthorityAndName, None)));
        for wrong in ["?sslmode=allow", "?sslmode=", "?sslrootcert=%2"] {
            assert!(Tls::take(&format!("postgresql://chat@db/talk{wrong}"), Path::new("/")).is_err(), "{wrong}");
        }
    }
}
