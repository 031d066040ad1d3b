//! Nodes in the delivery tables: their addresses, pod ranges, hardware addresses, and the next hops that lead to them.
//!
//! Which node is on which segment is not found out here: who tells of a node says so.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use abi::config::{Cidr4, Cidr6, Config};
use abi::maps::PeerMac;
use abi::route::{
    KIND_L2, KIND_STACK, KIND_TUNNEL, Nexthop, NodeAddress, PodRoute, TUNNEL_OVERHEAD, node_flags,
};
use abi::{Ip4, Ip6, Mac};

use super::{Routes, RoutesError};
use crate::maps::Maps;
use crate::options::{NodeAddresses, NodePortAddresses, Tunnel};
use crate::sys::BPF_ANY;

impl Routes {
    /// Makes node addresses, pod ranges and hardware addresses equal to `nodes`.
    pub fn set_nodes(
        &mut self,
        maps: &Maps,
        config: &Config,
        nodes: &[NodeAddresses],
        now_ms: u64,
    ) -> Result<(), RoutesError> {
        let mut addresses = BTreeMap::new();
        let mut ranges = BTreeMap::new();
        for node in nodes {
            let number = u32::from(node.number);
            let tunnel = match node.tunnel.filter(|_| !node.local) {
                Some(tunnel) => self.tunnel(maps, config, tunnel, now_ms)?,
                None => 0,
            };
            for (index, address) in node.addresses.iter().enumerate() {
                let row = if node.local {
                    let first = node.addresses.iter().position(|one| one.is_ipv4() == address.is_ipv4());
                    let flags = local_flags(&self.node_ports, *address, first == Some(index));
                    NodeAddress { flags, node: number, ..NodeAddress::default() }
                } else {
                    let nexthop = self.gateway_of(maps, node, *address, now_ms)?;
                    NodeAddress { flags: 0, node: number, nexthop, tunnel }
                };
                addresses.insert(*address, row);
            }
            for (cidr, _) in node.pod_cidrs.iter().filter(|_| !node.local) {
                let same_family = |address: &&IpAddr| address.is_ipv4() == cidr.is_ipv4();
                let nexthop = match node.addresses.iter().find(same_family) {
                    _ if tunnel != 0 => tunnel,
                    Some(address) => addresses.get(address).map_or(0, |row| row.nexthop),
                    None => continue,
                };
                if let Some(index) = range_index(config, *cidr) {
                    ranges.insert((cidr.is_ipv4(), index), PodRoute { nexthop, node: number });
                }
            }
        }
        self.write_ranges(maps, ranges);
        self.write_addresses(maps, addresses)?;
        self.forget_unused(maps, nodes, now_ms);
        Ok(self.write_peers(maps)?)
    }

    /// What is known of a neighbour's hardware address. Next hops by way of it follow.
    pub fn set_neighbour(
        &mut self,
        maps: &Maps,
        config: &Config,
        address: IpAddr,
        mac: Option<[u8; 6]>,
    ) -> Result<(), RoutesError> {
        let old = match mac {
            Some(mac) => self.neighbours.insert(address, mac),
            None => self.neighbours.remove(&address),
        };
        if let Some(hop) = self.gateways.get(&address) {
            self.write_gateway(maps, *hop, address);
        }
        for (hop, tunnel) in self.tunnels.values().filter(|(_, tunnel)| tunnel.gateway == address) {
            self.write_tunnel(maps, config, *hop, *tunnel);
        }
        Ok(self.note_peer(maps, address, old, mac)?)
    }

