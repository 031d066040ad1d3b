//! The command line: grammar and help, no action.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use network::Cidr;

/// The node agent of Beeline.
#[derive(Debug, Parser)]
#[command(name = "beeline-agent", version)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The roles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A node: kubelet and data plane.
    Run(Run),
    /// The data plane alone, as the kube-proxy of a node of any Kubernetes cluster.
    Proxy(Proxy),
    /// What is attached, how full the tables are, what was dropped and why.
    Status {
        /// Directory of the node's pinned maps and links.
        #[arg(long)]
        bpf_dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// List frontends with their backends instead of counting the tables' rows.
        #[arg(long)]
        tables: bool,
    },
}

/// Flags of the data plane, in both roles.
#[derive(Debug, Args)]
pub struct Proxy {
    /// Name of the Node object.
    #[arg(long)]
    pub node_name: String,
    /// Addresses of the node, the preferred family first.
    #[arg(long, value_delimiter = ',', required = true)]
    pub node_ip: Vec<IpAddr>,
    /// How to reach and authenticate to the API server.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Directory on a BPF filesystem for this node's maps and links.
    #[arg(long, default_value = "/sys/fs/bpf/beeline")]
    pub bpf_dir: PathBuf,
    /// Subtree of the cgroup v2 tree whose sockets are served; empty for the whole machine.
    #[arg(long, default_value = "")]
    pub cgroup_root: String,
    /// Device that leads to other nodes.
    #[arg(long, default_value = "eth0")]
    pub uplink: String,
    /// Address ranges of pods, one of each family.
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<Cidr>,
    /// Address ranges of services, one of each family.
    #[arg(long, value_delimiter = ',')]
    pub service_cidr: Vec<Cidr>,
    /// XDP on the uplink.
    #[arg(long, value_enum, default_value_t = Xdp::Auto)]
    pub xdp: Xdp,
    /// Where /healthz and /livez of the data plane are served.
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: SocketAddr,
    /// Where /metrics of the data plane is served.
    #[arg(long, default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: SocketAddr,
}

/// Flags of a node.
#[derive(Debug, Args)]
pub struct Run {
    /// The data plane.
    #[command(flatten)]
    pub proxy: Proxy,
    /// Directory for what must survive a reboot: pods, logs, addresses.
    #[arg(long)]
    pub root_dir: PathBuf,
    /// Directory for what ends with the boot: namespace pins, FIFOs.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// containerd's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    pub containerd_socket: PathBuf,
    /// containerd namespace of this node alone.
    #[arg(long)]
    pub containerd_namespace: String,
    /// Certificate of port 10250 (PEM).
    #[arg(long)]
    pub serving_cert: PathBuf,
    /// Its key (PEM).
    #[arg(long)]
    pub serving_key: PathBuf,
    /// Authority that signs the clients of port 10250 (PEM).
    #[arg(long)]
    pub client_ca: PathBuf,
    /// Name servers of the cluster.
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
}

/// XDP modes that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    /// Native if the driver can, else generic, else none.
    Auto,
    /// Native or none.
    Native,
    /// Generic or none.
    Generic,
    /// None: tcx does the work.
    Off,
}

impl From<Xdp> for datapath::XdpChoice {
    fn from(xdp: Xdp) -> Self {
        match xdp {
            Xdp::Auto => Self::Auto,
            Xdp::Native => Self::Native,
            Xdp::Generic => Self::Generic,
            Xdp::Off => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_node_of_the_development_cluster_parses() {
        let line = "beeline-agent run --node-name n1 --node-ip 172.30.0.11,fd30::11 --kubeconfig K --root-dir D --run-dir R \
            --containerd-socket S --containerd-namespace beeline-n1 --cgroup-root beeline/n1 --serving-cert C --serving-key Y \
            --client-ca A --bpf-dir B --uplink eth0 --cluster-cidr 10.244.0.0/16,fd00:10:244::/56 --service-cidr 10.96.0.0/16,fd00:10:96::/112";
        let Command::Run(run) = Flags::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not run")
        };
        assert_eq!(run.proxy.node_ip.len(), 2);
        assert_eq!(run.proxy.service_cidr[1].to_string(), "fd00:10:96::/112");
        assert_eq!(run.proxy.healthz_bind_address.port(), 10256);
    }

    #[test]
    fn a_bad_address_range_is_named() {
        let line = "beeline-agent proxy --node-name n --node-ip 10.0.0.1 --kubeconfig K --cluster-cidr 10.244.0.0/99";
        let error = Flags::try_parse_from(line.split_whitespace()).unwrap_err().to_string();
        assert!(error.contains("\"10.244.0.0/99\": the prefix length must be 0 to 32"), "{error}");
    }
}
