//! A certificate that can be replaced while connections are made with it: the TLS configurations hold this, so that
//! a renewed certificate is used from the next handshake on, without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Identity, Pki, PkiError, ServingNames, ensure, tls};

/// How often a running server looks at the dates of its certificates; they are renewed months ahead.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);

/// The certificate and key in use.
#[derive(Debug)]
pub struct LiveIdentity(ArcSwap<CertifiedKey>);

impl LiveIdentity {
    /// Starts with `identity`.
    pub(super) fn new(identity: &Identity) -> Result<Arc<Self>, PkiError> {
        let failed = |reason: String| PkiError::Tls(reason);
        let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes())
            .map_err(|error| failed(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
            .map_err(|error| failed(error.to_string()))?;
        let key = CertifiedKey::from_der(vec![certificate], key, &tls::provider())
            .map_err(|error| failed(error.to_string()))?;
        Ok(Arc::new(Self(ArcSwap::from_pointee(key))))
    }

    fn take_from(&self, fresh: &Self) {
        self.0.store(fresh.0.load_full());
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Pki {
    /// Renews what is due at `now`, on disk and in the TLS configurations made of this.
    pub fn renew(
        &self,
        data_dir: &std::path::Path,
        names: &ServingNames,
        now: Timestamp,
    ) -> Result<(), PkiError> {
        renew(&self.serving, &self.kubelet_client, data_dir, names, now)
    }

    /// Renews for ever; a failure is logged and tried again at the next look.
    pub fn keep_renewed(
        &self,
        data_dir: PathBuf,
        names: ServingNames,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (serving, kubelet_client) = (self.serving.clone(), self.kubelet_client.clone());
        async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if let Err(error) = renew(&serving, &kubelet_client, &data_dir, &names, Timestamp::now()) {
                    tracing::warn!(%error, "certificates were not renewed");
                }
            }
        }
    }
}

fn renew(
    serving: &LiveIdentity,
    kubelet_client: &LiveIdentity,
    data_dir: &std::path::Path,
    names: &ServingNames,
    now: Timestamp,
) -> Result<(), PkiError> {
    let fresh = ensure(data_dir, names, now)?;
    serving.take_from(&fresh.serving);
    kubelet_client.take_from(&fresh.kubelet_client);
    Ok(())
}
