//! The two address families: their types, ranges and header layouts, so that each stage is written once.

use abi::{
    Config, Ip4, Ip6, Port, Proto,
    affinity::{AffinityKey4, AffinityKey6},
    backend::{Backend4, Backend6},
    flow::{Flow4, Flow6, FlowKey4, FlowKey6, FlowState},
    fragment::{FragmentKey4, FragmentKey6},
    frontend::{FrontendKey4, FrontendKey6},
};

use crate::checksum;

/// Source and destination of a packet or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, or the identifier of an ICMP echo.
    pub sport: Port,
    /// Destination port; zero for ICMP echo.
    pub dport: Port,
    /// Protocol.
    pub proto: Proto,
}

impl<A: Copy> Tuple<A> {
    /// The opposite direction.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto }
    }
}

/// A backend as a stage sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend<F: Family> {
    /// Address of the endpoint.
    pub addr: F::Addr,
    /// Target port.
    pub port: Port,
    /// One of [`abi::backend`]'s states.
    pub state: u8,
    /// Bits of [`abi::backend::flags`].
    pub flags: u8,
    /// Generation.
    pub generation: u16,
}

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this node's pod range, at this index.
    Local(u32),
    /// In the cluster's pod range, in the node range with this index.
    Remote(u32),
    /// In the service range.
    Service,
    /// Elsewhere.
    Outside,
}

impl Place {
    /// The index of a pod or range, zero for other places: for code that must not carry an unset number.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Local(index) | Self::Remote(index) => index,
            Self::Service | Self::Outside => 0,
        }
    }
}

/// An address family.
pub trait Family: Sized + Copy + PartialEq + Eq + core::fmt::Debug {
    /// An address.
    type Addr: Copy + PartialEq + Eq + core::fmt::Debug;
    /// Key of the frontend table.
    type FrontendKey;
    /// Key of the flow tables.
    type FlowKey: Copy + PartialEq;
    /// Value of the flow tables.
    type Flow: Copy;
    /// Key of the fragment table.
    type FragmentKey;
    /// Key of the affinity table.
    type AffinityKey;

    /// Whether this is IPv6.
    const IPV6: bool;
    /// ICMP of the family.
    const ICMP: Proto;
    /// The unspecified address.
    const UNSPECIFIED: Self::Addr;

    /// Builds the key of a frontend.
    fn frontend_key(addr: Self::Addr, port: Port, proto: Proto, scope: u8) -> Self::FrontendKey;
    /// Builds the key of a flow.
    fn flow_key(tuple: &Tuple<Self::Addr>) -> Self::FlowKey;
    /// Sets the addresses of a flow's value.
    fn set_ends(flow: &mut Self::Flow, src: Self::Addr, dst: Self::Addr);
    /// Source, destination and the rest of a flow's value.
    fn flow_parts(flow: &Self::Flow) -> (Self::Addr, Self::Addr, &FlowState);
    /// Key of the opposite direction's entry.
    fn opposite(key: &Self::FlowKey, flow: &Self::Flow) -> Self::FlowKey;
    /// The rest of a flow's value, to change it.
    fn flow_state(flow: &mut Self::Flow) -> &mut FlowState;
    /// Builds the key of a fragmented datagram.
    fn fragment_key(tuple: &Tuple<Self::Addr>, id: u32) -> Self::FragmentKey;
    /// Builds the key of a client of a service.
    fn affinity_key(service: u32, client: Self::Addr) -> Self::AffinityKey;
    /// Sum of an address's words, not folded.
    fn sum(addr: Self::Addr) -> u32;
    /// 32 bits that depend on all of the address.
    fn mix(addr: Self::Addr) -> u32;
    /// Where the address lies.
    fn place(config: &Config, addr: Self::Addr) -> Place;
    /// Source address for translated clients.
    fn snat(config: &Config) -> Self::Addr;
    /// Source address of a pod's connection to itself.
    fn hairpin(config: &Config) -> Self::Addr;
    /// Whether packets to the address are never ours (multicast, link-local).
    fn is_link_scoped(addr: Self::Addr) -> bool;
    /// Whether the address is a loopback address.
    fn is_loopback(addr: Self::Addr) -> bool;
}

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6;

impl From<Backend4> for Backend<V4> {
    #[inline(always)]
    fn from(b: Backend4) -> Self {
        Self { addr: b.addr, port: b.port, state: b.state, flags: b.flags, generation: b.generation }
    }
}

impl From<Backend6> for Backend<V6> {
    #[inline(always)]
    fn from(b: Backend6) -> Self {
        Self { addr: b.addr, port: b.port, state: b.state, flags: b.flags, generation: b.generation }
    }
}

impl Family for V4 {
    type Addr = Ip4;
    type FrontendKey = FrontendKey4;
    type FlowKey = FlowKey4;
    type Flow = Flow4;
    type FragmentKey = FragmentKey4;
    type AffinityKey = AffinityKey4;

    const IPV6: bool = false;
    const ICMP: Proto = Proto::ICMP;
    const UNSPECIFIED: Ip4 = Ip4(0);

    #[inline(always)]
    fn frontend_key(addr: Ip4, port: Port, proto: Proto, scope: u8) -> FrontendKey4 {
        FrontendKey4 { addr, port, proto, scope }
    }

    #[inline(always)]
    fn flow_key(t: &Tuple<Ip4>) -> FlowKey4 {
        FlowKey4 {
            src: t.src,
            dst: t.dst,
            sport: t.sport,
            dport: t.dport,
            proto: t.proto,
            zone: 0,
            tenant: 0,
        }
    }

    #[inline(always)]
    fn set_ends(flow: &mut Flow4, src: Ip4, dst: Ip4) {
        flow.src = src;
        flow.dst = dst;
    }

