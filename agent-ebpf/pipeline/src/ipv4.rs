//! IPv4's header (RFC 791): options are stepped over, fragments flagged.

use abi::{Ip4, Port, Proto, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    checksum,
    family::{Tuple, V4},
    packet::Packet,
    parse::{self, Fragmented, Headers},
    verdict::{Step, drop},
    wire::Wire,
};
use core::ops::ControlFlow::Continue;

const FRAGMENT: usize = 6;
const TTL: usize = 8;
const CHECKSUM: usize = 10;
const SRC: usize = 12;
/// "Don't fragment", in wire order.
const DF: u16 = 0x4000_u16.to_be();
/// "More fragments", in wire order.
const MF: u16 = 0x2000_u16.to_be();
/// Fragment offset, in wire order.
const OFFSET: u16 = 0x1fff_u16.to_be();
/// Time to live of packets that we make.
const DEFAULT_TTL: u8 = 64;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    version_ihl: u8,
    tos: u8,
    len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    proto: Proto,
    checksum: u16,
    src: Ip4,
    dst: Ip4,
}

/// The 16-bit word that holds time to live and protocol.
#[inline(always)]
fn ttl_word(ttl: u8, proto: Proto) -> u16 {
    u16::from_ne_bytes([ttl, proto.0])
}

impl Wire for V4 {
    type Quote = [u32; 7];

    const HEADER: usize = 20;
    // Destination unreachable, port unreachable (RFC 792).
    const PORT_UNREACHABLE: u16 = 0x0303_u16.to_be();
    // Destination unreachable, fragmentation needed (RFC 1191, 4).
    const TOO_BIG: u16 = 0x0304_u16.to_be();

    #[inline(always)]
    fn parse<P: Packet>(pkt: &mut P, l3: usize, headers: &mut Headers<Ip4>) -> Step<()> {
        let Some(header) = pkt.load::<Header>(l3) else { return drop(Reason::Malformed) };
        let words = header.version_ihl & 0x0f;
        if header.version_ihl >> 4 != 4 || words < 5 {
            return drop(Reason::Malformed);
        }
        let l4 = l3 + words as usize * 4;
        let fragmented = match (header.fragment & OFFSET != 0, header.fragment & MF != 0) {
            (true, _) => Fragmented::Later,
            (false, true) => Fragmented::First,
            (false, false) => Fragmented::Whole,
        };
        let (sport, dport, tcp) = if fragmented as u8 == Fragmented::Later as u8 {
            (Port(0), Port(0), 0)
        } else {
            parse::transport(pkt, l4, header.proto)?
        };
        headers.tuple = Tuple { src: header.src, dst: header.dst, sport, dport, proto: header.proto };
        headers.l3 = l3;
        headers.l4 = l4;
        headers.ttl = header.ttl;
        headers.len = u32::from(u16::from_be(header.len));
        headers.tcp = tcp;
        headers.fragmented = fragmented;
        headers.fragment_id = u32::from(header.id);
        Continue(())
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, time exceeded, parameter problem (RFC 792).
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn quoted<P: Packet>(pkt: &P, l3: usize, inner: &mut Headers<Ip4>) -> bool {
        let l4 = l3 + Self::HEADER;
        let (Some(header), Some([sport, dport])) = (pkt.load::<Header>(l3), pkt.load::<[u16; 2]>(l4)) else {
            return false;
        };
        inner.tuple = Tuple {
            src: header.src,
            dst: header.dst,
            sport: Port(sport),
            dport: Port(dport),
            proto: header.proto,
        };
        inner.l3 = l3;
        inner.l4 = l4;
        header.version_ihl == 0x45 && header.fragment & OFFSET == 0 && inner.has_ports()
    }

    #[inline(always)]
    fn rewrite<P: Packet>(pkt: &mut P, headers: &Headers<Ip4>, addresses: (Ip4, Ip4), delta: u16, hop: bool) {
        let Some(mut stored) = pkt.load::<u16>(headers.l3 + CHECKSUM) else { return };
        let mut delta = delta;
        if hop {
            let (old, new) = (
                ttl_word(headers.ttl, headers.tuple.proto),
                ttl_word(headers.ttl.wrapping_sub(1), headers.tuple.proto),
            );
            delta = checksum::add(delta, checksum::word(old, new));
            pkt.store(headers.l3 + TTL, new);
        }
        stored = checksum::mend(stored, delta);
        pkt.store(headers.l3 + CHECKSUM, stored);
        pkt.store(headers.l3 + SRC, [addresses.0.0, addresses.1.0]);
    }

    #[inline(always)]
    fn decrement<P: Packet>(pkt: &mut P, headers: &Headers<Ip4>) {
        let Some(stored) = pkt.load::<u16>(headers.l3 + CHECKSUM) else { return };
        let proto = headers.tuple.proto;
        let (old, new) = (ttl_word(headers.ttl, proto), ttl_word(headers.ttl.wrapping_sub(1), proto));
        pkt.store(headers.l3 + TTL, new);
        pkt.store(headers.l3 + CHECKSUM, checksum::mend(stored, checksum::word(old, new)));
    }

    #[inline(always)]
    fn write_header<P: Packet>(pkt: &mut P, l3: usize, addresses: (Ip4, Ip4), proto: Proto, payload: u16) {
        let (src, dst) = addresses;
        let len = (payload + Self::HEADER as u16).to_be();
        let first = u16::from_ne_bytes([0x45, 0]);
        let sum = [first, len, DF, ttl_word(DEFAULT_TTL, proto)].iter().fold(0, |sum, &w| sum + u32::from(w));
        let header = Header {
            version_ihl: 0x45,
            tos: 0,
            len,
            id: 0,
            fragment: DF,
            ttl: DEFAULT_TTL,
            proto,
            checksum: !checksum::fold(sum + checksum::ip4(src) + checksum::ip4(dst)),
            src,
            dst,
        };
        pkt.store(l3, header);
    }

    #[inline(always)]
    fn may_fragment<P: Packet>(pkt: &P, headers: &Headers<Ip4>) -> bool {
        pkt.load::<u16>(headers.l3 + FRAGMENT).is_some_and(|field| field & DF == 0)
    }

    #[inline(always)]
    fn transport_len<P: Packet>(pkt: &P, headers: &Headers<Ip4>) -> usize {
        let total = pkt.load::<u16>(headers.l3 + 2).map_or(0, u16::from_be) as usize;
        total.saturating_sub(headers.l4 - headers.l3)
    }
}
