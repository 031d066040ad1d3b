//! The maps: one row each. The programs declare them, the loader checks and pins them, the docs print them.
//!
//! Who may write what follows from the columns: `agent` rows are written by the agent alone, `programs` rows by the
//! packet path alone (the agent reads them, and deletes idle flows).

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Mac,
    affinity::{Affinity, AffinityKey4, AffinityKey6, SocketAffinityKey},
    backend::{Backend4, Backend6, GenerationLine, Load},
    config::Control,
    flow::{Flow4, Flow6, FlowKey4, FlowKey6},
    flow_set::FlowSet,
    fragment::{Fragment, FragmentKey4, FragmentKey6},
    frontend::{Frontend, FrontendKey4, FrontendKey6},
    limits,
    reason::Reason,
    route::{Endpoint, Nexthop, NodeAddress, PodRoute},
    service::{MaglevLine, Service, SlotLine},
    sizes,
    socket::{SocketReverse, SocketSlot},
    source::{SourceKey4, SourceKey6},
    stats::{DropCounter, Rotor, ServiceCounters},
};

/// Kind of a map, with the flags it is created with. Its number is in the hash of a layout: it stays, and 2 was in use once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_HASH`, preallocated.
    Hash = 0,
    /// `BPF_MAP_TYPE_LRU_HASH`, one shared list.
    LruHash = 1,
    /// `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE`: the agent publishes by plain stores.
    MappedArray = 3,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray = 4,
    /// `BPF_MAP_TYPE_LPM_TRIE` with `BPF_F_NO_PREALLOC`.
    LpmTrie = 5,
    /// `BPF_MAP_TYPE_SK_STORAGE` with `BPF_F_NO_PREALLOC`.
    SocketStorage = 6,
}

/// One map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object and of the pin.
    pub name: &'static str,
    /// Kind and flags.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Default number of entries.
    pub entries: usize,
    /// Raised when the meaning of bytes changes and their sizes do not.
    pub version: u32,
    /// What the key is.
    pub key: &'static str,
    /// What the value is.
    pub value: &'static str,
    /// Who writes.
    pub writer: &'static str,
    /// Which programs read.
    pub readers: &'static str,
    /// What an entry that should no longer be there does.
    pub stale: &'static str,
}

