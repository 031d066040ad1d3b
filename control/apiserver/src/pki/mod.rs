//! The cluster's own certificates: one authority, the identities of the control plane, the service-account
//! signing key, and what a node needs to join. Everything lives as PEM below one directory, keys with mode 0600.
//!
//! # Limits
//! Signs only what this module lists: there is no CertificateSigningRequest flow here. Files are made again when
//! they are missing, close to expiry, signed by another authority or for other names; a file that cannot be
//! parsed is an error, never silently replaced.

mod authority;
mod files;
mod identity;
pub mod kubeconfig;
mod live;
mod node;
pub mod tls;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

pub use authority::Authority;
pub use identity::{Identity, Profile, ServingNames, Usage};
pub use live::LiveIdentity;
pub use node::{NodeIdentity, issue_node};

/// User name of the certificate with which the API server calls kubelets.
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";

/// Why a certificate or key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried: `read`, `write`, `create directory`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there, but does not hold what its name says.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("issue certificate {name}: {source}")]
    Issue {
        /// File stem of the certificate.
        name: String,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// A TLS configuration could not be built from the certificates.
    #[error("tls configuration: {0}")]
    Tls(String),
}

/// Everything the control plane signs and serves with, as loaded from (or written to) its directory.
pub struct Pki {
    /// The cluster's authority.
    pub authority: Authority,
    /// Serving certificate of the API server.
    pub serving: Arc<LiveIdentity>,
    /// Client certificate for kubelets' port 10250.
    pub kubelet_client: Arc<LiveIdentity>,
    /// Client certificate of `kubernetes-admin` (group `system:masters`).
    pub admin: Identity,
    /// Client certificate of `system:kube-scheduler`.
    pub scheduler: Identity,
    /// Client certificate of `system:kube-controller-manager`.
    pub controllers: Identity,
    /// Key that signs service-account tokens (ECDSA P-256).
    pub service_account: rcgen::KeyPair,
}

/// Folder of certificates below the data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("pki")
}

/// Loads the cluster's certificates below `data_dir`, making those that are missing or due.
///
/// Running it again changes nothing as long as every file is good for `now` and for `names`.
pub fn ensure(data_dir: &Path, names: &ServingNames, now: Timestamp) -> Result<Pki, PkiError> {
    let dir = directory(data_dir);
    files::create_private_dir(&dir)?;
    let authority = Authority::ensure(&dir, now)?;
    let client = |stem: &str, user: &str, group: Option<&str>| {
        authority.ensure_identity(&dir, stem, &Profile::client(user, group), now)
    };
    let serving = authority.ensure_identity(
        &dir,
        "apiserver",
        &Profile::serving("kube-apiserver", names.clone()),
        now,
    )?;
    Ok(Pki {
        serving: LiveIdentity::new(&serving)?,
        kubelet_client: LiveIdentity::new(&client("apiserver-kubelet-client", KUBELET_CLIENT_USER, None)?)?,
        admin: client("admin", "kubernetes-admin", Some("system:masters"))?,
        scheduler: client("scheduler", "system:kube-scheduler", None)?,
        controllers: client("controllers", "system:kube-controller-manager", None)?,
        service_account: identity::ensure_key(&dir.join("sa.key"))?,
        authority,
    })
}

impl Pki {
    /// Writes a kubeconfig for one of the identities: `server` is the URL clients use.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, identity: &Identity) -> Result<(), PkiError> {
        let text = kubeconfig::render(&kubeconfig::Access {
            cluster: "beeline",
            server,
            ca_pem: self.authority.certificate_pem(),
            user: &identity.user,
            certificate_pem: &identity.certificate_pem,
            key_pem: &identity.key_pem,
        });
        files::write_private(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests;
