//! The cluster's network: a bridge in a namespace of its own, and one namespace with an uplink for the control plane,
//! the client and each node. It sets links and addresses only; routes to pods are the agents' work.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::plan::{self, Plan};
use crate::place::{Place, pin};
use crate::shell;

/// The uplink's name in every namespace.
pub(crate) const UPLINK: &str = "eth0";
const BRIDGE: &str = "br0";
/// The bridge's own address, which stands for the world outside: everybody's default gateway.
const GATEWAY: u8 = 1;

/// Makes what is missing of the fabric and its members.
pub(crate) fn ensure(plan: &Plan) -> Result<()> {
    ensure_bridge(plan)?;
    ensure_member(plan, plan::CONTROL, plan.control())?;
    ensure_member(plan, plan::CLIENT, plan.client())?;
    for node in plan.nodes() {
        ensure_member(plan, &node.namespace, node.addresses)?;
    }
    Ok(())
}

/// The namespaces of a plan, members before the fabric.
pub(crate) fn namespaces(nodes: u8) -> Vec<String> {
    let nodes = (1..=nodes).map(|index| format!("bl-node{index}"));
    nodes.chain([plan::CLIENT, plan::CONTROL, plan::FABRIC].map(str::to_owned)).collect()
}

fn ensure_bridge(plan: &Plan) -> Result<()> {
    let fabric = plan::FABRIC;
    if pin(fabric).exists() {
        return Ok(());
    }
    shell::words(&format!("ip netns add {fabric}"))?;
    // No spanning tree and no multicast snooping: a port forwards from its first packet on.
    shell::words(&format!(
        "ip -n {fabric} link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
    ))?;
    shell::words(&format!("ip -n {fabric} link set {BRIDGE} up"))?;
    add_addresses(fabric, BRIDGE, plan.addresses(GATEWAY))
}

fn ensure_member(plan: &Plan, namespace: &str, addresses: [IpAddr; 2]) -> Result<()> {
    if pin(namespace).exists() {
        return Ok(());
    }
    let fabric = plan::FABRIC;
    let port = port_name(namespace);
    shell::words(&format!("ip netns add {namespace}"))?;
    shell::words(&format!("ip -n {namespace} link set lo up"))?;
    shell::words(&format!("ip -n {fabric} link add {port} type veth peer name {UPLINK} netns {namespace}"))?;
    shell::words(&format!("ip -n {fabric} link set {port} master {BRIDGE} up"))?;
    // A veth hands packets to XDP without their checksum unless the sender has computed it, and a packet that XDP sends
    // arrives only where the far end polls (GRO on): a real NIC needs neither.
    offload(namespace, UPLINK, "tx off")?;
    offload(fabric, &port, "gro on")?;
    add_addresses(namespace, UPLINK, addresses)?;
    shell::words(&format!("ip -n {namespace} link set {UPLINK} up"))?;
    for gateway in plan.addresses(GATEWAY) {
        shell::words(&format!("ip -n {namespace} route add default via {gateway} dev {UPLINK}"))?;
    }
    Ok(())
}

/// The fabric's end of a member's link.
pub(crate) fn port_name(namespace: &str) -> String {
    format!("p-{}", namespace.trim_start_matches("bl-"))
}

fn add_addresses(namespace: &str, device: &str, addresses: [IpAddr; 2]) -> Result<()> {
    for address in addresses {
        // Without duplicate address detection an IPv6 address serves at once.
        let (length, options) = if address.is_ipv4() { (24, "") } else { (64, "nodad") };
        shell::words(&format!("ip -n {namespace} address add {address}/{length} dev {device} {options}"))?;
    }
    Ok(())
}

fn offload(namespace: &str, device: &str, setting: &str) -> Result<()> {
    let mut ethtool = Command::new("ethtool");
    ethtool.args(["-K", device]).args(setting.split(' '));
    let place = Place { namespace: Some(namespace.to_owned()), cgroup: None };
    place
        .run(|| shell::quiet(&mut ethtool))
        .with_context(|| format!("set {setting} on {device} of {namespace}"))?;
    Ok(())
}
