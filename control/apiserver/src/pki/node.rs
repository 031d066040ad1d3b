//! What a node needs to join: a kubeconfig with its client certificate, a serving certificate for its kubelet
//! port, and the authority's certificate to check that port's clients.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;

use super::{Authority, PkiError, Profile, ServingNames, directory, files, kubeconfig};

/// Who the node is and how it reaches the API server.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// The node's name.
    pub name: String,
    /// Its addresses, which clients of the kubelet port dial.
    pub addresses: Vec<IpAddr>,
    /// URL of the API server.
    pub server: String,
}

/// Issues the certificates of one node from the authority below `data_dir` and writes them to `out`:
/// `kubeconfig`, `kubelet.crt`, `kubelet.key`, `ca.crt`.
pub fn issue_node(data_dir: &Path, node: &NodeIdentity, out: &Path, now: Timestamp) -> Result<(), PkiError> {
    let authority = Authority::load(&directory(data_dir))?;
    let user = format!("system:node:{}", node.name);
    files::create_private_dir(out)?;
    let names = ServingNames { dns: vec![node.name.clone()], addresses: node.addresses.clone() };
    let client =
        authority.issue(&out.join("kubeconfig"), &Profile::client(&user, Some("system:nodes")), now)?;
    let serving = authority.issue(&out.join("kubelet.crt"), &Profile::serving(&user, names), now)?;
    let access = kubeconfig::Access {
        cluster: "beeline",
        server: &node.server,
        ca_pem: authority.certificate_pem(),
        user: &user,
        certificate_pem: &client.certificate_pem,
        key_pem: &client.key_pem,
    };
    files::write_private(&out.join("kubelet.key"), serving.key_pem.as_bytes())?;
    files::write_public(&out.join("kubelet.crt"), serving.certificate_pem.as_bytes())?;
    files::write_public(&out.join("ca.crt"), authority.certificate_pem().as_bytes())?;
    files::write_private(&out.join("kubeconfig"), kubeconfig::render(&access).as_bytes())
}