/// Frontends, IPv4.
pub const FE4: MapSpec = MapSpec {
    name: "bl1_fe4",
    kind: MapKind::Hash,
    key_size: size_of::<FrontendKey4>(),
    value_size: size_of::<Frontend>(),
    entries: limits::FRONTENDS,
    version: 1,
    key: "address, port, protocol, scope",
    value: "service id, flags",
    writer: "agent",
    readers: "all",
    stale: "new flows to a deleted service are still balanced over its last run",
};
/// Frontends, IPv6.
pub const FE6: MapSpec = MapSpec { name: "bl1_fe6", key_size: size_of::<FrontendKey6>(), ..FE4 };
/// Service ports, both families.
pub const SVC: MapSpec = MapSpec {
    name: "bl1_svc",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<Service>(),
    entries: limits::SERVICES,
    version: 1,
    key: "service id",
    value: "runs of backends, policies, affinity",
    writer: "agent",
    readers: "all",
    stale: "unreachable once its frontends are gone",
};
/// Slots, both families.
pub const SLOTS: MapSpec = MapSpec {
    name: "bl1_slots",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<SlotLine>(),
    entries: limits::SLOT_LINES,
    version: 1,
    key: "line",
    value: "16 backend indexes",
    writer: "agent",
    readers: "all",
    stale: "unreachable once no run covers it; quarantined before reuse",
};
/// Maglev tables, both families.
pub const MAGLEV: MapSpec = MapSpec {
    name: "bl1_maglev",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<MaglevLine>(),
    entries: limits::MAGLEV_LINES,
    version: 1,
    key: "line",
    value: "32 positions inside the service's run",
    writer: "agent",
    readers: "xdp_ns, tcx_*",
    stale: "does not count: its generation is not the run's; quarantined before reuse",
};
/// Allowed clients of load balancer addresses, IPv4.
pub const SRCR4: MapSpec = MapSpec {
    name: "bl1_srcr4",
    kind: MapKind::LpmTrie,
    key_size: size_of::<SourceKey4>(),
    value_size: 4,
    entries: limits::SOURCE_RANGES,
    version: 1,
    key: "service id, range of client addresses",
    value: "1",
    writer: "agent",
    readers: "xdp_ns, tcx_*, connect, sendmsg",
    stale: "clients of a range that is no longer allowed still get in",
};
/// Allowed clients of load balancer addresses, IPv6.
pub const SRCR6: MapSpec = MapSpec { name: "bl1_srcr6", key_size: size_of::<SourceKey6>(), ..SRCR4 };
/// Connections of backends, IPv4.
pub const LOAD4: MapSpec = MapSpec {
    name: "bl1_load4",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<Load>(),
    entries: limits::BACKENDS,
    version: 1,
    key: "backend index",
    value: "connections of packets, of sockets",
    writer: "programs; the agent sets the first to what it counts in the flow tables, and clears both for a new backend",
    readers: "all",
    stale: "least connections prefers another backend than it should",
};
/// Connections of backends, IPv6.
pub const LOAD6: MapSpec = MapSpec { name: "bl1_load6", ..LOAD4 };
/// Backends, IPv4.
pub const BE4: MapSpec = MapSpec {
    name: "bl1_be4",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<Backend4>(),
    entries: limits::BACKENDS,
    version: 1,
    key: "backend index",
    value: "address, port, state, generation, node, zone, flags",
    writer: "agent",
    readers: "all",
    stale: "unreachable once no slot names it; quarantined before reuse",
};
/// Backends, IPv6.
pub const BE6: MapSpec = MapSpec { name: "bl1_be6", value_size: size_of::<Backend6>(), ..BE4 };
/// Backend generations, IPv4.
pub const BEGEN4: MapSpec = MapSpec {
    name: "bl1_begen4",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<GenerationLine>(),
    entries: limits::GENERATION_LINES,
    version: 1,
    key: "backend index / 32",
    value: "32 generations",
    writer: "agent",
    readers: "xdp_ns, tcx_*",
    stale: "UDP flows keep a removed backend until their idle timeout",
};
/// Backend generations, IPv6.
pub const BEGEN6: MapSpec = MapSpec { name: "bl1_begen6", ..BEGEN4 };
/// Next hops, both families.
pub const NEXTHOP: MapSpec = MapSpec {
    name: "bl1_nexthop",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<Nexthop>(),
    entries: limits::NEXTHOPS,
    version: 1,
    key: "next hop index, from 1",
    value: "interface, kind, MTU, Ethernet addresses",
    writer: "agent",
    readers: "xdp_ns, tcx_*",
    stale: "packets go to an interface or neighbour that is gone and are lost",
};
/// Pod ranges of all nodes, IPv4.
pub const PODROUTE4: MapSpec = MapSpec {
    name: "bl1_podroute4",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<PodRoute>(),
    entries: limits::POD_ROUTES,
    version: 1,
    key: "number of the node's range inside the cluster's",
    value: "next hop, node",
    writer: "agent",
    readers: "xdp_ns, tcx_*",
    stale: "packets for that range go to a node that no longer has it",
};
/// Pod ranges of all nodes, IPv6.
pub const PODROUTE6: MapSpec = MapSpec { name: "bl1_podroute6", ..PODROUTE4 };
/// Pods of this node, IPv4.
pub const EP4: MapSpec = MapSpec {
    name: "bl1_ep4",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<Endpoint>(),
    entries: limits::ENDPOINTS,
    version: 1,
    key: "index of the pod inside the node's range",
    value: "next hop, endpoint id, interface, flags",
    writer: "agent",
    readers: "xdp_ns, tcx_*",
    stale: "packets for a pod that is gone are lost instead of counted as no-pod",
};
/// Pods of this node, IPv6.
pub const EP6: MapSpec = MapSpec { name: "bl1_ep6", ..EP4 };
/// What the packet path has learned about this node's pods, IPv4.
pub const EPSEEN4: MapSpec = MapSpec {
    name: "bl1_epseen4",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: 4,
    entries: limits::ENDPOINTS,
    version: 1,
    key: "index of the pod inside the node's range",
    value: "bits: packets to and from pods need a flow look-up",
    writer: "programs; the agent clears it when it gives the index to another pod",
    readers: "xdp_ns, tcx_*",
    stale: "one hash look-up more for the pod's packets",
};
/// What the packet path has learned about this node's pods, IPv6.
pub const EPSEEN6: MapSpec = MapSpec { name: "bl1_epseen6", ..EPSEEN4 };
/// Addresses of the cluster's nodes, IPv4.
pub const NODEIP4: MapSpec = MapSpec {
    name: "bl1_nodeip4",
    kind: MapKind::Hash,
    key_size: 4,
    value_size: size_of::<NodeAddress>(),
    entries: limits::NODE_ADDRESSES,
    version: 1,
    key: "address",
    value: "flags (this node's, node ports served), node, next hop",
    writer: "agent",
    readers: "all",
    stale: "node ports are served on an address that is no longer the node's",
};
/// Addresses of the cluster's nodes, IPv6.
pub const NODEIP6: MapSpec = MapSpec { name: "bl1_nodeip6", key_size: 16, ..NODEIP4 };
/// Hardware addresses of other nodes.
pub const PEERMAC: MapSpec = MapSpec {
    name: "bl1_peermac",
    kind: MapKind::Hash,
    key_size: size_of::<PeerMac>(),
    value_size: 4,
    entries: limits::PEER_MACS,
    version: 1,
    key: "hardware address",
    value: "node",
    writer: "agent",
    readers: "xdp_ns, tcx_up_in",
    stale: "packets that a former node sends to a service address get only this node's endpoints",
};
/// Established flows, IPv4.
pub const FLOW4: MapSpec = MapSpec {
    name: "bl1_flow4",
    kind: MapKind::Hash,
    key_size: size_of::<FlowKey4>(),
    value_size: size_of::<Flow4>(),
    entries: limits::FLOWS,
    version: 1,
    key: "source, destination, ports, protocol as the packet arrives",
    value: "rewrite, checksum differences, next hop, service, backend, last seen",
    writer: "programs; the agent deletes idle pairs",
    readers: "xdp_ns, tcx_*",
    stale: "holds memory and its source port until the idle timeout",
};
/// Established flows, IPv6.
pub const FLOW6: MapSpec =
    MapSpec { name: "bl1_flow6", key_size: size_of::<FlowKey6>(), value_size: size_of::<Flow6>(), ..FLOW4 };
