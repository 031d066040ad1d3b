//! Flows: one entry is a ready verdict for the packets of one direction of one connection.
//!
//! A translated connection is a pair. The forward entry's key is what the client sends, its value what the backend must
//! see; the reverse entry's key is what the backend answers, i.e. the forward *value* with source and destination
//! swapped, and its value is the forward *key* swapped. No entry points to another: each key can be computed from the
//! other entry's value.
//!
//! # Lifetime
//! A pair is born in [`crate::maps::FLOWQ4`] (sets of four: a flood evicts only the unanswered) and moves to
//! [`crate::maps::FLOW4`] at the first reply; readers look there first. User space deletes idle pairs, forward first,
//! by [`FlowState::last_seen`] and [`idle_ticks`]; the packet path deletes what a new connection
//! with the same ports takes the place of. An entry's owner is checked by [`FlowState::signature`], since a preallocated element may be reused while it is read.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Ip6, Mac, Port, Proto, sizes};

/// Shift from nanoseconds of `CLOCK_MONOTONIC` to the ticks of [`FlowState::last_seen`] (2^30 ns, 1.07 s). The kernel
/// side reads the coarse monotonic clock, so that user space can compare with its own `clock_gettime`.
pub const TICK_SHIFT: u32 = 30;

/// Key of [`crate::maps::FLOW4`] and [`crate::maps::FLOWQ4`]: a packet's tuple as it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey4 {
    /// Source address.
    pub src: Ip4,
    /// Destination address.
    pub dst: Ip4,
    /// Source port, or the identifier of an ICMP echo.
    pub sport: Port,
    /// Destination port; zero for ICMP echo.
    pub dport: Port,
    /// Protocol.
    pub proto: Proto,
    /// Zero (address zone, for overlapping networks).
    pub zone: u8,
    /// Zero (tenant, for overlapping networks).
    pub tenant: u16,
}

/// Key of [`crate::maps::FLOW6`] and [`crate::maps::FLOWQ6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey6 {
    /// Source address.
    pub src: Ip6,
    /// Destination address.
    pub dst: Ip6,
    /// Source port, or the identifier of an ICMP echo.
    pub sport: Port,
    /// Destination port; zero for ICMP echo.
    pub dport: Port,
    /// Protocol.
    pub proto: Proto,
    /// Zero (address zone, for overlapping networks).
    pub zone: u8,
    /// Zero (tenant, for overlapping networks).
    pub tenant: u16,
}

/// [`FlowState::kind`]: client to backend.
pub const KIND_FORWARD: u8 = 1;
/// [`FlowState::kind`]: backend to client.
pub const KIND_REVERSE: u8 = 2;

/// Bits of [`FlowState::tcp`]: what this direction has carried, in TCP's words. SCTP's INIT counts as SYN, its SHUTDOWN as FIN, its ABORT as
/// RST.
pub mod tcp_bits {
    /// A SYN.
    pub const SYN: u8 = 1 << 0;
    /// A FIN.
    pub const FIN: u8 = 1 << 1;
    /// A RST.
    pub const RST: u8 = 1 << 2;
    /// The other direction has answered; with [`flags::DSR`](super::flags::DSR) a packet that opens nothing was seen.
    pub const REPLIED: u8 = 1 << 3;
}

/// Bits of [`FlowState::flags`].
pub mod flags {
    /// The source was translated to an address of this node: the port is taken.
    pub const SNAT: u16 = 1 << 0;
    /// Ethernet addresses come from [`super::FlowState::peer_mac`]: the answer returns where the request came from.
    pub const REFLECT: u16 = 1 << 1;
    /// The backend is the client itself.
    pub const HAIRPIN: u16 = 1 << 2;
    /// After translation the packet goes up this node's stack (host-network backend, or no route of ours).
    pub const STACK: u16 = 1 << 3;
    /// Direct server return: packets of this entry are sent on to another node as they are, but for the frame. The entry has no
    /// opposite, since answers do not come by here.
    pub const DSR: u16 = 1 << 4;
    /// The client's packets were handed over by another node: answers go to the client by this node's own routes.
    pub const HANDED_OVER: u16 = 1 << 5;
    /// The pair is counted in [`crate::backend::Load::flows`].
    pub const COUNTED: u16 = 1 << 6;
}

