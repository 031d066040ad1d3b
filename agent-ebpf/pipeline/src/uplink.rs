//! XDP and tcx ingress of an uplink: packets from outside the node.
//!
//! XDP does what concerns services; tcx delivers to pods, and does XDP's part where XDP is absent. A packet that is
//! neither for a pod nor to a port that some frontend or some translated client uses costs two array loads.

use abi::{config::features, route::seen};
use core::ops::ControlFlow::{Break, Continue};

use crate::{
    family::{Family, Place, V4, V6},
    flow,
    forward::{self, At},
    icmp,
    packet::Packet,
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers},
    pod,
    service::{self, Client},
    tables::Tables,
    verdict::{Packed, Step, Verdict, pass, settle},
    vip,
    wire::Wire,
};

/// Decides a packet that comes in by an uplink.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables<V4> + Tables<V6>>(pkt: &mut P, tables: T, at: At) -> Verdict {
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
    let place = F::place(config, scratch.headers.tuple.dst);
    let tc = matches!(at, At::Tc);
    // XDP gave the packet this node's address but knew no neighbour; the stack would take the source for a forgery.
    let ours = tc && scratch.headers.tuple.src == F::snat(config) && scratch.headers.ttl > 1;
    match place {
        Place::Local(_) if !tc => return pass(),
        Place::Local(index) => {
            let stateful = tables.seen(index) & seen::STATEFUL != 0;
            if stateful {
                icmp::error::<F, P, T>(pkt, tables, scratch, at)?;
            }
            let translatable = stateful
                && scratch.headers.has_ports()
                && parse::recall_fragment::<F, T>(tables, &mut scratch.headers);
            if !translatable || !flow::probe::<F, T>(tables, scratch) {
                // What XDP has translated looks the same, but its pair has just been opened and stays.
                if translatable && scratch.headers.opens() {
                    flow::make_way::<F, T>(tables, scratch);
                }
                return Continue(pod::plain::<F, P, T>(pkt, tables, &scratch.headers, place));
            }
        }
        Place::Remote(_) | Place::Outside if ours => {
            F::decrement(pkt, &scratch.headers);
            return Continue(Verdict::Neighbour(pkt.ifindex()));
        }
        Place::Remote(_) | Place::Service => return pass(),
        Place::Outside => {
            let left_to_xdp = tc && config.features & features::XDP != 0;
            if left_to_xdp {
                return pass();
            }
            icmp::error::<F, P, T>(pkt, tables, scratch, at)?;
            vip::echo::<F, P, T>(pkt, tables, &scratch.headers, place)?;
            if !wanted::<F, T>(tables, &mut scratch.headers) {
                return pass();
            }
            if !flow::probe::<F, T>(tables, scratch) {
                forward::balance::<F, P, T>(pkt, tables, Client::Outside, scratch)?;
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
    let port = headers.tuple.dport.host();
    let config = tables.config();
    (port >= config.snat_port_first && port <= config.snat_port_last)
        || service::possible::<F, T>(tables, headers.tuple.dst, headers.tuple.dport, headers.tuple.proto)
}
