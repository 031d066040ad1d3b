//! Writing: Ethernet addresses, IP addresses, ports, hop count, and the checksums that cover them.

use abi::{Mac, Proto};

use crate::{
    family::Family,
    packet::{Mend, Packet},
    parse::{Fragmented, Headers},
    sctp,
    wire::Wire,
};

const DMAC: usize = 0;
const SMAC: usize = 6;

/// Where a protocol's checksum lies behind the transport header's start, and how it is mended.
#[inline(always)]
fn transport_checksum<F: Family>(proto: Proto) -> Option<(usize, Mend)> {
    let mend = Mend { pseudo: true, ipv6: F::IPV6, ..Mend::default() };
    match proto {
        Proto::TCP => Some((16, mend)),
        Proto::UDP => Some((6, Mend { zero_is_none: true, ..mend })),
        _ => None,
    }
}

/// Turns the packet into what its flow entry says, and takes one hop off if `hop`. The transport checksum comes last:
/// mending it may make the packet's bytes unreachable.
#[inline(never)]
pub fn translate<F: Wire, P: Packet>(pkt: &mut P, headers: &Headers<F::Addr>, flow: &F::Flow, hop: bool) {
    let (src, dst, state) = F::flow_parts(flow);
    F::rewrite(pkt, headers, (src, dst), state.addr_delta, hop);
    if headers.fragmented as u8 == Fragmented::Later as u8 {
        return;
    }
    if headers.tuple.proto == Proto::SCTP {
        let old = (headers.tuple.sport, headers.tuple.dport);
        pkt.store(headers.l4, [state.sport.0, state.dport.0]);
        // The checksum of a fragmented packet covers what is not here.
        if headers.fragmented as u8 == Fragmented::Whole as u8 {
            let len = F::transport_len(pkt, headers) as u32;
            sctp::mend(pkt, headers.l4, len, sctp::difference(old, (state.sport, state.dport)));
        }
        return;
    }
    if let Some((at, mend)) = transport_checksum::<F>(headers.tuple.proto) {
        pkt.store(headers.l4, [state.sport.0, state.dport.0]);
        pkt.mend(headers.l4 + at, Mend { addresses: state.addr_delta, ports: state.port_delta, ..mend });
    }
}

/// Writes the frame's addresses.
#[inline(always)]
pub fn frame<P: Packet>(pkt: &mut P, smac: Mac, dmac: Mac) {
    pkt.store(DMAC, dmac);
    pkt.store(SMAC, smac);
}

/// The frame's source address: where an answer goes.
#[inline(always)]
pub fn frame_source<P: Packet>(pkt: &P) -> Mac {
    pkt.load::<Mac>(SMAC).unwrap_or_default()
}

/// The frame's destination address: this end's own.
#[inline(always)]
pub fn frame_destination<P: Packet>(pkt: &P) -> Mac {
    pkt.load::<Mac>(DMAC).unwrap_or_default()
}

/// Answers to `dmac` from the address that the frame was sent to.
#[inline(always)]
pub fn frame_answer<P: Packet>(pkt: &mut P, dmac: Mac) {
    if let Some(own) = pkt.load::<Mac>(DMAC) {
        frame(pkt, own, dmac);
    }
}
