//! The node that all cases share: node 1 of a cluster, with two pods, an uplink, two other nodes and a client outside.
//!
//! | who | address | interface | frame address |
//! |---|---|---|---|
//! | pod5, pod6 | 10.244.1.5, .6 | 5, 6 | `pod5`, `pod6`; host ends `host5`, `host6` |
//! | this node | 172.30.0.11 | 1 | `uplink` |
//! | node 2, its pods | 172.30.0.12, 10.244.2.0/24 | | `node2` |
//! | node 4, its pods | 172.30.0.14, 10.244.4.0/24 | tunnel 7 | by `gateway`; behind a tunnel |
//! | node 3, its pods | 172.30.0.13, 10.244.3.0/24 | | unknown neighbour |
//! | client outside | 172.30.0.3 | | `client` |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::{
    Config, Ip4, Ip6, Mac,
    config::{Cidr4, Cidr6, Control, features, switches},
    maps::{self, PeerMac},
    route::{
        Endpoint, KIND_L2, KIND_PEER, KIND_TUNNEL, Nexthop, NodeAddress, PodRoute, TUNNEL_MAC, node_flags,
    },
};
use zerocopy::IntoBytes;

/// Receives table entries: tables in memory, or maps in the kernel.
pub trait Sink {
    /// Writes one entry of the map of that name.
    fn put(&mut self, map: &'static str, key: &[u8], value: &[u8]);
}

/// Index of the uplink: the loopback device, which a test run uses by default.
pub const UPLINK: u32 = 1;
/// Index of the tunnel device.
pub const TUNNEL: u32 = 7;
/// Largest packet in a tunnel, bytes.
pub const TUNNEL_MTU: u16 = 1450;
/// Largest packet on the uplink, bytes.
pub const MTU: u16 = 1500;
/// Indexes of the pods' veths.
pub const PODS: [u32; 2] = [5, 6];

/// A frame address by name.
pub fn mac(name: &str) -> Option<Mac> {
    if name == "tunnel" {
        return Some(TUNNEL_MAC);
    }
    let last = match name {
        "uplink" => 1,
        "client" => 3,
        "pod5" => 5,
        "pod6" => 6,
        "node2" => 12,
        "node3" => 13,
        "gateway" => 9,
        "host5" => 0x15,
        "host6" => 0x16,
        _ => return None,
    };
    Some(Mac::from_bytes([2, 0, 0, 0, 0, last]))
}

/// The IPv6 address of who has this IPv4 address: 10.244.n.p is fd00:10:244:n::p, 10.96.0.s is fd00:10:96::s, others
/// a.b.c.d are fd30::a:b:c:d.
pub fn to_v6(addr: IpAddr) -> IpAddr {
    let IpAddr::V4(four) = addr else { return addr };
    let [a, b, c, d] = four.octets().map(u16::from);
    IpAddr::V6(match (a, b) {
        (10, 244) => Ipv6Addr::new(0xfd00, 0x10, 0x244, c, 0, 0, 0, d),
        (10, 96) => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, d),
        _ => Ipv6Addr::new(0xfd30, 0, 0, 0, a, b, c, d),
    })
}

fn v4(text: [u8; 4]) -> Ip4 {
    Ipv4Addr::from(text).into()
}

fn v6(text: [u8; 4]) -> Ip6 {
    match to_v6(IpAddr::from(text)) {
        IpAddr::V6(addr) => addr.into(),
        IpAddr::V4(_) => Ip6::default(),
    }
}

