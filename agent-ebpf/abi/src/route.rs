//! Delivery: which interface and which Ethernet header lead to a pod or a node.
//!
//! Pods of the cluster are found by subtraction, not by search: Kubernetes hands each node one range of uniform size.
//! What is not found here is left to the stack's routing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Mac, sizes};

/// [`Nexthop::kind`]: unused index. A packet that meets it goes to the stack.
pub const KIND_NONE: u8 = 0;
/// [`Nexthop::kind`]: a pod of this node: the peer of veth `ifindex`.
pub const KIND_PEER: u8 = 1;
/// [`Nexthop::kind`]: a neighbour on the segment of `ifindex`, reached with `smac` and `dmac`.
pub const KIND_L2: u8 = 2;
/// [`Nexthop::kind`]: let the stack route (no neighbour known, irregular route).
pub const KIND_STACK: u8 = 3;
/// [`Nexthop::kind`]: drop ([`crate::Reason::Unreachable`]).
pub const KIND_DROP: u8 = 4;

/// [`Nexthop::kind`]: a node on another segment: its packets travel in VXLAN (RFC 7348) over IPv4 to [`Nexthop::tunnel`].
/// `ifindex` is the VXLAN device, `underlay` the interface that the outer packet leaves by, `smac` and `dmac` its frame.
pub const KIND_TUNNEL: u8 = 5;

/// Both addresses of inner frames that programs send, so that nothing needs to be discovered. No device has it: the hook of the VXLAN
/// device takes whatever comes.
pub const TUNNEL_MAC: Mac = Mac::from_bytes([0x02, 0x62, 0x6c, 0x76, 0x78, 0x01]);
/// VXLAN network identifier of packets between pods and nodes.
pub const VNI_PODS: u32 = 1;
/// VXLAN network identifier of packets to a service address, handed over unchanged to the node that shall answer them.
pub const VNI_SERVICES: u32 = 2;
/// UDP port of VXLAN (IANA).
pub const VXLAN_PORT: u16 = 4789;
/// Bytes that VXLAN over IPv4 adds to a packet: outer IP, UDP and VXLAN headers and the inner Ethernet header.
pub const TUNNEL_OVERHEAD: u16 = 50;

/// Value of [`crate::maps::NEXTHOP`]. The 32 bytes are rewritten in place when a neighbour changes; set `kind` to
/// [`KIND_STACK`] first if `ifindex` and the addresses change together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Nexthop {
    /// Outgoing interface; for [`KIND_PEER`] the host end of the pod's veth.
    pub ifindex: u32,
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// Zero.
    pub flags: u8,
    /// Largest IP packet on this way, bytes: the link's MTU, with [`KIND_TUNNEL`] the VXLAN device's; zero if unknown.
    pub mtu: u16,
    /// Source address of frames.
    pub smac: Mac,
    /// Destination address of frames: the pod's, the node's or the gateway's.
    pub dmac: Mac,
    /// With [`KIND_TUNNEL`] the node's address in wire order, otherwise zero.
    pub tunnel: u32,
    /// Raised at each rewrite.
    pub generation: u32,
    /// With [`KIND_TUNNEL`] the interface that outer packets leave by, otherwise zero.
    pub underlay: u32,
}

/// Value of [`crate::maps::PODROUTE4`] and [`crate::maps::PODROUTE6`]: where a node's pod range leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PodRoute {
    /// Index into [`crate::maps::NEXTHOP`]; zero lets the stack route.
    pub nexthop: u32,
    /// Index of the node (as in backends), zero if unknown.
    pub node: u32,
}

/// Bits of [`Endpoint::flags`].
pub mod endpoint_flags {
    /// A NetworkPolicy selects the pod. Not honoured yet.
    pub const POLICY: u16 = 1 << 0;
}

/// Bits of a value of [`crate::maps::EPSEEN4`] and [`crate::maps::EPSEEN6`].
pub mod seen {
    /// Some packet of the pod was translated although its peer is a pod, too: look the pod's packets up in the flow table
    /// in both directions. Without the bit, packets between pods need no state.
    pub const STATEFUL: u32 = 1 << 0;
}

/// Value of [`crate::maps::EP4`], [`crate::maps::EP6`]: a pod of this node. All zeros: no such pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Endpoint {
    /// Index into [`crate::maps::NEXTHOP`]; zero: no such pod.
    pub nexthop: u32,
    /// Number of the endpoint on this node (row of per-endpoint counters).
    pub id: u32,
    /// Host end of the pod's veth: packets with this source address must come from it.
    pub ifindex: u32,
    /// Generation of the policy that selects the pod.
    pub policy_generation: u16,
    /// Bits of [`endpoint_flags`].
    pub flags: u16,
}

/// What XDP tells tcx about a packet for a pod of this node, in the 8 bytes before the packet (`bpf_xdp_adjust_meta`): it is translated,
/// deliver it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HandOff {
    /// [`HandOff::MAGIC`].
    pub magic: u32,
    /// Index into [`crate::maps::NEXTHOP`].
    pub nexthop: u32,
}

impl HandOff {
    /// Tells a note of ours from anything else that may lie before a packet.
    pub const MAGIC: u32 = 0x626c_6831;
}

/// Bits of [`NodeAddress::flags`].
pub mod node_flags {
    /// The address is this node's.
    pub const LOCAL: u32 = 1 << 0;
    /// Node ports are served on the address.
    pub const NODE_PORT: u32 = 1 << 1;
}

/// Value of [`crate::maps::NODEIP4`] and [`crate::maps::NODEIP6`]: an address of a node of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NodeAddress {
    /// Bits of [`node_flags`].
    pub flags: u32,
    /// Index of the node (as in backends), zero if unknown.
    pub node: u32,
    /// Index into [`crate::maps::NEXTHOP`] for a remote node; zero lets the stack route.
    pub nexthop: u32,
    /// Index of the [`KIND_TUNNEL`] next hop to a node on another segment, for packets whose source the routers in between do not know
    /// (pods, clients of direct server return); zero for all other nodes.
    pub tunnel: u32,
}

sizes! { Nexthop = 32, PodRoute = 8, Endpoint = 16, NodeAddress = 16, HandOff = 8 }