    #[inline(always)]
    fn flow_parts(flow: &Flow4) -> (Ip4, Ip4, &FlowState) {
        (flow.src, flow.dst, &flow.state)
    }

    #[inline(always)]
    fn opposite(key: &FlowKey4, flow: &Flow4) -> FlowKey4 {
        key.reverse(flow)
    }

    #[inline(always)]
    fn flow_state(flow: &mut Flow4) -> &mut FlowState {
        &mut flow.state
    }

    #[inline(always)]
    fn fragment_key(t: &Tuple<Ip4>, id: u32) -> FragmentKey4 {
        FragmentKey4 { src: t.src, dst: t.dst, id, proto: t.proto, _pad: [0; 3] }
    }

    #[inline(always)]
    fn affinity_key(service: u32, client: Ip4) -> AffinityKey4 {
        AffinityKey4 { service, client }
    }

    #[inline(always)]
    fn sum(addr: Ip4) -> u32 {
        checksum::ip4(addr)
    }

    #[inline(always)]
    fn mix(addr: Ip4) -> u32 {
        addr.mix()
    }

    #[inline(always)]
    fn place(config: &Config, addr: Ip4) -> Place {
        if config.pods4.contains(addr) {
            Place::Local(addr.host().wrapping_sub(config.pods4.net.host()))
        } else if config.cluster4.contains(addr) {
            Place::Remote(
                addr.host().wrapping_sub(config.cluster4.net.host()) >> (config.cluster4_shift & 31),
            )
        } else if config.services4.contains(addr) {
            Place::Service
        } else {
            Place::Outside
        }
    }

    #[inline(always)]
    fn snat(config: &Config) -> Ip4 {
        config.snat4
    }

    #[inline(always)]
    fn hairpin(config: &Config) -> Ip4 {
        config.hairpin4
    }

    #[inline(always)]
    fn is_link_scoped(addr: Ip4) -> bool {
        // 224.0.0.0/4 (RFC 5771) and the limited broadcast address.
        addr.host() >= 0xe000_0000
    }

    #[inline(always)]
    fn is_loopback(addr: Ip4) -> bool {
        addr.host() >> 24 == 127
    }
}

impl Family for V6 {
    type Addr = Ip6;
    type FrontendKey = FrontendKey6;
    type FlowKey = FlowKey6;
    type Flow = Flow6;
    type FragmentKey = FragmentKey6;
    type AffinityKey = AffinityKey6;

    const IPV6: bool = true;
    const ICMP: Proto = Proto::ICMP6;
    const UNSPECIFIED: Ip6 = Ip6([0; 4]);

    #[inline(always)]
    fn frontend_key(addr: Ip6, port: Port, proto: Proto, scope: u8) -> FrontendKey6 {
        FrontendKey6 { addr, port, proto, scope, _pad: 0 }
    }

    #[inline(always)]
    fn flow_key(t: &Tuple<Ip6>) -> FlowKey6 {
        FlowKey6 {
            src: t.src,
            dst: t.dst,
            sport: t.sport,
            dport: t.dport,
            proto: t.proto,
            zone: 0,
            tenant: 0,
        }
    }

    #[inline(always)]
    fn set_ends(flow: &mut Flow6, src: Ip6, dst: Ip6) {
        flow.src = src;
        flow.dst = dst;
        flow._spare = [0; 4];
    }

    #[inline(always)]
    fn flow_parts(flow: &Flow6) -> (Ip6, Ip6, &FlowState) {
        (flow.src, flow.dst, &flow.state)
    }

    #[inline(always)]
    fn opposite(key: &FlowKey6, flow: &Flow6) -> FlowKey6 {
        key.reverse(flow)
    }

    #[inline(always)]
    fn flow_state(flow: &mut Flow6) -> &mut FlowState {
        &mut flow.state
    }

    #[inline(always)]
    fn fragment_key(t: &Tuple<Ip6>, id: u32) -> FragmentKey6 {
        FragmentKey6 { src: t.src, dst: t.dst, id, proto: t.proto, _pad: [0; 3] }
    }

    #[inline(always)]
    fn affinity_key(service: u32, client: Ip6) -> AffinityKey6 {
        AffinityKey6 { service, client }
    }

    #[inline(always)]
    fn sum(addr: Ip6) -> u32 {
        checksum::ip6(addr)
    }

    #[inline(always)]
    fn mix(addr: Ip6) -> u32 {
        addr.mix()
    }

    #[inline(always)]
    fn place(config: &Config, addr: Ip6) -> Place {
        if config.pods6.contains(addr) {
            // The agent numbers pods in the last 32 bits; what lies above is no pod.
            let net = config.pods6.net;
            let index = if addr.0[2] == net.0[2] { addr.low32().wrapping_sub(net.low32()) } else { u32::MAX };
            Place::Local(index)
        } else if config.cluster6.contains(addr) {
            let range = addr.high().wrapping_sub(config.cluster6.net.high()) >> (config.cluster6_shift & 63);
            Place::Remote(if range > u32::MAX as u64 { u32::MAX } else { range as u32 })
        } else if config.services6.contains(addr) {
            Place::Service
        } else {
            Place::Outside
        }
    }

    #[inline(always)]
    fn snat(config: &Config) -> Ip6 {
        config.snat6
    }

    #[inline(always)]
    fn hairpin(config: &Config) -> Ip6 {
        config.hairpin6
    }

    #[inline(always)]
    fn is_link_scoped(addr: Ip6) -> bool {
        addr.is_multicast() || addr.is_link_local()
    }

    #[inline(always)]
    fn is_loopback(addr: Ip6) -> bool {
        addr == Ip6([0, 0, 0, 1_u32.to_be()])
    }
}
