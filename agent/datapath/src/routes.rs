//! Delivery tables: next hops, pods of this node and, in `nodes`, what leads to other nodes.
//!
//! Next hop indexes stay with what they lead to, also across restarts, since flows remember them.

mod nodes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use abi::config::Config;
use abi::route::{Endpoint, KIND_DROP, KIND_NONE, KIND_PEER, KIND_TUNNEL, Nexthop, NodeAddress, PodRoute};
use abi::{Ip4, Ip6, Mac};
use service::ids::Ids;

use crate::maps::Maps;
use crate::options::{NodePortAddresses, PodPort, Tunnel, Uplink};

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
        /// What the kernel said.
        source: io::Error,
    },
    /// A node's hardware address could not be inserted or deleted, or tables not be read.
    #[error("delivery tables: {0}")]
    Table(#[from] io::Error),
}

/// A pod in the tables.
#[derive(Debug, Clone)]
struct Pod {
    nexthop: u32,
    port: PodPort,
}

/// The state behind the tables.
#[derive(Debug)]
pub struct Routes {
    uplink: Uplink,
    ids: Ids,
    /// Host-side interface name to pod.
    pods: HashMap<String, Pod>,
    /// Next hops by way of a neighbour: other nodes, and routers to nodes on other segments.
    gateways: BTreeMap<IpAddr, u32>,
    /// Next hops into tunnels, by the other end's address, and how each is reached.
    tunnels: BTreeMap<Ipv4Addr, (u32, Tunnel)>,
    addresses: BTreeMap<IpAddr, NodeAddress>,
    ranges: BTreeMap<(bool, u32), PodRoute>,
    neighbours: HashMap<IpAddr, [u8; 6]>,
    /// Hardware addresses of nodes on the segment, as in the table.
    peers: BTreeMap<[u8; 6], u32>,
    node_ports: NodePortAddresses,
    /// Endpoint rows found at start that no pod has claimed.
    unclaimed: HashMap<IpAddr, Endpoint>,
}

impl Routes {
    /// Reads what is in the tables.
    pub fn learn(
        maps: &Maps,
        config: &Config,
        uplink: Uplink,
        node_ports: NodePortAddresses,
    ) -> Result<Self, RoutesError> {
        let mut ids = Ids::new(maps.nexthop.len() as usize, abi::limits::QUARANTINE_MS);
        let mut tunnels = BTreeMap::new();
        for index in 1..maps.nexthop.len() {
            let Some(row) = maps.nexthop.get(index).filter(|row| row.kind != KIND_NONE) else { continue };
            ids.reserve(index);
            if row.kind == KIND_TUNNEL {
                let to = Ip4(row.tunnel).into();
                // The router is told again with the nodes.
                tunnels.insert(to, (index, Tunnel { to, gateway: to }));
            }
        }
        let mut addresses = BTreeMap::new();
        maps.v4.nodeip.each(|key, row| addresses.extend([(IpAddr::V4(key.into()), row)]))?;
        maps.v6.nodeip.each(|key, row| addresses.extend([(IpAddr::V6(key.into()), row)]))?;
        let behind_no_tunnel = addresses.iter().filter(|(_, row)| row.nexthop != 0 && row.tunnel == 0);
        let gateways = behind_no_tunnel.map(|(address, row)| (*address, row.nexthop)).collect();
        let mut ranges = BTreeMap::new();
        for (table, is_ipv4) in [(&maps.v4.podroute, true), (&maps.v6.podroute, false)] {
            let rows = (0..table.len()).filter_map(|index| Some((index, table.get(index)?)));
            ranges.extend(
                rows.filter(|(_, row)| *row != PodRoute::default())
                    .map(|(index, row)| ((is_ipv4, index), row)),
            );
        }
        let mut unclaimed = HashMap::new();
        for (table, base) in [(&maps.v4.ep, first4(config)), (&maps.v6.ep, first6(config))] {
            let rows = (0..table.len()).filter_map(|index| Some((index, table.get(index)?)));
            for (index, row) in rows.filter(|(_, row)| *row != Endpoint::default()) {
                unclaimed.insert(base(index), row);
            }
        }
        let mut peers = BTreeMap::new();
        maps.peermac.each(|key, node| peers.extend([(key.mac.bytes(), node)]))?;
        Ok(Self {
            uplink,
            ids,
            pods: HashMap::new(),
            gateways,
            tunnels,
            addresses,
            ranges,
            neighbours: HashMap::new(),
            peers,
            node_ports,
            unclaimed,
        })
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
                mtu: self.mtu(),
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
        let pod = Pod { nexthop, port: port.clone() };
        self.pods.insert(port.ifname.clone(), pod);
        Ok(())
    }

    /// Forgets a pod.
    pub fn remove_pod(&mut self, maps: &Maps, config: &Config, ifname: &str, now_ms: u64) {
        let Some(pod) = self.pods.remove(ifname) else { return };
        for address in &pod.port.addresses {
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

    /// Writes again what depends on the node's ranges and on its VXLAN device.
    pub fn reconfigure(&mut self, maps: &Maps, config: &Config, now_ms: u64) -> Result<(), RoutesError> {
        let ports: Vec<PodPort> = self.pods.values().map(|pod| pod.port.clone()).collect();
        ports.iter().try_for_each(|port| self.add_pod(maps, config, port, now_ms))?;
        for (hop, tunnel) in self.tunnels.values() {
            self.write_tunnel(maps, config, *hop, *tunnel);
        }
        Ok(())
    }

    /// Numbers of pods, node addresses and pod ranges.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.pods.len(), self.addresses.len(), self.ranges.len())
    }

    fn mtu(&self) -> u16 {
        self.uplink.mtu.min(u32::from(u16::MAX)) as u16
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
            (&maps.v4.ep, &maps.v4.epseen, Ip4::from(v4).host().wrapping_sub(config.pods4.net.host()))
        }
        IpAddr::V6(v6) if config.pods6.contains(v6.into()) => {
            (&maps.v6.ep, &maps.v6.epseen, Ip6::from(v6).low32().wrapping_sub(config.pods6.net.low32()))
        }
        _ => return,
    };
    table.set(index, row);
    if *row == Endpoint::default() {
        seen.set(index, &0);
    }
}