/// The established flows' next, larger table, IPv4: one entry unless the table is growing.
pub const FLOW4_NEXT: MapSpec = MapSpec { name: "bl1_flow4n", entries: 1, ..FLOW4 };
/// The established flows' next, larger table, IPv6.
pub const FLOW6_NEXT: MapSpec = MapSpec { name: "bl1_flow6n", entries: 1, ..FLOW6 };
/// Unanswered flows, IPv4.
pub const FLOWQ4: MapSpec = MapSpec {
    name: "bl1_flowset4",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<FlowSet<FlowKey4, Flow4>>(),
    entries: limits::FLOW_SETS,
    key: "hash of the flow's key",
    value: "four flows with their keys, a lock",
    writer: "programs, under the set's lock; the one of a set that is silent for longest gives way",
    stale: "evicted when room is needed",
    ..FLOW4
};
/// Unanswered flows, IPv6.
pub const FLOWQ6: MapSpec =
    MapSpec { name: "bl1_flowset6", value_size: size_of::<FlowSet<FlowKey6, Flow6>>(), ..FLOWQ4 };
/// Ports of fragmented datagrams, IPv4.
pub const FRAG4: MapSpec = MapSpec {
    name: "bl1_frag4",
    kind: MapKind::LruHash,
    key_size: size_of::<FragmentKey4>(),
    value_size: size_of::<Fragment>(),
    entries: limits::FRAGMENTS,
    version: 1,
    key: "source, destination, identification, protocol",
    value: "ports of the first fragment",
    writer: "programs; the kernel evicts the oldest",
    readers: "xdp_ns, tcx_*",
    stale: "evicted when room is needed",
};
/// Ports of fragmented datagrams, IPv6.
pub const FRAG6: MapSpec = MapSpec { name: "bl1_frag6", key_size: size_of::<FragmentKey6>(), ..FRAG4 };
/// Backends of clients that are known by their packets, IPv4.
pub const AFF4: MapSpec = MapSpec {
    name: "bl1_aff4",
    kind: MapKind::LruHash,
    key_size: size_of::<AffinityKey4>(),
    value_size: size_of::<Affinity>(),
    entries: limits::AFFINITIES,
    version: 1,
    key: "service id, client address",
    value: "backend, its generation, last seen",
    writer: "programs; the kernel evicts the oldest",
    readers: "xdp_ns, tcx_*",
    stale: "does not count: the backend's generation has gone on, or the service's timeout is over",
};
/// Backends of clients that are known by their packets, IPv6.
pub const AFF6: MapSpec = MapSpec { name: "bl1_aff6", key_size: size_of::<AffinityKey6>(), ..AFF4 };
/// Backends of clients that are known by their sockets, both families.
pub const AFFSK: MapSpec = MapSpec {
    name: "bl1_affsk",
    key_size: size_of::<SocketAffinityKey>(),
    entries: limits::SOCKET_AFFINITIES,
    version: 1,
    key: "cookie of the client's network namespace, service id",
    readers: "connect, sendmsg",
    ..AFF4
};
/// Source port rotors.
pub const ROTOR: MapSpec = MapSpec {
    name: "bl1_rotor",
    kind: MapKind::PerCpuArray,
    key_size: 4,
    value_size: size_of::<Rotor>(),
    entries: limits::ROTORS,
    version: 1,
    key: "backend index & 4095",
    value: "next source port to try",
    writer: "programs",
    readers: "xdp_ns, tcx_*",
    stale: "harmless",
};
/// Bitmaps that keep most packets from being looked up: a value is 1,024 words of 64 bits. Rows 0 to 2: bit `port % 64` of word `port / 64`
/// (port as a number) is set if some node port has it. Row [`VIP_ROW`]: the same with [`vip_bit`] of each address that some frontend
/// outside the service range has.
pub const PORTS: MapSpec = MapSpec {
    name: "bl1_ports",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<PortBitmap>(),
    entries: limits::PORT_BITMAPS,
    version: 1,
    key: "node ports: TCP 0, UDP 1, SCTP 2; addresses 3",
    value: "65,536 bits: some node port has this number, some frontend an address with this hash",
    writer: "agent (set before the frontend is inserted; cleared after the last one is deleted)",
    readers: "xdp_ns, tcx_*, connect, sendmsg",
    stale: "one or two hash look-ups more for packets to that port or address",
};
/// Socket reverse translation: a socket's peer.
pub const SKSLOT: MapSpec = MapSpec {
    name: "bl1_skslot",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<SocketSlot>(),
    entries: limits::SOCKET_SLOTS,
    version: 1,
    key: "socket cookie & 65535",
    value: "cookie, the backend and the service address it stands for",
    writer: "connect, sendmsg, sock_release",
    readers: "sendmsg, getpeername, recvmsg; the agent, which ends sockets of removed backends",
    stale: "sockets with the same place use socket storage instead",
};
/// Socket reverse translation: further peers of a socket, or the only one if it has no slot.
pub const SKREV: MapSpec = MapSpec {
    name: "bl1_skrev",
    kind: MapKind::SocketStorage,
    key_size: 4,
    value_size: size_of::<SocketReverse>(),
    entries: 0,
    version: 1,
    key: "socket",
    value: "the last backends and the service addresses they stand for",
    writer: "connect, sendmsg",
    readers: "getpeername, recvmsg",
    stale: "freed with the socket",
};
/// Drop counters.
pub const DROPS: MapSpec = MapSpec {
    name: "bl1_drops",
    kind: MapKind::PerCpuArray,
    key_size: 4,
    value_size: size_of::<DropCounter>(),
    entries: Reason::COUNT,
    version: 1,
    key: "reason",
    value: "packets",
    writer: "programs",
    readers: "agent",
    stale: "-",
};
/// Service counters.
pub const SVCSTAT: MapSpec = MapSpec {
    name: "bl1_svcstat",
    kind: MapKind::PerCpuArray,
    key_size: 4,
    value_size: size_of::<ServiceCounters>(),
    entries: limits::SERVICES,
    version: 1,
    key: "service id",
    value: "new flows, connects, rejections",
    writer: "programs",
    readers: "agent",
    stale: "counts of the id's previous owner: take differences",
};
/// Dynamic switches.
pub const CFG: MapSpec = MapSpec {
    name: "bl1_cfg",
    kind: MapKind::MappedArray,
    key_size: 4,
    value_size: size_of::<Control>(),
    entries: 1,
    version: 1,
    key: "0",
    value: "layout of the pinned maps, switches, epoch",
    writer: "agent",
    readers: "tcx_*, xdp_ns",
    stale: "-",
};