/// The part of a flow's value that both families share. Rewrite fields are in wire order; sums are one's-complement
/// differences as RFC 1624 defines them, in the byte order in which they are stored in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowState {
    /// Source port to write.
    pub sport: Port,
    /// Destination port to write.
    pub dport: Port,
    /// Zero (kept for the IPv4 header's difference, which equals `addr_delta`).
    pub _l3_delta: u16,
    /// Difference that the addresses make to the IPv4 header's and the pseudo header's sum.
    pub addr_delta: u16,
    /// Difference that the ports make to the transport sum.
    pub port_delta: u16,
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// Bits of [`tcp_bits`].
    pub tcp: u8,
    /// Where the translated packet goes: index into [`crate::maps::NEXTHOP`]; zero: see [`flags`].
    pub nexthop: u32,
    /// Interface that the client's packets came from (where a reflected reply leaves).
    pub peer_ifindex: u32,
    /// Index into [`crate::maps::SVC`].
    pub service: u32,
    /// Index into [`crate::maps::BE4`] or [`crate::maps::BE6`].
    pub backend: u32,
    /// The backend's generation when the flow began; a connectionless flow whose backend has another one is chosen anew.
    pub backend_generation: u16,
    /// Generation of the policy that allowed the flow.
    pub policy_generation: u16,
    /// Hash of the key, as [`crate::Config::hash_seed`] seeds it.
    pub signature: u32,
    /// Tick of the last packet, see [`TICK_SHIFT`]; written only when it has changed.
    pub last_seen: u32,
    /// Tick of the first packet.
    pub created: u32,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Largest segment to announce, zero for no clamp.
    pub mss: u16,
    /// Address that the client's frames came from, see [`flags::REFLECT`].
    pub peer_mac: Mac,
    /// Zero.
    pub _spare: u16,
}

/// Value of [`crate::maps::FLOW4`] and [`crate::maps::FLOWQ4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow4 {
    /// Source address to write.
    pub src: Ip4,
    /// Destination address to write.
    pub dst: Ip4,
    /// The rest.
    pub state: FlowState,
}

/// Value of [`crate::maps::FLOW6`] and [`crate::maps::FLOWQ6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow6 {
    /// Source address to write.
    pub src: Ip6,
    /// Destination address to write.
    pub dst: Ip6,
    /// The rest.
    pub state: FlowState,
    /// Zero.
    pub _spare: [u32; 4],
}

sizes! { FlowKey4 = 16, FlowKey6 = 40, FlowState = 56, Flow4 = 64, Flow6 = 104 }

/// Ticks of silence after which the pair may be deleted: 8000 s for an established TCP connection, 60 s for a closing
/// one, 10 s after a reset, 30 s for one that was never answered; 120 s for answered UDP, 600 s for answered SCTP, else 30 s.
/// Both entries of a pair are judged together: pass the union of their TCP bits and the later `last_seen`.
pub const fn idle_ticks(proto: Proto, tcp: u8) -> u32 {
    const fn ticks(seconds: u64) -> u32 {
        ((seconds * 1_000_000_000) >> TICK_SHIFT) as u32
    }
    match proto {
        Proto::TCP if tcp & tcp_bits::RST != 0 => ticks(10),
        Proto::TCP if tcp & tcp_bits::FIN != 0 => ticks(60),
        Proto::TCP if tcp & tcp_bits::REPLIED != 0 => ticks(8000),
        Proto::UDP if tcp & tcp_bits::REPLIED != 0 => ticks(120),
        Proto::SCTP if tcp & tcp_bits::RST != 0 => ticks(10),
        Proto::SCTP if tcp & tcp_bits::FIN != 0 => ticks(60),
        Proto::SCTP if tcp & tcp_bits::REPLIED != 0 => ticks(600),
        _ => ticks(30),
    }
}

impl FlowKey4 {
    /// Key of the opposite direction's entry, given what this direction's value rewrites to.
    #[inline(always)]
    pub const fn reverse(&self, value: &Flow4) -> Self {
        Self {
            src: value.dst,
            dst: value.src,
            sport: value.state.dport,
            dport: value.state.sport,
            proto: self.proto,
            zone: self.zone,
            tenant: self.tenant,
        }
    }
}

impl FlowKey6 {
    /// Key of the opposite direction's entry, given what this direction's value rewrites to.
    #[inline(always)]
    pub const fn reverse(&self, value: &Flow6) -> Self {
        Self {
            src: value.dst,
            dst: value.src,
            sport: value.state.dport,
            dport: value.state.sport,
            proto: self.proto,
            zone: self.zone,
            tenant: self.tenant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_follows_what_the_connection_has_seen() {
        let seconds = |proto, tcp| u64::from(idle_ticks(proto, tcp)) * (1 << TICK_SHIFT) / 1_000_000_000;
        assert_eq!(seconds(Proto::TCP, tcp_bits::SYN), 28);
        assert_eq!(seconds(Proto::TCP, tcp_bits::SYN | tcp_bits::REPLIED), 7999);
        assert_eq!(seconds(Proto::TCP, tcp_bits::REPLIED | tcp_bits::FIN), 59);
        assert_eq!(seconds(Proto::TCP, tcp_bits::REPLIED | tcp_bits::FIN | tcp_bits::RST), 9);
        assert_eq!(seconds(Proto::UDP, 0), 28);
        assert_eq!(seconds(Proto::UDP, tcp_bits::REPLIED), 119);
    }
}
