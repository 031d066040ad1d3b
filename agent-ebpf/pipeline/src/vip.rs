//! Service addresses as such: they answer a ping, although nothing has them.
//!
//! The answer is the request itself, turned round: type, addresses and hop limit change, identifier and data stay. Only whole requests
//! without IP options or extension headers are answered; to answer a later fragment, of which nothing says what it belongs to, would let two
//! nodes send one back and forth for ever.

use core::ops::ControlFlow::Continue;

use crate::{
    answer, checksum,
    family::{Family, Place},
    packet::Packet,
    parse::Headers,
    service,
    tables::Tables,
    verdict::{Packed, Step},
    wire::Wire,
};

/// Where ICMP's checksum is.
const CHECKSUM: usize = 2;

/// Type and code of an echo request and of its answer, in wire order (RFC 792; RFC 4443, 4).
const fn kinds<F: Family>() -> (u16, u16) {
    if F::IPV6 { (0x8000_u16.to_be(), 0x8100_u16.to_be()) } else { (0x0800_u16.to_be(), 0) }
}

/// Answers an echo request to a service's address, which lies at `place`; lets all other packets continue.
#[inline(always)]
pub fn echo<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    place: Place,
) -> Step<()> {
    if headers.tuple.proto != F::ICMP {
        return Continue(());
    }
    echo_reply::<F, P, T>(pkt, tables, headers, matches!(place, Place::Service)).into()
}

#[inline(never)]
fn echo_reply<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    in_range: bool,
) -> Packed {
    let (request, reply) = kinds::<F>();
    let dst = headers.tuple.dst;
    if !answer::possible::<F, P>(pkt, headers)
        || pkt.load::<u16>(headers.l4) != Some(request)
        || !(in_range || service::vip_possible::<F, T>(tables, dst))
        || !service::is_vip::<F, T>(tables, dst)
    {
        return Packed::CONTINUE;
    }
    let Some(stored) = pkt.load::<u16>(headers.l4 + CHECKSUM) else { return Packed::CONTINUE };
    let len = F::transport_len(pkt, headers) as u16;
    pkt.store(headers.l4, reply);
    F::write_header(pkt, headers.l3, (dst, headers.tuple.src), F::ICMP, len);
    // The pseudo header's sum stays: its addresses change places. Added up like this (RFC 1141) the checksum is also right for a message of
    // zeros alone, for which a difference gives the other zero. On its way out nothing else knows a sum of the packet.
    pkt.store(headers.l4 + CHECKSUM, checksum::add(checksum::add(stored, request), !reply));
    answer::back::<F, P, T>(pkt, tables, headers)
}
