//! Delivery tables: next hops, pods of this node, pod ranges of other nodes, node addresses.
//!
//! Next hop indexes stay with what they lead to, also across restarts, since flows remember them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use abi::config::Config;
use abi::route::{
    Endpoint, KIND_DROP, KIND_L2, KIND_NONE, KIND_PEER, KIND_STACK, Nexthop, NodeAddress, PodRoute,
    node_flags,
};
use abi::{Ip4, Ip6, Mac};
use aya::maps::MapError;
use service::ids::Ids;

use crate::maps::Maps;
use crate::options::{NodeAddresses, PodPort, Uplink};
use crate::sys::Wire;

/// Why a route could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// All next hops are in use.
    #[error("the next hop table is full")]
    Full,
    /// A node address could not be inserted or deleted.
    #[error("node address {address}: {source}")]
    Address {
        /// Which one.
        address: IpAddr,
        /// aya's error.
        source: MapError,
    },
}

/// A pod in the tables.
#[derive(Debug, Clone)]
struct Pod {
    nexthop: u32,
    addresses: Vec<IpAddr>,
}

/// The state behind the tables.
#[derive(Debug)]
pub struct Routes {
    uplink: Uplink,
    ids: Ids,
    /// Host-side interface name to pod.
    pods: HashMap<String, Pod>,
    /// Next hops of remote node addresses.
    gateways: BTreeMap<IpAddr, u32>,
    addresses: BTreeMap<IpAddr, NodeAddress>,
    ranges: BTreeMap<(bool, u32), PodRoute>,
    neighbours: HashMap<IpAddr, [u8; 6]>,
    /// Endpoint rows found at start that no pod has claimed.
    unclaimed: HashMap<IpAddr, Endpoint>,
}

impl Routes {
    /// Reads what is in the tables.
    pub fn learn(maps: &Maps, config: &Config, uplink: Uplink) -> Self {
        let mut ids = Ids::new(maps.nexthop.len() as usize, abi::limits::QUARANTINE_MS);
        for index in 1..maps.nexthop.len() {
            if maps.nexthop.get(index).is_some_and(|row| row.kind != KIND_NONE) {
                ids.reserve(index);
            }
        }
        let v4 = maps.nodeip4.iter().flatten().map(|(key, row)| (IpAddr::V4(key.0.into()), row.0));
        let v6 = maps.nodeip6.iter().flatten().map(|(key, row)| (IpAddr::V6(key.0.into()), row.0));
        let addresses: BTreeMap<IpAddr, NodeAddress> = v4.chain(v6).collect();
        let gateways = addresses
            .iter()
            .filter(|(_, row)| row.nexthop != 0)
            .map(|(address, row)| (*address, row.nexthop))
            .collect();
        let mut ranges = BTreeMap::new();
        for (table, is_ipv4) in [(&maps.podroute4, true), (&maps.podroute6, false)] {
            let rows = (0..table.len()).filter_map(|index| Some((index, table.get(index)?)));
            ranges.extend(
                rows.filter(|(_, row)| *row != PodRoute::default())
                    .map(|(index, row)| ((is_ipv4, index), row)),
            );
        }
        let mut unclaimed = HashMap::new();
        for (table, base) in [(&maps.ep4, first4(config)), (&maps.ep6, first6(config))] {
            let rows = (0..table.len()).filter_map(|index| Some((index, table.get(index)?)));
            for (index, row) in rows.filter(|(_, row)| *row != Endpoint::default()) {
                unclaimed.insert(base(index), row);
            }
        }
        Self {
            uplink,
            ids,
            pods: HashMap::new(),
            gateways,
            addresses,
            ranges,
            neighbours: HashMap::new(),
            unclaimed,
        }
    }

