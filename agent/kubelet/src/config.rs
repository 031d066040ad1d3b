//! What a node tells its kubelet. Parsing flags is the agent binary's work; this is the result.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Configuration of one kubelet role. Build it with [`KubeletConfig::new`] and change what differs.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of the node, the preferred family first: status.addresses, hostIPs, and where :10250 listens.
    pub node_ips: Vec<IpAddr>,
    /// Durable state: `pods/<uid>/..` in upstream's layout, `logs/pods`, `logs/containers`.
    pub root_dir: PathBuf,
    /// State that ends with the boot: namespace pins (`ns/<uid>/`), FIFOs (`io/`), runc state (`runc/`).
    pub run_dir: PathBuf,
    /// containerd's gRPC socket.
    pub containerd_socket: PathBuf,
    /// containerd namespace that belongs to this node alone.
    pub containerd_namespace: String,
    /// cgroup below which `kubepods` lives, relative to each hierarchy's root, e.g. `beeline/node1`.
    pub cgroup_root: String,
    /// PEM file: serving certificate of the HTTPS port.
    pub serving_cert: PathBuf,
    /// PEM file: its private key.
    pub serving_key: PathBuf,
    /// PEM file: the CA that signs client certificates accepted on the HTTPS port.
    pub client_ca: PathBuf,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Name servers of the cluster; empty: `ClusterFirst` falls back to the node's resolv.conf.
    pub cluster_dns: Vec<IpAddr>,
    /// The node's own resolver configuration.
    pub resolv_conf: PathBuf,
    /// Largest number of pods that this node admits.
    pub max_pods: u32,
    /// Port of the HTTPS server.
    pub port: u16,
    /// Port of the plain health endpoint on 127.0.0.1.
    pub healthz_port: u16,
    /// Log file size that starts a rotation, in bytes.
    pub container_log_max_bytes: u64,
    /// Log files kept for one container instance, the one being written included.
    pub container_log_max_files: u32,
    /// Longest pause between two restarts of a crashing container.
    pub crash_loop_max: Duration,
    /// How often mounted ConfigMaps, Secrets and tokens are compared with the API.
    pub volume_refresh: Duration,
}

impl KubeletConfig {
    /// A configuration with upstream's defaults for everything that a development node does not set.
    pub fn new(
        node_name: impl Into<String>,
        root_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
    ) -> Self {
        let node_name = node_name.into();
        Self {
            containerd_namespace: format!("beeline-{node_name}"),
            cgroup_root: format!("beeline/{node_name}"),
            node_name,
            node_ips: Vec::new(),
            root_dir: root_dir.into(),
            run_dir: run_dir.into(),
            containerd_socket: "/run/containerd/containerd.sock".into(),
            serving_cert: PathBuf::new(),
            serving_key: PathBuf::new(),
            client_ca: PathBuf::new(),
            cluster_domain: "cluster.local".into(),
            cluster_dns: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            port: 10250,
            healthz_port: 10248,
            container_log_max_bytes: 10 << 20,
            container_log_max_files: 5,
            crash_loop_max: Duration::from_secs(300),
            volume_refresh: Duration::from_secs(60),
        }
    }

    /// Directory of everything kept for one pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Directory of a pod's namespace pins.
    pub fn pins_dir(&self, uid: &str) -> PathBuf {
        self.run_dir.join("ns").join(uid)
    }

    /// Directory of a pod's log files: `<ns>_<pod>_<uid>`, as upstream below /var/log/pods.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.root_dir.join("logs/pods").join(format!("{namespace}_{name}_{uid}"))
    }
}
