//! The command line: grammar and help, no action.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

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
    /// Devices that lead out of the node. The first leads to other nodes; clients may come by any.
    #[arg(long, value_delimiter = ',', default_value = "eth0")]
    pub uplink: Vec<String>,
    /// Address ranges of pods, one of each family.
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<Cidr>,
    /// Address ranges of services, one of each family.
    #[arg(long, value_delimiter = ',')]
    pub service_cidr: Vec<Cidr>,
    /// XDP on the uplinks.
    #[arg(long, value_enum, default_value_t = Xdp::Auto)]
    pub xdp: Xdp,
    /// Where node ports are served: `primary` (the first node address of each family) or address ranges; without it on all node addresses.
    #[arg(long = "nodeport-addresses", value_delimiter = ',')]
    pub nodeport_addresses: Vec<NodePorts>,
    /// Source ports of translated clients, FIRST-LAST.
    #[arg(long, value_parser = port_range)]
    pub snat_ports: Option<RangeInclusive<u16>>,
    /// Entries of a new table of established flows, per family; by the machine's memory without it.
    #[arg(long)]
    pub flow_entries: Option<u32>,
    /// Entries beyond which a table of established flows does not grow; eight times the first size without it.
    #[arg(long)]
    pub flow_entries_limit: Option<u32>,
    /// Gives all tables another layout than an agent with another number has, to try an upgrade with one build.
    #[arg(long, default_value_t = 0, hide = true)]
    pub layout_salt: u64,
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
    /// How nodes on other segments are reached.
    #[arg(long, value_enum, default_value_t = Tunnels::Auto)]
    pub tunnels: Tunnels,
    /// Whether this agent serves Services, hostPorts and the masquerading of pods, or leaves them to another proxy.
    #[arg(long, value_enum, default_value_t = DataPlane::On)]
    pub data_plane: DataPlane,
}

/// Who serves Services on a node of role `run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataPlane {
    /// Beeline's programs.
    On,
    /// Another proxy: pods get interfaces and the kernel's routes, no program is loaded, ports 10249 and 10256 are left free.
    Off,
}

/// How nodes on other segments are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tunnels {
    /// In VXLAN, if the route to the node's address leads through a router.
    Auto,
    /// As nodes on this segment: the routers know the pod ranges.
    Off,
}

/// One value of `--nodeport-addresses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePorts {
    /// The first node address of each family.
    Primary,
    /// Node addresses in this range.
    Range(Cidr),
}

impl FromStr for NodePorts {
    type Err = network::cidr::CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "primary" { Ok(Self::Primary) } else { text.parse().map(Self::Range) }
    }
}

impl Proxy {
    /// Where node ports are served; an error if `primary` stands beside ranges.
    pub fn node_port_addresses(&self) -> Result<datapath::NodePortAddresses, &'static str> {
        let ranges = self.nodeport_addresses.iter().filter_map(|value| match value {
            NodePorts::Range(cidr) => Some((cidr.base(), cidr.prefix())),
            NodePorts::Primary => None,
        });
        let ranges: Vec<_> = ranges.collect();
        match (self.nodeport_addresses.len(), ranges.len()) {
            (0, _) => Ok(datapath::NodePortAddresses::All),
            (1, 0) => Ok(datapath::NodePortAddresses::Primary),
            (all, ranged) if all == ranged => Ok(datapath::NodePortAddresses::Ranges(ranges)),
            _ => Err("--nodeport-addresses: `primary` stands alone"),
        }
    }
}

/// Reads FIRST-LAST.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').ok_or("not FIRST-LAST")?;
    let number = |text: &str| text.parse::<u16>().map_err(|error| format!("\"{text}\": {error}"));
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 || last < first {
        Err("the first port is 0 or larger than the last".to_owned())
    } else {
        Ok(first..=last)
    }
}

/// XDP modes that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    /// Native if the driver can, else none; none on a veth.
    Auto,
    /// Native or none.
    Native,
    /// Generic or none: for tries, it cannot do large segments right.
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
        assert_eq!(run.data_plane, DataPlane::On);
        let off = format!("{line} --data-plane off");
        let Command::Run(run) = Flags::try_parse_from(off.split_whitespace()).unwrap().command else {
            panic!("not run")
        };
        assert_eq!(run.data_plane, DataPlane::Off);
    }

    #[test]
    fn a_bad_address_range_is_named() {
        let line = "beeline-agent proxy --node-name n --node-ip 10.0.0.1 --kubeconfig K --cluster-cidr 10.244.0.0/99";
        let error = Flags::try_parse_from(line.split_whitespace()).unwrap_err().to_string();
        assert!(error.contains("\"10.244.0.0/99\": the prefix length must be 0 to 32"), "{error}");
    }

    fn proxy(extra: &str) -> Result<Proxy, String> {
        let line = format!("beeline-agent proxy --node-name n --node-ip 10.0.0.1 --kubeconfig K {extra}");
        match Flags::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?.command {
            Command::Proxy(proxy) => Ok(proxy),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn node_port_addresses_are_all_or_primary_or_ranges() {
        use datapath::NodePortAddresses::{All, Primary, Ranges};
        let ranges = Ranges(vec![("10.0.0.0".parse().unwrap(), 8), ("fd00::".parse().unwrap(), 8)]);
        for (flags, expected) in [
            ("", Ok(All)),
            ("--nodeport-addresses primary", Ok(Primary)),
            ("--nodeport-addresses 10.0.0.0/8,fd00::/8", Ok(ranges)),
            ("--nodeport-addresses primary,10.0.0.0/8", Err("--nodeport-addresses: `primary` stands alone")),
        ] {
            assert_eq!(proxy(flags).unwrap().node_port_addresses(), expected, "{flags}");
        }
        assert!(
            proxy("--nodeport-addresses eth0").unwrap_err().contains("\"eth0\" is not an address prefix")
        );
    }

    #[test]
    fn source_ports_are_a_range() {
        assert_eq!(proxy("--snat-ports 61000-62000").unwrap().snat_ports, Some(61000..=62000));
        for bad in ["61000", "62000-61000", "0-9", "1-70000"] {
            assert!(proxy(&format!("--snat-ports {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_uplinks_are_named_with_commas() {
        assert_eq!(proxy("").unwrap().uplink, ["eth0"]);
        assert_eq!(proxy("--uplink eth1,eth2").unwrap().uplink, ["eth1", "eth2"]);
    }
}