    /// Makes a pod of this node reachable.
    pub fn add_pod(
        &mut self,
        maps: &Maps,
        config: &Config,
        port: &PodPort,
        now_ms: u64,
    ) -> Result<(), RoutesError> {
        let known = self.pods.get(&port.ifname).map(|pod| pod.nexthop);
        let inherited = port
            .addresses
            .iter()
            .filter_map(|address| self.unclaimed.get(address))
            .map(|row| row.nexthop)
            .find(|id| *id != 0);
        let nexthop = known.or(inherited).or_else(|| self.ids.take(now_ms)).ok_or(RoutesError::Full)?;
        let generation = maps.nexthop.get(nexthop).map_or(0, |row| row.generation.wrapping_add(1));
        maps.nexthop.set(
            nexthop,
            &Nexthop {
                ifindex: port.ifindex,
                kind: KIND_PEER,
                mtu: self.uplink.mtu.min(u32::from(u16::MAX)) as u16,
                smac: Mac::from_bytes(port.host_mac),
                dmac: Mac::from_bytes(port.pod_mac),
                generation,
                ..Nexthop::default()
            },
        );
        for address in &port.addresses {
            self.unclaimed.remove(address);
            let row = Endpoint { nexthop, id: nexthop, ifindex: port.ifindex, ..Endpoint::default() };
            write_endpoint(maps, config, *address, &row);
        }
        let pod = Pod { nexthop, addresses: port.addresses.clone() };
        self.pods.insert(port.ifname.clone(), pod);
        Ok(())
    }

    /// Forgets a pod.
    pub fn remove_pod(&mut self, maps: &Maps, config: &Config, ifname: &str, now_ms: u64) {
        let Some(pod) = self.pods.remove(ifname) else { return };
        for address in &pod.addresses {
            write_endpoint(maps, config, *address, &Endpoint::default());
        }
        self.release(maps, pod.nexthop, now_ms);
    }

    /// Removes the pods that an earlier process left and nobody claimed since.
    pub fn drop_unclaimed(&mut self, maps: &Maps, config: &Config, now_ms: u64) -> usize {
        let unclaimed = std::mem::take(&mut self.unclaimed);
        let in_use: HashSet<u32> = self.pods.values().map(|pod| pod.nexthop).collect();
        let mut hops: Vec<u32> = Vec::new();
        for (address, row) in &unclaimed {
            write_endpoint(maps, config, *address, &Endpoint::default());
            if row.nexthop != 0 && !in_use.contains(&row.nexthop) && !hops.contains(&row.nexthop) {
                hops.push(row.nexthop);
            }
        }
        for hop in hops {
            self.release(maps, hop, now_ms);
        }
        unclaimed.len()
    }

    /// Makes node addresses and pod ranges equal to `nodes`.
    pub fn set_nodes(
        &mut self,
        maps: &mut Maps,
        config: &Config,
        nodes: &[NodeAddresses],
        now_ms: u64,
    ) -> Result<(), RoutesError> {
        let mut addresses = BTreeMap::new();
        let mut ranges = BTreeMap::new();
        for node in nodes {
            for address in &node.addresses {
                let nexthop = if node.local { 0 } else { self.gateway(maps, *address, now_ms)? };
                let flags = if node.local { node_flags::LOCAL | node_flags::NODE_PORT } else { 0 };
                addresses
                    .insert(*address, NodeAddress { flags, node: u32::from(node.number), nexthop, tunnel: 0 });
            }
            if node.local {
                continue;
            }
            for (cidr, _) in &node.pod_cidrs {
                let gateway = node.addresses.iter().find(|address| address.is_ipv4() == cidr.is_ipv4());
                if let (Some(index), Some(gateway)) = (range_index(config, *cidr), gateway) {
                    let nexthop = self.gateways.get(gateway).copied().unwrap_or(0);
                    ranges
                        .insert((cidr.is_ipv4(), index), PodRoute { nexthop, node: u32::from(node.number) });
                }
            }
        }
        self.write_ranges(maps, ranges);
        self.write_addresses(maps, addresses)?;
        let gone: Vec<IpAddr> =
            self.gateways.keys().filter(|address| !self.leads_somewhere(**address)).copied().collect();
        for address in gone {
            if let Some(hop) = self.gateways.remove(&address) {
                self.release(maps, hop, now_ms);
            }
        }
        Ok(())
    }

    /// What is known of a neighbour's hardware address. Next hops by way of it follow.
    pub fn set_neighbour(&mut self, maps: &Maps, address: IpAddr, mac: Option<[u8; 6]>) {
        match mac {
            Some(mac) => self.neighbours.insert(address, mac),
            None => self.neighbours.remove(&address),
        };
        if let Some(hop) = self.gateways.get(&address) {
            self.write_gateway(maps, *hop, address);
        }
    }

    /// Addresses of other nodes, whose hardware addresses are wanted.
    pub fn wanted_neighbours(&self) -> Vec<IpAddr> {
        self.gateways.keys().copied().collect()
    }

