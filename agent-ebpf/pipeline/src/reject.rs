//! Rejections: the packet itself becomes the answer (a TCP reset or an ICMP port unreachable) and goes back.
//!
//! Only whole TCP and UDP packets without IP options or extension headers are answered; all others are dropped.

use abi::{Port, Proto, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    answer, checksum,
    family::Family,
    packet::Packet,
    parse::{Headers, tcp},
    tables::Tables,
    verdict::{Packed, Verdict},
    wire::Wire,
};

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Bytes of an ICMP error's own header.
const ICMP_HEADER: usize = 8;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TcpHeader {
    sport: Port,
    dport: Port,
    seq: u32,
    ack: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// Counts the reason and answers the packet, or drops it if it cannot be answered.
#[inline(always)]
pub fn reject<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    reason: Reason,
) -> Packed {
    let answered = answer::possible::<F, P>(pkt, headers)
        && match headers.tuple.proto {
            Proto::TCP => reset::<F, P>(pkt, headers),
            Proto::UDP => complain::<F, P>(pkt, headers, F::PORT_UNREACHABLE, 0),
            _ => false,
        };
    if !answered {
        return Verdict::Drop(reason).into();
    }
    tables.count_drop(reason);
    answer::back::<F, P, T>(pkt, tables, headers)
}

/// Sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1), not folded.
#[inline(always)]
fn pseudo<F: Family>(headers: &Headers<F::Addr>, proto: Proto, len: u16) -> u32 {
    F::sum(headers.tuple.src)
        + F::sum(headers.tuple.dst)
        + u32::from(u16::from_ne_bytes([0, proto.0]))
        + u32::from(len.to_be())
}

/// Turns a segment into the reset that RFC 9293, 3.10.7.1 prescribes for a closed port.
#[inline(never)]
fn reset<F: Wire, P: Packet>(pkt: &mut P, headers: &Headers<F::Addr>) -> bool {
    pkt.pull(headers.l4 + TCP_HEADER);
    let Some(segment) = pkt.load::<TcpHeader>(headers.l4) else { return false };
    if segment.flags & tcp::RST != 0 {
        return false;
    }
    let data = F::transport_len(pkt, headers).saturating_sub(usize::from(segment.offset >> 4) * 4) as u32;
    let taken = data + u32::from(segment.flags & tcp::SYN != 0) + u32::from(segment.flags & tcp::FIN != 0);
    let (seq, ack, flags) = if segment.flags & tcp::ACK != 0 {
        (segment.ack, 0, tcp::RST)
    } else {
        (0, u32::from_be(segment.seq).wrapping_add(taken).to_be(), tcp::RST | tcp::ACK)
    };
    if !pkt.resize(headers.l4 + TCP_HEADER) {
        return false;
    }
    let (sport, dport) = (segment.dport, segment.sport);
    let offset = (TCP_HEADER as u8 / 4) << 4;
    let sum = pseudo::<F>(headers, Proto::TCP, TCP_HEADER as u16)
        + u32::from(sport.0)
        + u32::from(dport.0)
        + u32::from(checksum::fold((seq & 0xffff) + (seq >> 16)))
        + u32::from(checksum::fold((ack & 0xffff) + (ack >> 16)))
        + u32::from(u16::from_ne_bytes([offset, flags]));
    let reply = TcpHeader {
        sport,
        dport,
        seq,
        ack,
        offset,
        flags,
        window: 0,
        checksum: !checksum::fold(sum),
        urgent: 0,
    };
    pkt.store(headers.l4, reply);
    F::write_header(pkt, headers.l3, (headers.tuple.dst, headers.tuple.src), Proto::TCP, TCP_HEADER as u16);
    true
}

/// Turns a packet that [`answer::quotable`] holds for into an ICMP error of this type and code, in wire order, that quotes it up to the
/// first eight bytes of its transport header. `size` stands in the low half of the word behind the checksum.
#[inline(never)]
pub fn complain<F: Wire, P: Packet>(pkt: &mut P, headers: &Headers<F::Addr>, kind: u16, size: u16) -> bool {
    // Then the quote's own eight bytes are the fragment header, and eight more are needed for the ports.
    let extended = headers.l4 != headers.l3 + F::HEADER;
    let quoted = size_of::<F::Quote>();
    let len = ICMP_HEADER + quoted + if extended { 8 } else { 0 };
    if !pkt.resize(headers.l3 + F::HEADER + len) {
        return false;
    }
    let Some(quote) = pkt.load::<F::Quote>(headers.l3) else { return false };
    let mut sum = u32::from(kind) + u32::from(size.to_be());
    if extended && let Some(ports) = pkt.load::<[u16; 4]>(headers.l3 + quoted) {
        pkt.store(headers.l3 + F::HEADER + ICMP_HEADER + quoted, ports);
        let [a, b, c, d] = ports.map(u32::from);
        sum += a + b + c + d;
    }
    pkt.store(headers.l3 + F::HEADER + ICMP_HEADER, quote);
    for word in quote.as_ref() {
        sum += (word & 0xffff) + (word >> 16);
    }
    if F::IPV6 {
        sum += pseudo::<F>(headers, F::ICMP, len as u16);
    }
    pkt.store(headers.l3 + F::HEADER, [kind, !checksum::fold(sum), 0, size.to_be()]);
    F::write_header(pkt, headers.l3, (headers.tuple.dst, headers.tuple.src), F::ICMP, len as u16);
    true
}
