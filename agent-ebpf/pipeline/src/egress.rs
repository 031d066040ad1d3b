//! tcx egress: packets that the host's own stack sends, by an uplink or to a pod.
//!
//! Only replies of host-network backends are touched: their source becomes the service address again. The route and
//! the frame are already right, since a reply's destination does not change.

use abi::{config::switches, flow::KIND_REVERSE, route::seen};
use core::ops::ControlFlow::{Break, Continue};

use crate::{
    family::{Place, V4, V6},
    flow, nat,
    packet::Packet,
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    size,
    tables::Tables,
    verdict::{Packed, Step, Verdict, pass, settle},
    wire::Wire,
};

/// Decides a packet that leaves by an uplink or, from the host's stack, to a pod.
#[inline(always)]
pub fn egress<P: Packet, T: Tables<V4> + Tables<V6>>(pkt: &mut P, tables: T) -> Verdict {
    match parse::link(pkt) {
        Continue((l3, ETHERTYPE_IPV4)) => packet::<V4, P, T>(pkt, tables, l3).into(),
        Continue((l3, ETHERTYPE_IPV6)) if tables.config().features & abi::config::features::IPV6 != 0 => {
            packet::<V6, P, T>(pkt, tables, l3).into()
        }
        Continue(_) | Break(_) => Verdict::Pass,
    }
}

/// One family's packet: a program of its own for the verifier.
#[inline(never)]
fn packet<F: Wire, P: Packet, T: Tables<F>>(pkt: &mut P, tables: T, l3: usize) -> Packed {
    settle(stages::<F, P, T>(pkt, tables, l3))
}

#[inline(always)]
fn stages<F: Wire, P: Packet, T: Tables<F>>(pkt: &mut P, tables: T, l3: usize) -> Step<Verdict> {
    let Some(mut room) = tables.scratch() else { return pass() };
    let scratch = &mut *room;
    F::parse(pkt, l3, &mut scratch.headers)?;
    let possible = match F::place(tables.config(), scratch.headers.tuple.dst) {
        Place::Local(index) => tables.seen(index) & seen::STATEFUL != 0,
        _ => tables.switches() & switches::HOST_BACKENDS != 0,
    };
    if !possible
        || !scratch.headers.has_ports()
        || !parse::recall_fragment::<F, T>(tables, &mut scratch.headers)
    {
        return pass();
    }
    if flow::probe::<F, T>(tables, scratch) && F::flow_parts(&scratch.flow).2.kind == KIND_REVERSE {
        parse::remember_fragment::<F, T>(tables, &scratch.headers);
        size::clamp::<F, P>(pkt, &scratch.headers, F::flow_parts(&scratch.flow).2.mss);
        nat::translate::<F, P>(pkt, &scratch.headers, &scratch.flow, false);
    }
    pass()
}
