//! What a family must be able to do with a packet's bytes: read its header, rewrite it, and build a fresh one.
//!
//! The two implementations are [`crate::ipv4`] and [`crate::ipv6`].

use abi::Proto;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{family::Family, packet::Packet, parse::Headers, verdict::Step};

/// A family's header on the wire.
pub trait Wire: Family {
    /// What an ICMP error quotes of a packet: its header and the first eight bytes behind, in words.
    type Quote: FromBytes + IntoBytes + Immutable + Copy + AsRef<[u32]>;

    /// Bytes of a header without options.
    const HEADER: usize;
    /// ICMP type and code of "port unreachable", in wire order.
    const PORT_UNREACHABLE: u16;
    /// ICMP type and code of "too large for the next link", in wire order. The size that fits stands in the low half of the word
    /// behind the checksum.
    const TOO_BIG: u16;

    /// Reads the header at `l3` and the transport's ports. Fills in place, to spare the BPF stack.
    fn parse<P: Packet>(pkt: &mut P, l3: usize, headers: &mut Headers<Self::Addr>) -> Step<()>;

    /// Whether an ICMP message of this type is an error that quotes a packet.
    fn is_error(kind: u8) -> bool;

    /// Reads the ends of the TCP or UDP packet that an ICMP error quotes at `l3`: of its transport header there may be no
    /// more than eight bytes. `false` if there is no such packet.
    fn quoted<P: Packet>(pkt: &P, l3: usize, inner: &mut Headers<Self::Addr>) -> bool;

    /// Replaces the addresses, whose difference is `delta`, and takes one hop off if `hop`. Mends the header's own
    /// checksum where there is one, but not the transport's.
    fn rewrite<P: Packet>(
        pkt: &mut P,
        headers: &Headers<Self::Addr>,
        addresses: (Self::Addr, Self::Addr),
        delta: u16,
        hop: bool,
    );

    /// Takes one hop off.
    fn decrement<P: Packet>(pkt: &mut P, headers: &Headers<Self::Addr>);

    /// Writes a fresh header at `l3` for `payload` bytes of `proto`.
    fn write_header<P: Packet>(
        pkt: &mut P,
        l3: usize,
        addresses: (Self::Addr, Self::Addr),
        proto: Proto,
        payload: u16,
    );

    /// Whether routers may fragment the packet.
    fn may_fragment<P: Packet>(pkt: &P, headers: &Headers<Self::Addr>) -> bool;

    /// Bytes of payload behind the transport header's start, as the IP header says.
    fn transport_len<P: Packet>(pkt: &P, headers: &Headers<Self::Addr>) -> usize;
}
