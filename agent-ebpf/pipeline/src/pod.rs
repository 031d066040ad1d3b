//! tcx ingress of a pod's veth: packets *from* a pod.
//!
//! Between pods nothing is looked up but two array elements, unless the packet path has translated something for one of
//! them before. Everything else takes one flow probe, then services, then the stack.

use abi::{
    Reason,
    config::features,
    route::{VNI_PODS, seen},
};
use core::ops::ControlFlow::{Break, Continue};

use crate::{
    family::{Family, Place, V4, V6},
    flow,
    forward::{self, At},
    icmp,
    packet::Packet,
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers},
    route::{self, Target},
    service::Client,
    tables::Tables,
    verdict::{Packed, Step, Verdict, drop, pass, settle},
    vip,
    wire::Wire,
};

/// Decides a packet that a pod sends.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables<V4> + Tables<V6>>(pkt: &mut P, tables: T) -> Verdict {
    match parse::link(pkt) {
        Continue((l3, ETHERTYPE_IPV4)) => packet::<V4, P, T>(pkt, tables, l3).into(),
        Continue((l3, ETHERTYPE_IPV6)) if tables.config().features & features::IPV6 != 0 => {
            packet::<V6, P, T>(pkt, tables, l3).into()
        }
        Continue(_) => Verdict::Pass,
        Break(verdict) => verdict,
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
    parse::unicast::<F>(&scratch.headers)?;
    let source = source::<F, P, T>(pkt, tables, &scratch.headers);
    if source == LINK_ONLY {
        return pass();
    }
    if source == FOREIGN && tables.config().features & features::SPOOF_CHECK != 0 {
        return drop(Reason::Spoofed);
    }
    let place = F::place(tables.config(), scratch.headers.tuple.dst);
    let (local, index) = (matches!(place, Place::Local(_)), place.index());
    let known = parse::recall_fragment::<F, T>(tables, &mut scratch.headers);
    let translatable = known && scratch.headers.has_ports();
    let stateful = match place {
        Place::Local(_) => (source | tables.seen(index)) & seen::STATEFUL != 0,
        Place::Remote(_) => source & seen::STATEFUL != 0,
        Place::Service | Place::Outside => true,
    };
    if stateful {
        icmp::error::<F, P, T>(pkt, tables, scratch, At::Tc)?;
    }
    if !(stateful && translatable && flow::probe::<F, T>(tables, scratch)) {
        match place {
            Place::Local(_) | Place::Remote(_) => {
                if stateful && translatable {
                    flow::make_way::<F, T>(tables, scratch, true);
                }
                return Continue(plain::<F, P, T>(pkt, tables, &scratch.headers, local, index).into());
            }
            Place::Service if !known => return drop(Reason::FragmentUnknown),
            Place::Service | Place::Outside if !translatable => {
                vip::echo::<F, P, T>(pkt, tables, &scratch.headers, place)?;
                if matches!(place, Place::Service) {
                    return drop(Reason::NoService);
                }
                return Continue(forward::to_node::<F, P, T>(pkt, tables, scratch).into());
            }
            Place::Service | Place::Outside => {
                let opened = forward::balance::<F, P, T>(pkt, tables, Client::OnNode, scratch, At::Tc);
                if opened.passes() {
                    return Continue(forward::to_node::<F, P, T>(pkt, tables, scratch).into());
                }
                Step::from(opened)?;
            }
        }
    }
    Continue(forward::send::<F, P, T>(pkt, tables, scratch, At::Tc).into())
}

/// [`source`]: the packet concerns the link only.
const LINK_ONLY: u32 = 1 << 30;
/// [`source`]: the address is not the pod's.
const FOREIGN: u32 = 1 << 31;

/// Checks that the source address is the pod's own. Gives what was learned about the pod (bits of [`seen`]), or one of the
/// two constants above: one number, since the verifier must not meet the unused half of an enum.
#[inline(always)]
fn source<F: Family, P: Packet, T: Tables<F>>(pkt: &P, tables: T, headers: &Headers<F::Addr>) -> u32 {
    let src = headers.tuple.src;
    if let Place::Local(index) = F::place(tables.config(), src) {
        let own = tables.endpoint(index).is_some_and(|endpoint| endpoint.ifindex == pkt.ifindex());
        return if own { tables.seen(index) & seen::STATEFUL } else { FOREIGN };
    }
    // Neighbour discovery and duplicate address detection.
    if F::is_link_scoped(src) || src == F::UNSPECIFIED { LINK_ONLY } else { FOREIGN }
}

/// From pod to pod without translation: to the pod of this node, or the node's range, that has this index.
#[inline(always)]
pub fn plain<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    local: bool,
    index: u32,
) -> Packed {
    if headers.ttl <= 1 {
        // The stack answers with "time exceeded".
        return Verdict::Pass.into();
    }
    let target =
        if local { route::to_pod::<F, T>(tables, index) } else { route::to_range::<F, T>(tables, index) };
    untranslated::<F, P, T>(pkt, tables, headers, target)
}

/// Sends the packet to its target as it is; it has a hop left. At tc.
#[inline(always)]
pub fn untranslated<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    mut target: Target,
) -> Packed {
    let admitted = route::admit::<F, P, T>(pkt, tables, headers, &mut target, At::Tc);
    if !admitted.continues() {
        return admitted;
    }
    if target.forwards() {
        F::decrement(pkt, headers);
    }
    route::depart::<F, P, T>(pkt, tables, headers, &target, VNI_PODS, At::Tc)
}
