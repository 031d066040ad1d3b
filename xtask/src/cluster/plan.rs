//! What a development cluster consists of: names, addresses and paths, as pure functions of a few choices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::flags::{Profile, Proxy, UpArgs};
use crate::place::Place;
use crate::tree;

/// The namespace of the bridge that joins all others.
pub(crate) const FABRIC: &str = "bl-fabric";
/// The namespace of the control plane.
pub(crate) const CONTROL: &str = "bl-control";
/// The namespace of a client outside the cluster.
pub(crate) const CLIENT: &str = "bl-client";
/// The cgroup (in every hierarchy) below which everything of the cluster runs.
pub(crate) const CGROUP: &str = "beeline";
/// The most nodes a plan has: what is left of a cluster whose plan is lost is found by name.
pub(crate) const MAX_NODES: u8 = 20;
/// Sockets, pins and mounts: a short path, since Unix sockets allow 108 bytes.
pub(crate) const RUN: &str = "/run/beeline";
/// The cluster's pins in the BPF file system.
pub(crate) const BPF: &str = "/sys/fs/bpf/beeline";

const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];
const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// The choices a cluster was made with; kept in `target/cluster/plan.json` while it exists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// How many nodes.
    pub(crate) nodes: u8,
    /// IPv6 is the first family.
    pub(crate) ipv6: bool,
    /// Which binaries run.
    pub(crate) profile: Profile,
    /// Who serves Services.
    #[serde(default)]
    pub(crate) proxy: Proxy,
    /// The port of the API server on this machine's loopback, for kubectl.
    pub(crate) port: u16,
}

/// One node.
pub(crate) struct Node {
    /// Its name in the API.
    pub(crate) name: String,
    /// Its network namespace.
    pub(crate) namespace: String,
    /// Its addresses, first family first.
    pub(crate) addresses: [IpAddr; 2],
}

impl Plan {
    /// The plan that `up` was asked for, with the loopback port chosen by the caller.
    pub(crate) fn new(args: &UpArgs, port: u16) -> Self {
        Self { nodes: args.nodes, ipv6: args.ipv6, profile: args.profile(), proxy: args.proxy, port }
    }

    /// The plan of the cluster that is up.
    pub(crate) fn read() -> Result<Self> {
        let bytes = std::fs::read(Self::path()).context("no cluster is up: `cargo xtask up` makes one")?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", Self::path().display()))
    }

    /// Writes the plan down for other commands.
    pub(crate) fn write(&self) -> Result<()> {
        std::fs::create_dir_all(directory())?;
        std::fs::write(Self::path(), serde_json::to_vec_pretty(self)?).context("write the cluster's plan")
    }

    fn path() -> PathBuf {
        directory().join("plan.json")
    }

    /// All nodes in order.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        (1..=self.nodes)
            .map(|index| Node {
                name: format!("node{index}"),
                namespace: format!("bl-node{index}"),
                addresses: self.addresses(10 + index),
            })
            .collect()
    }

    /// The two fabric addresses of member `host` (4th byte; the same decimal digits end the IPv6 address).
    pub(crate) fn addresses(&self, host: u8) -> [IpAddr; 2] {
        let v4 = IpAddr::V4(Ipv4Addr::new(172, 30, 0, host));
        // fd30::11 for 172.30.0.11: the same digits, so that people recognise a node.
        let digits = u16::from_str_radix(&host.to_string(), 16).unwrap_or(u16::from(host));
        let v6 = IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, digits));
        if self.ipv6 { [v6, v4] } else { [v4, v6] }
    }

    /// Whether the cluster's proxy serves addresses of this family.
    pub(crate) fn serves(&self, address: IpAddr) -> bool {
        self.proxy == Proxy::Beeline || address.is_ipv4()
    }

    /// The control plane's fabric addresses.
    pub(crate) fn control(&self) -> [IpAddr; 2] {
        self.addresses(2)
    }

    /// The client's fabric addresses.
    pub(crate) fn client(&self) -> [IpAddr; 2] {
        self.addresses(3)
    }

    /// `A,B`: the ranges of pods, first family first.
    pub(crate) fn cluster_cidr(&self) -> String {
        self.in_order(POD_CIDRS)
    }

    /// `A,B`: the ranges of services, first family first.
    pub(crate) fn service_cidr(&self) -> String {
        self.in_order(SERVICE_CIDRS)
    }

    fn in_order(&self, [v4, v6]: [&str; 2]) -> String {
        if self.ipv6 { format!("{v6},{v4}") } else { format!("{v4},{v6}") }
    }
}

impl Node {
    /// Where programs of the node's host run that are no part of Beeline.
    pub(crate) fn host(&self) -> Place {
        self.place("host")
    }

    /// Where the agent runs.
    pub(crate) fn system(&self) -> Place {
        self.place("system")
    }

    fn place(&self, group: &str) -> Place {
        Place { namespace: Some(self.namespace.clone()), cgroup: Some(format!("{}/{group}", self.cgroup())) }
    }

    /// The node's cgroup in every hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("{CGROUP}/{}", self.name)
    }

    /// The node's namespace in containerd.
    pub(crate) fn containerd_namespace(&self) -> String {
        format!("beeline-{}", self.name)
    }

    /// `A,B`: the addresses, first family first.
    pub(crate) fn address_list(&self) -> String {
        self.addresses.map(|address| address.to_string()).join(",")
    }

    /// Certificates and kubeconfig.
    pub(crate) fn directory(&self) -> PathBuf {
        directory().join("nodes").join(&self.name)
    }

    /// The agent's pins in the BPF file system.
    pub(crate) fn bpf_directory(&self) -> PathBuf {
        PathBuf::from(BPF).join(&self.name)
    }
}

/// An address in a URL's host: IPv6 in brackets.
pub(crate) fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// The cgroups of a cluster of up to `nodes` nodes: nothing else below [`CGROUP`] is ours.
pub(crate) fn cgroups(nodes: u8) -> Vec<String> {
    let nodes = (1..=nodes).map(|index| format!("{CGROUP}/node{index}"));
    nodes.chain(["control", "containerd"].map(|group| format!("{CGROUP}/{group}"))).collect()
}

/// What the cluster keeps on disk.
pub(crate) fn directory() -> PathBuf {
    tree::root().join("target/cluster")
}

/// The administrator's kubeconfig.
pub(crate) fn kubeconfig() -> PathBuf {
    directory().join("kubeconfig")
}

/// What the cluster's processes say.
pub(crate) fn logs() -> PathBuf {
    directory().join("logs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ipv6: bool) -> Plan {
        Plan { nodes: 2, ipv6, profile: Profile::Dev, proxy: Proxy::Beeline, port: 6443 }
    }

    #[test]
    fn a_node_has_the_same_digits_in_both_families() {
        let nodes = plan(false).nodes();
        assert_eq!(nodes[1].name, "node2");
        assert_eq!(nodes[1].address_list(), "172.30.0.12,fd30::12");
    }

    #[test]
    fn the_first_family_comes_first_everywhere() {
        let plan = plan(true);
        assert_eq!(plan.nodes()[0].address_list(), "fd30::11,172.30.0.11");
        assert_eq!(plan.cluster_cidr(), "fd00:10:244::/56,10.244.0.0/16");
        assert_eq!(url_host(plan.control()[0]), "[fd30::2]");
    }
}
