//! TLS configurations made of the cluster's certificates: for the API server's listener, and for its calls to
//! kubelets.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Identity, Pki, PkiError};

/// The listener: HTTP/2 and HTTP/1.1, client certificates of the cluster's authority optional.
///
/// A client certificate of another authority ends the handshake (upstream answers 401 instead).
pub fn server_config(pki: &Pki) -> Result<ServerConfig, PkiError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pki)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let (chain, key) = der(&pki.serving)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The client of kubelets: HTTP/1.1 only, since exec and attach upgrade the connection.
pub fn kubelet_client_config(pki: &Pki) -> Result<ClientConfig, PkiError> {
    let (chain, key) = der(&pki.kubelet_client)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(pki)?)
        .with_client_auth_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pki: &Pki) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(pki.authority.certificate_pem().as_bytes()).map_err(failed)?;
    roots.add(ca).map_err(failed)?;
    Ok(roots)
}

fn der(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).map_err(failed)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(failed)?;
    Ok((vec![certificate], key))
}

fn failed(reason: impl ToString) -> PkiError {
    PkiError::Tls(reason.to_string())
}
