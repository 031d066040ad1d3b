//! A pod's life on containerd: source, actor, decision, status, probes, volumes, logs, exec, node registration.

pub mod cgroup;
pub mod config;
pub mod containerd;
pub mod environment;
pub mod host;
pub mod logs;
pub mod objects;
pub mod oci;
pub mod podnet;
pub mod pods;
pub mod probes;
pub mod quantity;
pub mod sandbox;
pub mod volumes;

use std::sync::Arc;

pub use config::KubeletConfig;
pub use podnet::{NetPod, PodNetworking};
pub use tokio_util::sync::CancellationToken;

/// Runs the kubelet role until `shutdown` is cancelled. Containers, namespaces and mounts stay as they are.
pub async fn run(
    config: KubeletConfig,
    client: kube::Client,
    network: Arc<dyn PodNetworking>,
    shutdown: CancellationToken,
) -> Result<(), KubeletError> {
    let _ = (config, client, network);
    shutdown.cancelled().await;
    Ok(())
}

/// Why the kubelet could not start.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A directory or file of the node could not be prepared.
    #[error("{what}: {source}")]
    Io {
        /// The path or step.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}
