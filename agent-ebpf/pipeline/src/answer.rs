//! Answers: a packet that has become an answer to its sender goes back where it came from.
//!
//! What the answer says is made by [`crate::reject`], [`crate::size`] and [`crate::vip`].

use abi::{config::features, route::VNI_PODS};

use crate::{
    family::Place,
    nat,
    packet::Packet,
    parse::{Fragmented, Headers},
    route::{self, To},
    tables::Tables,
    tunnel,
    verdict::{Packed, Verdict},
    wire::Wire,
};

/// Bytes of IPv6's fragment header.
const FRAGMENT_HEADER: usize = 8;

/// Bytes of the shortest transport header that is answered: UDP's and ICMP's.
const SHORTEST: usize = 8;

/// Whether the packet can be turned into an answer: it is whole, has no options or extension headers, and all of it is here. (A total length of
/// zero, as larger packets than 64 KiB have, is none that an answer could be made of.)
#[inline(always)]
pub fn possible<F: Wire, P: Packet>(pkt: &P, headers: &Headers<F::Addr>) -> bool {
    headers.l4 == headers.l3 + F::HEADER
        && headers.fragmented as u8 == Fragmented::Whole as u8
        && headers.len as usize >= F::HEADER + SHORTEST
        && headers.l3 + headers.len as usize <= pkt.len()
}

/// Whether an ICMP error can quote the packet: as [`possible`], and IPv6's first fragments, too. Their senders learn the size of a way
/// by nothing else.
#[inline(always)]
pub fn quotable<F: Wire, P: Packet>(pkt: &P, headers: &Headers<F::Addr>) -> bool {
    let first = F::IPV6
        && headers.fragmented as u8 == Fragmented::First as u8
        && headers.l4 == headers.l3 + F::HEADER + FRAGMENT_HEADER;
    possible::<F, P>(pkt, headers) || first && headers.l3 + headers.len as usize <= pkt.len()
}

/// Sends an answer back to the sender of the packet that had these headers: out of the interface that it came by, or through the tunnel
/// to a pod that only that knows.
#[inline(never)]
pub fn back<F: Wire, P: Packet, T: Tables<F>>(pkt: &mut P, tables: T, headers: &Headers<F::Addr>) -> Packed {
    let config = tables.config();
    if config.features & features::TUNNEL != 0 {
        let place = F::place(config, headers.tuple.src);
        let (remote, index) = (matches!(place, Place::Remote(_)), place.index());
        if remote {
            let target = route::to_range::<F, T>(tables, index);
            if target.is(To::Tunnel) {
                return if pkt.is_at_xdp() {
                    tunnel::wrap::<F, P, T>(pkt, tables, headers, &target.hop, VNI_PODS)
                } else {
                    tunnel::enter(pkt, &target.hop, VNI_PODS)
                };
            }
        }
    }
    let sender = nat::frame_source(pkt);
    nat::frame_answer(pkt, sender);
    Verdict::Transmit.into()
}
