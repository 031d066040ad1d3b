//! What a family must be able to do with a packet's bytes: read its header, rewrite it, and build a fresh one.
//!
//! The two implementations are [`crate::ipv4`] and [`crate::ipv6`].

use abi::Proto;

use crate::{family::Family, packet::Packet, parse::Headers, verdict::Step};

/// A family's header on the wire.
pub trait Wire: Family {
    /// Bytes of a header without options.
    const HEADER: usize;
    /// ICMP type and code of "port unreachable", in wire order.
    const PORT_UNREACHABLE: u16;

    /// Reads the header at `l3` and the transport's ports.
    fn parse<P: Packet>(pkt: &P, l3: usize) -> Step<Headers<Self::Addr>>;

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

    /// Bytes of payload behind the transport header's start, as the IP header says.
    fn transport_len<P: Packet>(pkt: &P, headers: &Headers<Self::Addr>) -> usize;
}