/// The node's constants.
pub fn config() -> Config {
    Config {
        features: features::IPV6
            | features::SPOOF_CHECK
            | features::PEER_NAME
            | features::MASQUERADE
            | features::TUNNEL,
        uplink: UPLINK,
        vxlan: TUNNEL,
        hash_seed: 0x5eed,
        pods4: Cidr4::new(v4([10, 244, 1, 0]), 24),
        cluster4: Cidr4::new(v4([10, 244, 0, 0]), 16),
        services4: Cidr4::new(v4([10, 96, 0, 0]), 16),
        cluster4_shift: 8,
        snat4: v4([172, 30, 0, 11]),
        hairpin4: v4([169, 254, 1, 2]),
        cluster6_shift: 0,
        pods6: Cidr6::new(v6([10, 244, 1, 0]), 64),
        cluster6: Cidr6::new(v6([10, 244, 0, 0]), 56),
        services6: Cidr6::new(v6([10, 96, 0, 0]), 112),
        snat6: v6([172, 30, 0, 11]),
        hairpin6: v6([169, 254, 1, 2]),
        ..Config::EMPTY
    }
}

/// Writes what does not depend on the case: pods, nodes, next hops, switches.
pub fn furnish(sink: &mut impl Sink) {
    let known = |name| mac(name).unwrap_or_default();
    let peer = |ifindex, host, pod| Nexthop {
        ifindex,
        kind: KIND_PEER,
        smac: known(host),
        dmac: known(pod),
        ..Nexthop::default()
    };
    let node2 = Nexthop {
        ifindex: UPLINK,
        kind: KIND_L2,
        mtu: MTU,
        smac: known("uplink"),
        dmac: known("node2"),
        ..Nexthop::default()
    };
    let gateway = Nexthop { dmac: known("gateway"), ..node2 };
    let tunnel = Nexthop {
        ifindex: TUNNEL,
        kind: KIND_TUNNEL,
        mtu: TUNNEL_MTU,
        tunnel: v4([172, 30, 0, 14]).0,
        underlay: UPLINK,
        ..gateway
    };
    let nexthops = [peer(PODS[0], "host5", "pod5"), peer(PODS[1], "host6", "pod6"), node2, tunnel, gateway];
    for (index, nexthop) in (1_u32..).zip(&nexthops) {
        sink.put(maps::NEXTHOP.name, index.as_bytes(), nexthop.as_bytes());
    }
    for (nexthop, ifindex) in (1..).zip(PODS) {
        let endpoint = Endpoint { nexthop, id: ifindex, ifindex, policy_generation: 0, flags: 0 };
        // The last number of a pod's address is its interface's index.
        sink.put(maps::EP4.name, ifindex.as_bytes(), endpoint.as_bytes());
        sink.put(maps::EP6.name, ifindex.as_bytes(), endpoint.as_bytes());
    }
    let route = PodRoute { nexthop: 3, node: 2 };
    sink.put(maps::PODROUTE4.name, 2_u32.as_bytes(), route.as_bytes());
    sink.put(maps::PODROUTE6.name, 2_u32.as_bytes(), route.as_bytes());
    let route = PodRoute { nexthop: 4, node: 4 };
    sink.put(maps::PODROUTE4.name, 4_u32.as_bytes(), route.as_bytes());
    sink.put(maps::PODROUTE6.name, 4_u32.as_bytes(), route.as_bytes());
    let peer = PeerMac { mac: known("node2"), _pad: 0 };
    sink.put(maps::PEERMAC.name, peer.as_bytes(), 2_u32.as_bytes());
    let own =
        NodeAddress { flags: node_flags::LOCAL | node_flags::NODE_PORT, node: 1, nexthop: 0, tunnel: 0 };
    let other = NodeAddress { flags: 0, node: 2, nexthop: 3, tunnel: 0 };
    let far = NodeAddress { flags: 0, node: 4, nexthop: 5, tunnel: 4 };
    for (last, node) in [(11, own), (12, other), (14, far)] {
        sink.put(maps::NODEIP4.name, v4([172, 30, 0, last]).as_bytes(), node.as_bytes());
        sink.put(maps::NODEIP6.name, v6([172, 30, 0, last]).as_bytes(), node.as_bytes());
    }
    let switches = switches::HOST_BACKENDS | switches::HAND_OVER;
    let control = Control { switches, ..Control::default() };
    sink.put(maps::CFG.name, 0_u32.as_bytes(), control.as_bytes());
}
