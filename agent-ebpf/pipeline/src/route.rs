//! Delivery: where a packet goes once its destination is final.

use abi::{
    Mac, Reason,
    route::{KIND_DROP, KIND_L2, KIND_PEER, Nexthop},
};

use crate::{
    family::{Family, Place},
    nat,
    packet::Packet,
    tables::Tables,
    verdict::Verdict,
};

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A pod of this node: host end of its veth, frame addresses.
    Pod(u32, Mac, Mac),
    /// A neighbour: interface, frame addresses.
    Link(u32, Mac, Mac),
    /// Wherever the stack's routes lead.
    Stack,
    /// Nowhere.
    Nowhere(Reason),
}

/// Finds the way to an address at `place`: by subtraction, without a search.
#[inline(always)]
pub fn to<F: Family, T: Tables<F>>(tables: T, place: Place) -> Target {
    match place {
        Place::Local(index) => match tables.endpoint(index) {
            Some(endpoint) if endpoint.nexthop != 0 => by(tables.nexthop(endpoint.nexthop)),
            _ => Target::Nowhere(Reason::NoPod),
        },
        Place::Remote(range) => match tables.pod_route(range) {
            Some(route) if route.nexthop != 0 => by(tables.nexthop(route.nexthop)),
            _ => Target::Stack,
        },
        Place::Service | Place::Outside => Target::Stack,
    }
}

/// What a next hop says.
#[inline(always)]
pub fn by(nexthop: Option<Nexthop>) -> Target {
    match nexthop {
        Some(n) if n.kind == KIND_PEER => Target::Pod(n.ifindex, n.smac, n.dmac),
        Some(n) if n.kind == KIND_L2 => Target::Link(n.ifindex, n.smac, n.dmac),
        Some(n) if n.kind == KIND_DROP => Target::Nowhere(Reason::Unreachable),
        _ => Target::Stack,
    }
}

/// Writes the frame's addresses for the target and gives the verdict. The stack gets the frame as it is.
#[inline(always)]
pub fn depart<P: Packet>(pkt: &mut P, target: Target) -> Verdict {
    match target {
        Target::Pod(ifindex, smac, dmac) => {
            nat::frame(pkt, smac, dmac);
            Verdict::Peer(ifindex)
        }
        Target::Link(ifindex, smac, dmac) => {
            nat::frame(pkt, smac, dmac);
            if ifindex == pkt.ifindex() { Verdict::Transmit } else { Verdict::Redirect(ifindex) }
        }
        Target::Stack => Verdict::Pass,
        Target::Nowhere(reason) => Verdict::Drop(reason),
    }
}
