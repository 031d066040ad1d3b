//! Direct server return: a packet for a service goes unchanged to the node of its backend, and that node answers the client.
//!
//! The node that the client talks to keeps one entry for the way and changes the frame only. The backend's node knows a packet that was
//! handed over by its frame's source, another node's, or by the tunnel that it came through, and by a client that is in the
//! cluster nowhere; it chooses among its own backends. Both nodes judge each packet, so either may lose its state.
//!
//! # When the entry is made
//! A packet that opens a connection leaves none if Maglev has chosen: the next one is led to the same node, and a flood of SYNs then
//! costs neither room nor the time of an insertion. The first packet that opens nothing makes the entry, among the unanswered ones (it
//! may be a flood of ACKs), and the second one moves it to the established ones: from then on the connection keeps its node whatever
//! becomes of the service. If the service's backends change between SYN and ACK, the connection may meet another node, which
//! resets it; the client has sent no data yet. Where chance, turns or affinity choose, and for datagrams, the first packet makes the entry.

use abi::{
    backend,
    config::switches,
    flow::flags,
    route::{KIND_L2, KIND_TUNNEL},
    service,
};

use crate::{
    family::{Family, Place},
    flow::Opening,
    forward::At,
    nat,
    packet::Packet,
    parse::Headers,
    service::{Choice, Client},
    size,
    tables::Tables,
    wire::Wire,
};

/// Who sends a packet that came in by an uplink or a tunnel.
#[inline(always)]
pub fn client<F: Family, P: Packet, T: Tables<F>>(
    pkt: &P,
    tables: T,
    headers: &Headers<F::Addr>,
    at: At,
) -> Client {
    let handed_over = tables.switches() & switches::HAND_OVER != 0
        && (matches!(at, At::Tunnel) || tables.is_peer(nat::frame_source(pkt)))
        && !in_cluster::<F, T>(tables, headers.tuple.src);
    if handed_over { Client::HandedOver } else { Client::Outside }
}

/// Whether the address is a pod's or a node's: its packets to services are translated, not handed over.
#[inline(always)]
fn in_cluster<F: Family, T: Tables<F>>(tables: T, addr: F::Addr) -> bool {
    matches!(F::place(tables.config(), addr), Place::Local(_) | Place::Remote(_))
        || tables.node(addr).is_some()
}

/// Whether the connection of a client outside is handed over to another node; then says how. `opens`: its packet opens it.
#[inline(always)]
pub fn hands_over<F: Family, T: Tables<F>>(
    tables: T,
    choice: &Choice<F>,
    opens: bool,
    opening: &mut Opening<F>,
) -> bool {
    if choice.service_flags & service::flags::DSR == 0 || choice.backend.flags & backend::flags::LOCAL != 0 {
        return false;
    }
    let nexthop = match F::place(tables.config(), choice.backend.addr) {
        Place::Remote(range) => tables.pod_route(range).map_or(0, |route| route.nexthop),
        Place::Outside => tables
            .node(choice.backend.addr)
            .map_or(0, |node| if node.tunnel != 0 { node.tunnel } else { node.nexthop }),
        Place::Local(_) | Place::Service => 0,
    };
    let known =
        nexthop != 0 && tables.nexthop(nexthop).is_some_and(|hop| matches!(hop.kind, KIND_L2 | KIND_TUNNEL));
    if !known || in_cluster::<F, T>(tables, opening.client.src) {
        return false;
    }
    opening.flags = flags::DSR;
    opening.unrecorded = choice.repeatable && opens;
    opening.nexthop = nexthop;
    opening.dst = opening.client.dst;
    opening.dport = opening.client.dport;
    true
}

/// A connection that another node has handed over: answers go to the client by this node's own routes.
#[inline(always)]
pub fn received<F: Wire, P: Packet, T: Tables<F>>(pkt: &P, tables: T, opening: &mut Opening<F>, at: At) {
    opening.flags |= flags::HANDED_OVER;
    if matches!(at, At::Tunnel) {
        opening.ifindex = tables.config().uplink;
        // The client's segments come through the tunnel, the answers do not.
        opening.mss = size::segment::<F>(pkt.mtu());
    }
}
