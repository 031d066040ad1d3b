//! XDP and tcx ingress of an uplink, and of the tunnel device: packets from outside the node.
//!
//! XDP does what concerns services; tcx delivers to pods, and does XDP's part where XDP is absent. Where XDP can leave a note before the
//! packet, tcx delivers by it and looks nothing up. A packet that is neither for a pod nor to a port or address that some frontend or some
//! translated client uses costs a few array loads.

use abi::{
    Proto,
    config::features,
    route::{KIND_PEER, VXLAN_PORT, seen},
};
use core::ops::ControlFlow::{Break, Continue};

use crate::{
    family::{Family, Place, V4, V6},
    flow,
    forward::{self, At},
    handover, icmp, nat,
    packet::Packet,
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers},
    pod, ports, service,
    tables::{Common, Tables},
    verdict::{Packed, Step, Verdict, pass, settle},
    vip,
    wire::Wire,
};

/// Decides a packet that comes in by an uplink.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables<V4> + Tables<V6>>(pkt: &mut P, tables: T, at: At) -> Verdict {
    if matches!(at, At::Tc)
        && tables.config().features & features::METADATA != 0
        && let Some(nexthop) = pkt.note()
        && let Some(hop) = tables.nexthop(nexthop)
        && hop.kind == KIND_PEER
    {
        nat::frame(pkt, hop.smac, hop.dmac);
        return Verdict::Peer(hop.ifindex);
    }
    match parse::link(pkt) {
        Continue((l3, ETHERTYPE_IPV4)) => packet::<V4, P, T>(pkt, tables, l3, at).into(),
        Continue((l3, ETHERTYPE_IPV6)) if tables.config().features & features::IPV6 != 0 => {
            packet::<V6, P, T>(pkt, tables, l3, at).into()
        }
        // What is cut short here may still be good for the stack: it is not known to be ours.
        Continue(_) | Break(_) => Verdict::Pass,
    }
}

/// One family's packet: a program of its own for the verifier.
#[inline(never)]
fn packet<F: Wire, P: Packet, T: Tables<F>>(pkt: &mut P, tables: T, l3: usize, at: At) -> Packed {
    settle(stages::<F, P, T>(pkt, tables, l3, at))
}

#[inline(always)]
fn stages<F: Wire, P: Packet, T: Tables<F>>(pkt: &mut P, tables: T, l3: usize, at: At) -> Step<Verdict> {
    let Some(mut room) = tables.scratch() else { return pass() };
    let scratch = &mut *room;
    F::parse(pkt, l3, &mut scratch.headers)?;
    parse::unicast::<F>(&scratch.headers)?;
    let config = tables.config();
    let xdp = matches!(at, At::Xdp);
    // Most packets end here: before anything is asked of their addresses.
    let wanted_at_xdp = xdp && wanted::<F, T>(tables, &mut scratch.headers);
    if xdp && !wanted_at_xdp && scratch.headers.tuple.proto != F::ICMP {
        return pass();
    }
    let place = F::place(config, scratch.headers.tuple.dst);
    let noted = config.features & features::METADATA != 0;
    let before_tc = matches!(at, At::Tc) && config.features & features::XDP != 0;
    // XDP gave the packet this node's address but knew no neighbour; the stack would take the source for a forgery.
    let ours =
        matches!(at, At::Tc) && scratch.headers.tuple.src == F::snat(config) && scratch.headers.ttl > 1;
    match place {
        Place::Local(_) if xdp => return pass(),
        Place::Local(index) => {
            let stateful = tables.seen(index) & seen::STATEFUL != 0;
            if stateful {
                icmp::error::<F, P, T>(pkt, tables, scratch, at)?;
            }
            let translatable = stateful
                && scratch.headers.has_ports()
                && parse::recall_fragment::<F, T>(tables, &mut scratch.headers);
            if !translatable || !flow::probe::<F, T>(tables, scratch) {
                // What XDP has translated and left no note about looks the same, but its pair has just been used and stays.
                if translatable {
                    flow::make_way::<F, T>(tables, scratch, noted || !before_tc);
                }
                return Continue(pod::plain::<F, P, T>(pkt, tables, &scratch.headers, true, index).into());
            }
        }
        Place::Remote(_) | Place::Outside if ours => {
            F::decrement(pkt, &scratch.headers);
            return Continue(Verdict::Neighbour(pkt.ifindex()));
        }
        Place::Remote(_) | Place::Service => return pass(),
        Place::Outside => {
            if before_tc || tunnelled(tables, &scratch.headers) {
                return pass();
            }
            icmp::error::<F, P, T>(pkt, tables, scratch, at)?;
            vip::echo::<F, P, T>(pkt, tables, &scratch.headers, place)?;
            if !wanted_at_xdp && (xdp || !wanted::<F, T>(tables, &mut scratch.headers)) {
                return pass();
            }
            if !flow::probe::<F, T>(tables, scratch) {
                let client = handover::client::<F, P, T>(pkt, tables, &scratch.headers, at);
                Step::from(forward::balance::<F, P, T>(pkt, tables, client, scratch, at))?;
            }
        }
    }
    Continue(forward::send::<F, P, T>(pkt, tables, scratch, at).into())
}

/// Whether the destination may be a frontend's, or its port is in the range of translated clients.
#[inline(always)]
fn wanted<F: Family, T: Tables<F>>(tables: T, headers: &mut Headers<F::Addr>) -> bool {
    if !headers.has_ports() || !parse::recall_fragment::<F, T>(tables, headers) {
        return false;
    }
    ports::ours(tables, headers.tuple.dport.host())
        || service::possible::<F, T>(tables, headers.tuple.dst, headers.tuple.dport, headers.tuple.proto)
}

/// Whether the packet is another node's tunnel: the tunnel device's own hook sees what is in it.
#[inline(always)]
fn tunnelled<A, T: Common>(tables: T, headers: &Headers<A>) -> bool {
    tables.config().features & features::TUNNEL != 0
        && headers.tuple.proto == Proto::UDP
        && headers.tuple.dport.0 == VXLAN_PORT.to_be()
}