    /// Neighbours whose hardware addresses are wanted: other nodes, and routers to nodes on other segments.
    pub fn wanted_neighbours(&self) -> Vec<IpAddr> {
        let routers = self.tunnels.values().map(|(_, tunnel)| IpAddr::V4(tunnel.gateway));
        let mut wanted: Vec<IpAddr> = self.gateways.keys().copied().chain(routers).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// The next hop to a node's address: the node itself, or the router to its segment.
    fn gateway_of(
        &mut self,
        maps: &Maps,
        node: &NodeAddresses,
        address: IpAddr,
        now_ms: u64,
    ) -> Result<u32, RoutesError> {
        match (node.tunnel, address) {
            (None, address) => self.gateway(maps, address, now_ms),
            (Some(tunnel), IpAddr::V4(_)) => self.gateway(maps, tunnel.gateway.into(), now_ms),
            // Routers are known by IPv4: the stack finds the way.
            (Some(_), IpAddr::V6(_)) => Ok(0),
        }
    }

    /// Gives back the next hops that no node's address needs.
    fn forget_unused(&mut self, maps: &Maps, nodes: &[NodeAddresses], now_ms: u64) {
        let used: HashSet<u32> = self
            .addresses
            .values()
            .flat_map(|row| [row.nexthop, row.tunnel])
            .filter(|hop| *hop != 0)
            .collect();
        let tunnels: HashSet<Ipv4Addr> =
            nodes.iter().filter_map(|node| Some(node.tunnel.filter(|_| !node.local)?.to)).collect();
        let idle = self.gateways.iter().filter(|(_, hop)| !used.contains(hop));
        let idle: Vec<IpAddr> = idle.map(|(address, _)| *address).collect();
        for address in idle {
            if let Some(hop) = self.gateways.remove(&address) {
                self.release(maps, hop, now_ms);
            }
        }
        let idle: Vec<Ipv4Addr> = self.tunnels.keys().filter(|to| !tunnels.contains(to)).copied().collect();
        for to in idle {
            if let Some((hop, _)) = self.tunnels.remove(&to) {
                self.release(maps, hop, now_ms);
            }
        }
    }

    fn tunnel(
        &mut self,
        maps: &Maps,
        config: &Config,
        tunnel: Tunnel,
        now_ms: u64,
    ) -> Result<u32, RoutesError> {
        let hop = match self.tunnels.get(&tunnel.to) {
            Some((hop, _)) => *hop,
            None => self.ids.take(now_ms).ok_or(RoutesError::Full)?,
        };
        self.tunnels.insert(tunnel.to, (hop, tunnel));
        self.write_tunnel(maps, config, hop, tunnel);
        Ok(hop)
    }

    /// While the router's hardware address is not known, the stack's own way by the VXLAN device is taken.
    pub(super) fn write_tunnel(&self, maps: &Maps, config: &Config, hop: u32, tunnel: Tunnel) {
        let mut row = Nexthop {
            ifindex: config.vxlan,
            kind: KIND_STACK,
            mtu: self.mtu().saturating_sub(TUNNEL_OVERHEAD),
            smac: Mac::from_bytes(self.uplink.mac),
            tunnel: Ip4::from(tunnel.to).0,
            underlay: self.uplink.ifindex,
            ..Nexthop::default()
        };
        if let Some(mac) = self.neighbours.get(&IpAddr::V4(tunnel.gateway)).filter(|_| config.vxlan != 0) {
            (row.kind, row.dmac) = (KIND_TUNNEL, Mac::from_bytes(*mac));
        }
        self.rewrite(maps, hop, row, KIND_TUNNEL);
    }

    /// A node on the segment is known by another hardware address than before. One that is not known at all keeps its row.
    fn note_peer(
        &mut self,
        maps: &Maps,
        address: IpAddr,
        old: Option<[u8; 6]>,
        new: Option<[u8; 6]>,
    ) -> io::Result<()> {
        let row = self.addresses.get(&address).filter(|row| row.nexthop != 0 && row.tunnel == 0);
        let (Some(node), Some(new)) = (row.map(|row| row.node), new) else { return Ok(()) };
        if self.peers.insert(new, node) != Some(node) {
            maps.peermac.insert(&peer_key(&new), &node, BPF_ANY)?;
        }
        // Its other addresses may still be known by the old one.
        let Some(old) = old.filter(|old| *old != new) else { return Ok(()) };
        if self.neighbours.values().all(|known| *known != old) && self.peers.remove(&old).is_some() {
            maps.peermac.remove(&peer_key(&old))?;
        }
        Ok(())
    }

    /// Makes the table of hardware addresses what is known of nodes on the segment. A row stays until its node is gone or known by another
    /// address: after a restart nothing is known for a moment.
    fn write_peers(&mut self, maps: &Maps) -> io::Result<()> {
        let on_segment = self.addresses.iter().filter(|(_, row)| row.nexthop != 0 && row.tunnel == 0);
        let nodes: HashSet<u32> = on_segment.clone().map(|(_, row)| row.node).collect();
        let known: BTreeMap<[u8; 6], u32> = on_segment
            .filter_map(|(address, row)| Some((*self.neighbours.get(address)?, row.node)))
            .collect();
        let renamed: HashSet<u32> = known.values().copied().collect();
        for (mac, node) in known.iter().filter(|(mac, node)| self.peers.get(*mac) != Some(node)) {
            maps.peermac.insert(&peer_key(mac), node, BPF_ANY)?;
        }
        let stale = |mac: &[u8; 6], node: &u32| {
            !known.contains_key(mac) && (!nodes.contains(node) || renamed.contains(node))
        };
        let gone: Vec<[u8; 6]> =
            self.peers.iter().filter(|(mac, node)| stale(mac, node)).map(|(mac, _)| *mac).collect();
        for mac in gone {
            maps.peermac.remove(&peer_key(&mac))?;
            self.peers.remove(&mac);
        }
        self.peers.extend(known);
        Ok(())
    }

    fn gateway(&mut self, maps: &Maps, address: IpAddr, now_ms: u64) -> Result<u32, RoutesError> {
        if let Some(hop) = self.gateways.get(&address) {
            let hop = *hop;
            self.write_gateway(maps, hop, address);
            return Ok(hop);
        }
        let hop = self.ids.take(now_ms).ok_or(RoutesError::Full)?;
        self.gateways.insert(address, hop);
        self.write_gateway(maps, hop, address);
        Ok(hop)
    }

    /// A neighbour that is not known (yet) is left to the stack, which asks for it.
    fn write_gateway(&self, maps: &Maps, hop: u32, address: IpAddr) {
        let mut row = Nexthop {
            ifindex: self.uplink.ifindex,
            kind: KIND_STACK,
            mtu: self.mtu(),
            smac: Mac::from_bytes(self.uplink.mac),
            ..Nexthop::default()
        };
        if let Some(mac) = self.neighbours.get(&address) {
            (row.kind, row.dmac) = (KIND_L2, Mac::from_bytes(*mac));
        }
        self.rewrite(maps, hop, row, KIND_L2);
    }

    /// Writes a next hop that is of `kind` when its neighbour is known.
    fn rewrite(&self, maps: &Maps, hop: u32, mut row: Nexthop, kind: u8) {
        let current = maps.nexthop.get(hop).unwrap_or_default();
        // After a restart the old address is better than none until the neighbour table has been read.
        let waiting = row.kind != kind && self.neighbours.is_empty();
        if waiting && current.kind == kind && current.ifindex == row.ifindex {
            return;
        }
        row.generation = current.generation;
        if row == current {
            return;
        }
        row.generation = current.generation.wrapping_add(1);
        if current.kind == kind {
            maps.nexthop.set(hop, &Nexthop { kind: KIND_STACK, ..current });
        }
        maps.nexthop.set(hop, &Nexthop { kind: KIND_STACK, ..row });
        maps.nexthop.set(hop, &row);
    }

    fn write_ranges(&mut self, maps: &Maps, ranges: BTreeMap<(bool, u32), PodRoute>) {
        let table = |is_ipv4: bool| if is_ipv4 { &maps.v4.podroute } else { &maps.v6.podroute };
        for ((is_ipv4, index), row) in &ranges {
            if self.ranges.get(&(*is_ipv4, *index)) != Some(row) {
                table(*is_ipv4).set(*index, row);
            }
        }
        for (is_ipv4, index) in self.ranges.keys().filter(|key| !ranges.contains_key(*key)) {
            table(*is_ipv4).set(*index, &PodRoute::default());
        }
        self.ranges = ranges;
    }

    fn write_addresses(
        &mut self,
        maps: &Maps,
        addresses: BTreeMap<IpAddr, NodeAddress>,
    ) -> Result<(), RoutesError> {
        for (address, row) in &addresses {
            if self.addresses.get(address) == Some(row) {
                continue;
            }
            let written = match address {
                IpAddr::V4(v4) => maps.v4.nodeip.insert(&Ip4::from(*v4), row, BPF_ANY),
                IpAddr::V6(v6) => maps.v6.nodeip.insert(&Ip6::from(*v6), row, BPF_ANY),
            };
            written.map_err(|source| RoutesError::Address { address: *address, source })?;
        }
        for address in self.addresses.keys().filter(|address| !addresses.contains_key(*address)) {
            let removed = match address {
                IpAddr::V4(v4) => maps.v4.nodeip.remove(&Ip4::from(*v4)),
                IpAddr::V6(v6) => maps.v6.nodeip.remove(&Ip6::from(*v6)),
            };
            removed.map_err(|source| RoutesError::Address { address: *address, source })?;
        }
        self.addresses = addresses;
        Ok(())
    }
}

fn peer_key(mac: &[u8; 6]) -> PeerMac {
    PeerMac { mac: Mac::from_bytes(*mac), _pad: 0 }
}

/// Flags of an address of this node; `first` of its family.
fn local_flags(node_ports: &NodePortAddresses, address: IpAddr, first: bool) -> u32 {
    let in_range = |(base, prefix): &(IpAddr, u8)| match (*base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => Cidr4::new(base.into(), *prefix).contains(address.into()),
        (IpAddr::V6(base), IpAddr::V6(address)) => Cidr6::new(base.into(), *prefix).contains(address.into()),
        _ => false,
    };
    let served = match node_ports {
        NodePortAddresses::All => true,
        NodePortAddresses::Primary => first,
        NodePortAddresses::Ranges(ranges) => ranges.iter().any(in_range),
    };
    node_flags::LOCAL | if served { node_flags::NODE_PORT } else { 0 }
}

/// Number of a node's pod range within the cluster's.
fn range_index(config: &Config, cidr: IpAddr) -> Option<u32> {
    match cidr {
        IpAddr::V4(v4) if config.cluster4.contains(v4.into()) => {
            Some((Ip4::from(v4).host() - config.cluster4.net.host()) >> config.cluster4_shift)
        }
        IpAddr::V6(v6) if config.cluster6.contains(v6.into()) => {
            u32::try_from((Ip6::from(v6).high() - config.cluster6.net.high()) >> config.cluster6_shift).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn node_ports_are_served_where_they_are_asked_for() {
        let ranges = NodePortAddresses::Ranges(vec![("172.30.0.0".parse().unwrap(), 24)]);
        for (choice, address, first, served) in [
            (&NodePortAddresses::All, "192.0.2.1", false, true),
            (&NodePortAddresses::Primary, "192.0.2.1", true, true),
            (&NodePortAddresses::Primary, "192.0.2.2", false, false),
            (&ranges, "172.30.0.11", false, true),
            (&ranges, "172.30.1.11", true, false),
            (&ranges, "fd30::11", true, false),
        ] {
            let flags = local_flags(choice, address.parse().unwrap(), first);
            let expected = node_flags::LOCAL | if served { node_flags::NODE_PORT } else { 0 };
            assert_eq!(flags, expected, "{choice:?} {address}");
        }
    }
}