/// Value of [`PORTS`].
pub type PortBitmap = [u64; 1024];

/// Row of [`PORTS`] for addresses.
pub const VIP_ROW: u32 = 3;

/// Bit of an address in row [`VIP_ROW`] of [`PORTS`], by its [`crate::Ip4::mix`] or [`crate::Ip6::mix`].
#[inline(always)]
pub const fn vip_bit(mixed: u32) -> u16 {
    (mixed.wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// Key of [`PEERMAC`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PeerMac {
    /// Hardware address.
    pub mac: Mac,
    /// Zero.
    pub _pad: u16,
}

sizes! { PeerMac = 8 }

/// All maps.
pub const MAPS: &[MapSpec] = &[
    FE4, FE6, SRCR4, SRCR6, SVC, SLOTS, MAGLEV, LOAD4, LOAD6, BE4, BE6, BEGEN4, BEGEN6, NEXTHOP, PODROUTE4,
    PODROUTE6, EP4, EP6, EPSEEN4, EPSEEN6, NODEIP4, NODEIP6, PEERMAC, FLOW4, FLOW6, FLOW4_NEXT, FLOW6_NEXT,
    FLOWQ4, FLOWQ6, FRAG4, FRAG6, AFF4, AFF6, AFFSK, ROTOR, PORTS, SKSLOT, SKREV, DROPS, SVCSTAT, CFG,
];

impl MapSpec {
    /// Hash (FNV-1a, 64 bits) over name, kind, sizes, described fields and [`MapSpec::version`]. A pinned map is shared only by programs
    /// with the same value; from one of another value, entries are carried over.
    ///
    /// # Rule for changes
    /// A value may grow at its end or give a meaning to bytes that were zero, where zero must mean what it meant before: then the old
    /// bytes, cut or filled up with zeros, are the new value. A key never changes under the same name.
    pub const fn layout(&self) -> u64 {
        let hash = text(text(text(FNV_OFFSET, self.name), self.key), self.value);
        let hash = number(number(hash, self.kind as u64), self.version as u64);
        number(number(hash, self.key_size as u64), self.value_size as u64)
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Hash over the layouts of all maps: the same value, the same tables.
pub const LAYOUT: u64 = {
    let (mut hash, mut i) = (FNV_OFFSET, 0);
    while i < MAPS.len() {
        hash = number(hash, MAPS[i].layout());
        i += 1;
    }
    hash
};

const fn text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        hash = byte(hash, bytes[i]);
        i += 1;
    }
    hash
}

const fn number(mut hash: u64, number: u64) -> u64 {
    let bytes = number.to_le_bytes();
    let mut i = 0;
    while i < bytes.len() {
        hash = byte(hash, bytes[i]);
        i += 1;
    }
    hash
}

const fn byte(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_versioned_and_fit_the_kernel() {
        // BPF_OBJ_NAME_LEN is 16 with the terminating zero.
        for (i, map) in MAPS.iter().enumerate() {
            assert!(map.name.starts_with("bl1_") && map.name.len() < 16, "{}", map.name);
            assert!(MAPS[i + 1..].iter().all(|other| other.name != map.name), "{} twice", map.name);
        }
    }

    #[test]
    fn hash_elements_fill_whole_cache_lines() {
        // `struct htab_elem` is 48 bytes before the key; key and value are padded to 8.
        let element =
            |map: &MapSpec| 48 + map.key_size.next_multiple_of(8) + map.value_size.next_multiple_of(8);
        assert_eq!(element(&FE4), 64);
        assert_eq!(element(&FLOW4), 128);
        assert_eq!(element(&FLOW6), 192);
    }
}
