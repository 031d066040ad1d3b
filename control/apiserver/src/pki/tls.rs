//! TLS configurations made of the cluster's certificates: for the API server's listener, and for its calls to
//! kubelets.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Pki, PkiError};

/// The listener: HTTP/2 and HTTP/1.1, client certificates of the cluster's authority optional.
///
/// A client certificate of another authority ends the handshake (upstream answers 401 instead).
pub fn server_config(pki: &Pki) -> Result<ServerConfig, PkiError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pki)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(pki.serving.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The client of kubelets: HTTP/1.1 only, since exec and attach upgrade the connection.
pub fn kubelet_client_config(pki: &Pki) -> Result<ClientConfig, PkiError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(pki)?)
        .with_client_cert_resolver(pki.kubelet_client.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pki: &Pki) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(pki.authority.certificate_pem().as_bytes()).map_err(failed)?;
    roots.add(ca).map_err(failed)?;
    Ok(roots)
}

fn failed(reason: impl ToString) -> PkiError {
    PkiError::Tls(reason.to_string())
}
