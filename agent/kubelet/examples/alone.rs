//! The kubelet role without a data plane, for trying it against a control plane: pods get interfaces and addresses,
//! services do not work. Start it in the node's network namespace. Arguments: node name, node address, kubeconfig,
//! directory with kubelet.crt, kubelet.key, ca.crt, root directory, run directory, containerd socket, uplink device.

use std::path::Path;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kubelet::{CancellationToken, KubeletConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, address, kubeconfig, certificates, root, run, socket, uplink] = arguments.as_slice() else {
        return Err("usage: alone NODE ADDRESS KUBECONFIG CERTIFICATES ROOT RUN SOCKET UPLINK".into());
    };
    let mut config = KubeletConfig::new(name, root, run);
    config.node_ips = address.split(',').map(str::parse).collect::<Result<_, _>>()?;
    config.cgroup_root = format!("kubelet-alone/{name}");
    config.containerd_socket = socket.into();
    config.serving_cert = Path::new(certificates).join("kubelet.crt");
    config.serving_key = Path::new(certificates).join("kubelet.key");
    config.client_ca = Path::new(certificates).join("ca.crt");
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let client = kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?)?;
    let network = network::Config { state_dir: Path::new(root).join("network"), uplink: uplink.clone() };
    let network = network::PodNetwork::new(network, Arc::new(network::Unwired))?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    kubelet::run(config, client, Arc::new(network), shutdown).await?;
    Ok(())
}
