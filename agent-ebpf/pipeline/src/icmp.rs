//! ICMP errors about translated packets: a router or a host complains about a packet as it saw it; its sender must hear
//! about the packet that it sent.
//!
//! The quoted packet's tuple, turned round, is the key of the opposite direction's flow entry, whose value names the ends
//! that the sender knows. Path MTU discovery through translated connections depends on this (RFC 5508, 4.2).

use abi::{
    Proto, Reason,
    flow::{FlowState, flags},
};
use core::ops::ControlFlow::Continue;

use crate::{
    checksum, flow,
    forward::{self, At},
    packet::{Mend, Packet},
    parse::{Fragmented, Headers},
    route,
    tables::{Scratch, Tables},
    verdict::{Packed, Step, Verdict},
    wire::Wire,
};

/// Bytes of an ICMP error before the packet that it quotes.
const HEADER: usize = 8;
/// Where ICMP's checksum is.
const CHECKSUM: usize = 2;
/// Where UDP's checksum is.
const UDP_CHECKSUM: usize = 6;

/// Translates an ICMP error about a known flow and sends it on; lets all other packets continue.
#[inline(always)]
pub fn error<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    scratch: &mut Scratch<F>,
    at: At,
) -> Step<()> {
    if scratch.headers.tuple.proto != F::ICMP {
        return Continue(());
    }
    translate::<F, P, T>(pkt, tables, scratch, at).into()
}

#[inline(never)]
fn translate<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    scratch: &mut Scratch<F>,
    at: At,
) -> Packed {
    let inner = scratch.headers.l4 + HEADER;
    let whole = scratch.headers.fragmented as u8 == Fragmented::Whole as u8;
    if !whole || !pkt.load::<u8>(scratch.headers.l4).is_some_and(F::is_error) {
        return Packed::CONTINUE;
    }
    pkt.pull(inner + F::HEADER + 8);
    if !F::quoted(pkt, inner, &mut scratch.inner) || !flow::quoted::<F, T>(tables, scratch) {
        return Packed::CONTINUE;
    }
    forward::way::<F, P, T>(pkt, tables, scratch, at);
    let ends = scratch.headers.ttl <= 1 && F::flow_parts(&scratch.flow).2.flags & flags::DSR == 0;
    if ends && scratch.target.forwards() {
        return Verdict::Drop(Reason::HopLimit).into();
    }
    let state = F::flow_parts(&scratch.flow).2;
    if state.flags & flags::DSR == 0 {
        rewrite::<F, P>(pkt, scratch);
    }
    route::depart::<F, P, T>(pkt, tables, &scratch.headers, &scratch.target, forward::vni(state), at)
}

/// Gives the error and the packet that it quotes the ends that its receiver knows.
#[inline(never)]
fn rewrite<F: Wire, P: Packet>(pkt: &mut P, scratch: &Scratch<F>) {
    let (src, dst, state) = F::flow_parts(&scratch.flow);
    let (outer, hop) = (&scratch.headers, scratch.target.forwards());
    // The backend itself complains: it is known by the service's address. A router in between keeps its own.
    let from = if outer.tuple.src == scratch.inner.tuple.dst { src } else { outer.tuple.src };
    let outer_delta =
        checksum::difference(F::sum(outer.tuple.src) + F::sum(outer.tuple.dst), F::sum(from) + F::sum(dst));
    let changed = quote::<F, P>(pkt, &scratch.inner, (dst, src), state);
    F::rewrite(pkt, outer, (from, dst), outer_delta, hop);
    let mend =
        Mend { addresses: outer_delta, ports: changed, pseudo: F::IPV6, zero_is_none: false, ipv6: F::IPV6 };
    pkt.mend(outer.l4 + CHECKSUM, mend);
}

/// Gives the quoted packet the ends that its sender knows; gives the difference that this makes to the bytes.
#[inline(always)]
fn quote<F: Wire, P: Packet>(
    pkt: &mut P,
    inner: &Headers<F::Addr>,
    addresses: (F::Addr, F::Addr),
    state: &FlowState,
) -> u16 {
    // The two directions' differences are the same: both replace the same pair of ends.
    F::rewrite(pkt, inner, addresses, state.addr_delta, false);
    pkt.store(inner.l4, [state.dport.0, state.sport.0]);
    // IPv4's header checksum takes back what the addresses change.
    let mut changed = if F::IPV6 { state.addr_delta } else { 0 };
    changed = checksum::add(changed, state.port_delta);
    if inner.tuple.proto == Proto::UDP
        && let Some(stored) = pkt.load::<u16>(inner.l4 + UDP_CHECKSUM)
        && stored != 0
    {
        let sum = checksum::mend(stored, checksum::add(state.addr_delta, state.port_delta));
        pkt.store(inner.l4 + UDP_CHECKSUM, sum);
        changed = checksum::add(changed, checksum::word(stored, sum));
    }
    changed
}
