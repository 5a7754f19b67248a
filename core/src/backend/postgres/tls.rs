//! TLS as libpq means it: what of the server's certificate is verified.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What connections are encrypted with, where they are.
pub(super) type Tls = MakeRustlsConnect;

/// What of the server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: it keeps out who only listens.
    Nothing,
    /// That an authority of ours signed it.
    Chain,
    /// And that it is for this host.
    Full,
}

/// Files of PEM.
#[derive(Debug, Default)]
pub(super) struct TlsFiles {
    pub(super) root: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

/// The TLS side of a connection.
pub(super) fn client(verify: Verify, files: &TlsFiles) -> Result<Tls, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|_| "this build has no TLS".to_owned())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(verify, files, provider)?));
    let config = match (&files.cert, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| unreadable("sslkey"))?;
            let built = builder.with_client_auth_cert(certificates(cert, "sslcert")?, key);
            built.map_err(|_| "sslcert and sslkey do not belong together".to_owned())?
        }
        _ => return Err("a client certificate is sslcert=/path and sslkey=/path".into()),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn unreadable(name: &str) -> String {
    format!("the file of {name} can't be read as PEM")
}

fn certificates(path: &str, name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|_| unreadable(name))?;
    if read.is_empty() { Err(unreadable(name)) } else { Ok(read) }
}

#[derive(Debug)]
struct Verifier {
    verify: Verify,
    /// Taken as they are, also where the server's own certificate is among them.
    pinned: Vec<CertificateDer<'static>>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(verify: Verify, files: &TlsFiles, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let mut pinned = Vec::new();
        let chain = if verify == Verify::Nothing {
            None
        } else {
            let mut roots = RootCertStore::empty();
            match files.root.as_deref() {
                None | Some("system") => {
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                }
                Some(path) => {
                    pinned = certificates(path, "sslrootcert")?;
                    roots.add_parsable_certificates(pinned.clone());
                }
            }
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Some(built.map_err(|_| "there are no root certificates; name some with sslrootcert".to_owned())?)
        };
        Ok(Verifier { verify, pinned, chain, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            if self.verify == Verify::Full {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name comes last: the chain is fine.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verify == Verify::Chain => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
