//! IPv6's header (RFC 8200): a bounded walk over extension headers.

use abi::{Ip6, Port, Proto, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    family::V6,
    packet::Packet,
    parse::{self, Fragmented, Headers},
    verdict::{Step, drop, pass},
    wire::Wire,
};
use core::ops::ControlFlow::Continue;

const HOP_LIMIT: usize = 7;
const SRC: usize = 8;
const DST: usize = 24;
/// Extension headers that are walked; packets with more go to the stack.
const MAX_EXTENSIONS: usize = 4;
/// No transport header starts beyond this: keeps offsets provably small.
const MAX_L4: usize = 512;
/// Hop limit of packets that we make.
const DEFAULT_HOP_LIMIT: u8 = 64;

const HOP_BY_HOP: Proto = Proto(0);
const ROUTING: Proto = Proto(43);
const FRAGMENT: Proto = Proto(44);
const DESTINATION: Proto = Proto(60);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    version_class_flow: u32,
    payload: u16,
    next: Proto,
    hop_limit: u8,
    src: Ip6,
    dst: Ip6,
}

/// First eight bytes of any extension header, and all of a fragment header.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Extension {
    next: Proto,
    len: u8,
    fragment: u16,
    id: u32,
}

impl Wire for V6 {
    type Quote = [u32; 12];

    const HEADER: usize = 40;
    // Destination unreachable, port unreachable (RFC 4443, 3.1).
    const PORT_UNREACHABLE: u16 = 0x0104_u16.to_be();
    // Packet too big (RFC 4443, 3.2).
    const TOO_BIG: u16 = 0x0200_u16.to_be();

    #[inline(always)]
    fn parse<P: Packet>(pkt: &mut P, l3: usize, headers: &mut Headers<Ip6>) -> Step<()> {
        pkt.pull(l3 + Self::HEADER);
        let Some(header) = pkt.load::<Header>(l3) else { return drop(Reason::Malformed) };
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return drop(Reason::Malformed);
        }
        headers.tuple.src = header.src;
        headers.tuple.dst = header.dst;
        headers.ttl = header.hop_limit;
        headers.len = u32::from(u16::from_be(header.payload)) + Self::HEADER as u32;
        let mut proto = header.next;
        let mut l4 = l3 + Self::HEADER;
        let (mut fragmented, mut fragment_id) = (Fragmented::Whole, 0);
        for _ in 0..MAX_EXTENSIONS {
            if !matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
                break;
            }
            pkt.pull(l4 + 8);
            let Some(extension) = pkt.load::<Extension>(l4) else { return drop(Reason::Malformed) };
            if proto == FRAGMENT {
                let field = u16::from_be(extension.fragment);
                fragment_id = extension.id;
                fragmented = match (field >> 3 != 0, field & 1 != 0) {
                    (true, _) => Fragmented::Later,
                    (false, true) => Fragmented::First,
                    (false, false) => Fragmented::Whole,
                };
                l4 += 8;
            } else {
                l4 += (extension.len as usize + 1) * 8;
            }
            if l4 > MAX_L4 {
                return pass();
            }
            proto = extension.next;
            if fragmented as u8 == Fragmented::Later as u8 {
                break;
            }
        }
        let (sport, dport, tcp) = if fragmented as u8 == Fragmented::Later as u8 {
            (Port(0), Port(0), 0)
        } else {
            parse::transport(pkt, l4, proto)?
        };
        headers.tuple.sport = sport;
        headers.tuple.dport = dport;
        headers.tuple.proto = proto;
        headers.l3 = l3;
        headers.l4 = l4;
        headers.tcp = tcp;
        headers.fragmented = fragmented;
        headers.fragment_id = fragment_id;
        Continue(())
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // RFC 4443, 2.1: errors have types below 128; these four are defined.
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn quoted<P: Packet>(pkt: &P, l3: usize, inner: &mut Headers<Ip6>) -> bool {
        let l4 = l3 + Self::HEADER;
        let (Some(header), Some([sport, dport])) = (pkt.load::<Header>(l3), pkt.load::<[u16; 2]>(l4)) else {
            return false;
        };
        inner.tuple.src = header.src;
        inner.tuple.dst = header.dst;
        inner.tuple.sport = Port(sport);
        inner.tuple.dport = Port(dport);
        inner.tuple.proto = header.next;
        inner.l3 = l3;
        inner.l4 = l4;
        u32::from_be(header.version_class_flow) >> 28 == 6 && inner.has_ports()
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        pkt: &mut P,
        headers: &Headers<Ip6>,
        addresses: (Ip6, Ip6),
        _delta: u16,
        hop: bool,
    ) {
        if hop {
            Self::decrement(pkt, headers);
        }
        pkt.store(headers.l3 + SRC, addresses.0);
        pkt.store(headers.l3 + DST, addresses.1);
    }

    #[inline(always)]
    fn decrement<P: Packet>(pkt: &mut P, headers: &Headers<Ip6>) {
        pkt.store(headers.l3 + HOP_LIMIT, headers.ttl.wrapping_sub(1));
    }

    #[inline(always)]
    fn write_header<P: Packet>(pkt: &mut P, l3: usize, addresses: (Ip6, Ip6), proto: Proto, payload: u16) {
        let header = Header {
            version_class_flow: 0x6000_0000_u32.to_be(),
            payload: payload.to_be(),
            next: proto,
            hop_limit: DEFAULT_HOP_LIMIT,
            src: addresses.0,
            dst: addresses.1,
        };
        pkt.store(l3, header);
    }

    #[inline(always)]
    fn may_fragment<P: Packet>(_pkt: &P, _headers: &Headers<Ip6>) -> bool {
        false
    }

    #[inline(always)]
    fn transport_len<P: Packet>(pkt: &P, headers: &Headers<Ip6>) -> usize {
        let payload = pkt.load::<u16>(headers.l3 + 4).map_or(0, u16::from_be) as usize;
        (payload + Self::HEADER).saturating_sub(headers.l4 - headers.l3)
    }
}