    /// Numbers of pods, node addresses and pod ranges.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.pods.len(), self.addresses.len(), self.ranges.len())
    }

    fn leads_somewhere(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some_and(|row| row.nexthop != 0)
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
        let current = maps.nexthop.get(hop).unwrap_or_default();
        let mut row = Nexthop {
            ifindex: self.uplink.ifindex,
            kind: KIND_STACK,
            mtu: self.uplink.mtu.min(u32::from(u16::MAX)) as u16,
            smac: Mac::from_bytes(self.uplink.mac),
            generation: current.generation,
            ..Nexthop::default()
        };
        match self.neighbours.get(&address) {
            Some(mac) => (row.kind, row.dmac) = (KIND_L2, Mac::from_bytes(*mac)),
            // After a restart the old address is better than none until the neighbour table has been read.
            None if current.kind == KIND_L2
                && current.ifindex == row.ifindex
                && self.neighbours.is_empty() =>
            {
                return;
            }
            None => {}
        }
        if row == current {
            return;
        }
        row.generation = current.generation.wrapping_add(1);
        if current.kind == KIND_L2 {
            maps.nexthop.set(hop, &Nexthop { kind: KIND_STACK, ..current });
        }
        maps.nexthop.set(hop, &Nexthop { kind: KIND_STACK, ..row });
        maps.nexthop.set(hop, &row);
    }

    fn write_ranges(&mut self, maps: &Maps, ranges: BTreeMap<(bool, u32), PodRoute>) {
        let table = |is_ipv4: bool| if is_ipv4 { &maps.podroute4 } else { &maps.podroute6 };
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
        maps: &mut Maps,
        addresses: BTreeMap<IpAddr, NodeAddress>,
    ) -> Result<(), RoutesError> {
        for (address, row) in &addresses {
            if self.addresses.get(address) == Some(row) {
                continue;
            }
            let written = match address {
                IpAddr::V4(v4) => maps.nodeip4.insert(Wire(Ip4::from(*v4)), Wire(*row), 0),
                IpAddr::V6(v6) => maps.nodeip6.insert(Wire(Ip6::from(*v6)), Wire(*row), 0),
            };
            written.map_err(|source| RoutesError::Address { address: *address, source })?;
        }
        for address in self.addresses.keys().filter(|address| !addresses.contains_key(*address)) {
            let removed = match address {
                IpAddr::V4(v4) => maps.nodeip4.remove(&Wire(Ip4::from(*v4))),
                IpAddr::V6(v6) => maps.nodeip6.remove(&Wire(Ip6::from(*v6))),
            };
            match removed {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(RoutesError::Address { address: *address, source }),
            }
        }
        self.addresses = addresses;
        Ok(())
    }

    /// Flows may still point at the next hop: it drops until its index is given again.
    fn release(&mut self, maps: &Maps, hop: u32, now_ms: u64) {
        let generation = maps.nexthop.get(hop).map_or(0, |row| row.generation.wrapping_add(1));
        maps.nexthop.set(hop, &Nexthop { kind: KIND_DROP, generation, ..Nexthop::default() });
        self.ids.give_back(hop, now_ms);
    }
}

fn first4(config: &Config) -> Box<dyn Fn(u32) -> IpAddr> {
    let net = config.pods4.net.host();
    Box::new(move |index| IpAddr::V4(Ip4::from_host(net.wrapping_add(index)).into()))
}

fn first6(config: &Config) -> Box<dyn Fn(u32) -> IpAddr> {
    let net = config.pods6.net;
    Box::new(move |index| {
        IpAddr::V6(Ip6([net.0[0], net.0[1], net.0[2], net.low32().wrapping_add(index).to_be()]).into())
    })
}

/// Writes the row of a pod of this node; an address outside the node's range has none and is left to the stack. A row that goes takes
/// along what the programs learned of the pod.
fn write_endpoint(maps: &Maps, config: &Config, address: IpAddr, row: &Endpoint) {
    let (table, seen, index) = match address {
        IpAddr::V4(v4) if config.pods4.contains(v4.into()) => {
            (&maps.ep4, &maps.epseen4, Ip4::from(v4).host().wrapping_sub(config.pods4.net.host()))
        }
        IpAddr::V6(v6) if config.pods6.contains(v6.into()) => {
            (&maps.ep6, &maps.epseen6, Ip6::from(v6).low32().wrapping_sub(config.pods6.net.low32()))
        }
        _ => return,
    };
    table.set(index, row);
    if *row == Endpoint::default() {
        seen.set(index, &0);
    }
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
