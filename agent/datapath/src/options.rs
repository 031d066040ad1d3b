//! What the data plane is told: where it lives, what the node is, what a pod's interface is. Plain data; nothing is looked up here.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::links::XdpMode;

/// Which XDP modes may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpChoice {
    /// Native if the driver can, else none. On a veth, none: packets that native XDP sends back are not seen by the far end until something
    /// else wakes it, unless it runs XDP, too (drivers/net/veth.c, `veth_xdp_flush`).
    #[default]
    Auto,
    /// Native or none.
    Native,
    /// Generic or none. For tests and small packets: it runs after GRO, and so meets TCP segments put together to packets larger than any
    /// link takes, whose checksums are not finished.
    Generic,
    /// None: tcx does the work.
    Off,
}

impl XdpChoice {
    /// The modes to try on this device, in order.
    pub(crate) fn modes(self, uplink: &Uplink) -> &'static [XdpMode] {
        match self {
            Self::Auto if uplink.veth => &[],
            Self::Auto | Self::Native => &[XdpMode::Native],
            Self::Generic => &[XdpMode::Generic],
            Self::Off => &[],
        }
    }
}

/// At which of this node's addresses node ports are served (kube-proxy's `nodePortAddresses`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// At all of them.
    #[default]
    All,
    /// At the first of each family.
    Primary,
    /// At those in one of these ranges: address and prefix length.
    Ranges(Vec<(IpAddr, u8)>),
}

/// A device that leads out of the node: an interface of its own, a bond or a VLAN on one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Name, as in pins and status.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u32,
    /// One end of a veth pair, where native XDP depends on the far end (see [`XdpChoice::Auto`]).
    pub veth: bool,
}

/// Where the data plane lives.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Directory on a BPF filesystem.
    pub bpf_dir: PathBuf,
    /// Subtree of the cgroup v2 tree whose sockets are served, like `beeline/node1`.
    pub cgroup: String,
    /// Devices that lead to other nodes and to clients. The first leads to the other nodes; masqueraded connections leave by it.
    pub uplinks: Vec<Uplink>,
    /// XDP on the uplinks.
    pub xdp: XdpChoice,
    /// Where node ports are served.
    pub node_port_addresses: NodePortAddresses,
    /// Entries of a new table of established flows, per family; by the machine's memory if not given.
    pub flow_entries: Option<u32>,
    /// Entries beyond which such a table does not grow; eight times its first size if not given.
    pub flow_entries_limit: Option<u32>,
    /// Source ports of translated clients; `abi::limits::SNAT_PORTS` if not given.
    pub snat_ports: Option<RangeInclusive<u16>>,
    /// Makes all layouts differ from those of another number, so that an upgrade to another layout can be tried with one build.
    pub layout_salt: u64,
}

/// The node's VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Name.
    pub name: String,
    /// Index.
    pub ifindex: u32,
}

/// What the programs are told of the node and the cluster. A prefix is an address and a length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// This node's pod ranges.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// The cluster's pod ranges.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// The service ranges.
    pub service_cidrs: Vec<(IpAddr, u8)>,
    /// This node's addresses; the first of each family is the source of translated clients.
    pub addresses: Vec<IpAddr>,
    /// Whether pods may only send from their own addresses.
    pub spoof_check: bool,
    /// Whether pods' connections to addresses outside the cluster get this node's address.
    pub masquerade: bool,
    /// The device to nodes on other segments, if there is one.
    pub vxlan: Option<Vxlan>,
}

/// A node that is not on the main uplink's segment: packets between its pods and ours travel in VXLAN over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Where outer packets go: that node's own address.
    pub to: Ipv4Addr,
    /// The router on our segment that leads there.
    pub gateway: Ipv4Addr,
}

/// What the tables need of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeAddresses {
    /// Number, as in backend rows.
    pub number: u16,
    /// Whether it is this node.
    pub local: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its pod ranges: first address and prefix length.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// How it is reached if it is on another segment.
    pub tunnel: Option<Tunnel>,
}

/// A pod's interface as the data plane needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// Index of the host end.
    pub ifindex: u32,
    /// Name of the host end.
    pub ifname: String,
    /// Hardware address of the host end.
    pub host_mac: [u8; 6],
    /// Hardware address of the pod's end.
    pub pod_mac: [u8; 6],
    /// Addresses of the pod.
    pub addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdp_runs_on_a_veth_and_in_generic_mode_only_if_asked_for() {
        for (choice, veth, expected) in [
            (XdpChoice::Auto, false, &["native"][..]),
            (XdpChoice::Auto, true, &[]),
            (XdpChoice::Generic, true, &["generic"]),
            (XdpChoice::Native, true, &["native"]),
            (XdpChoice::Off, false, &[]),
        ] {
            let uplink = Uplink { name: "eth0".to_owned(), ifindex: 2, mac: [0; 6], mtu: 1500, veth };
            let modes: Vec<&str> = choice.modes(&uplink).iter().map(|mode| mode.as_str()).collect();
            assert_eq!(modes, expected, "{choice:?}, veth {veth}");
        }
    }
}
