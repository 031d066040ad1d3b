//! Delivery: where a packet goes once its destination is final.

use abi::{
    Mac, Reason,
    config::features,
    route::{KIND_DROP, KIND_L2, KIND_PEER, KIND_TUNNEL, Nexthop},
};

use crate::{
    family::{Family, Place},
    forward::At,
    nat,
    packet::Packet,
    parse::Headers,
    size,
    tables::Tables,
    tunnel,
    verdict::{Packed, Verdict},
    wire::Wire,
};

/// What leads to where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum To {
    /// The next hop is a pod of this node.
    Pod,
    /// tcx, which knows the pod by the number of its next hop, in `ifindex`.
    Note,
    /// The next hop is a neighbour.
    Link,
    /// The next hop is a node on another segment.
    Tunnel,
    /// The stack's routes and neighbours, out of `ifindex`.
    Neighbour,
    /// The stack's routes.
    Stack,
    /// Nothing: there is no such pod.
    NoPod,
    /// Nothing.
    Nothing,
}

/// Where a packet goes. One shape for all ways: an enum's fields would share bytes that the verifier takes for unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What leads there.
    pub to: To,
    /// The next hop, as far as `to` says so.
    pub hop: Nexthop,
}

impl Target {
    /// A target without a next hop.
    #[inline(always)]
    pub const fn plain(to: To, ifindex: u32) -> Self {
        let none = Mac([0; 3]);
        let hop = Nexthop {
            ifindex,
            kind: 0,
            flags: 0,
            mtu: 0,
            smac: none,
            dmac: none,
            tunnel: 0,
            generation: 0,
            underlay: 0,
        };
        Self { to, hop }
    }

    /// Wherever the stack's routes lead.
    pub const STACK: Self = Self::plain(To::Stack, 0);

    /// Whether the packet leaves the node's stack aside, and so loses a hop.
    #[inline(always)]
    pub fn forwards(&self) -> bool {
        (self.to as u8) < To::Stack as u8
    }

    /// Whether this is what leads there.
    #[inline(always)]
    pub fn is(&self, to: To) -> bool {
        self.to as u8 == to as u8
    }
}

/// Finds the way to an address at `place`: by subtraction, without a search.
#[inline(always)]
pub fn to<F: Family, T: Tables<F>>(tables: T, place: Place) -> Target {
    let index = place.index();
    match place {
        Place::Local(_) => to_pod::<F, T>(tables, index),
        Place::Remote(_) => to_range::<F, T>(tables, index),
        Place::Service | Place::Outside => Target::STACK,
    }
}

/// The way to this node's pod with this index.
#[inline(always)]
pub fn to_pod<F: Family, T: Tables<F>>(tables: T, index: u32) -> Target {
    match tables.endpoint(index) {
        Some(endpoint) if endpoint.nexthop != 0 => by(tables.nexthop(endpoint.nexthop)),
        _ => Target::plain(To::NoPod, 0),
    }
}

/// The way to the node range with this index.
#[inline(always)]
pub fn to_range<F: Family, T: Tables<F>>(tables: T, index: u32) -> Target {
    match tables.pod_route(index) {
        Some(route) if route.nexthop != 0 => by(tables.nexthop(route.nexthop)),
        _ => Target::STACK,
    }
}

/// What a next hop says.
#[inline(always)]
pub fn by(nexthop: Option<Nexthop>) -> Target {
    let Some(hop) = nexthop else { return Target::STACK };
    let to = match hop.kind {
        KIND_PEER => To::Pod,
        KIND_L2 => To::Link,
        KIND_TUNNEL => To::Tunnel,
        KIND_DROP => To::Nothing,
        _ => To::Stack,
    };
    Target { to, hop }
}

/// The tunnel to a node at this address, if its node is behind one: for packets whose source only the nodes know.
#[inline(always)]
pub fn to_node<F: Family, T: Tables<F>>(tables: T, addr: F::Addr) -> Target {
    if tables.config().features & features::TUNNEL == 0 {
        return Target::STACK;
    }
    match tables.node(addr) {
        Some(node) if node.tunnel != 0 => by(tables.nexthop(node.tunnel)),
        _ => Target::STACK,
    }
}

/// Judges whether the packet can go to the target, before anything of it is changed: its size, and that it has a hop left. The
/// verdict is final unless it [`Packed::continues`]; a packet that the stack shall fragment is given to the stack.
#[inline(always)]
pub fn admit<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    target: &mut Target,
    at: At,
) -> Packed {
    if target.hop.mtu != 0 && headers.len > u32::from(target.hop.mtu) {
        let admitted = size::judge::<F, P, T>(pkt, tables, headers, target, matches!(at, At::Xdp));
        if !admitted.continues() {
            return admitted;
        }
    }
    if target.is(To::Tunnel) && tables.config().features & features::TUNNEL != 0 {
        size::clamp::<F, P>(pkt, headers, size::segment::<F>(target.hop.mtu));
    }
    Packed::CONTINUE
}

/// Sends a packet whose bytes are final on its way: writes the frame, gives the verdict. The stack gets the frame as it is.
#[inline(always)]
pub fn depart<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    target: &Target,
    vni: u32,
    at: At,
) -> Packed {
    let hop = &target.hop;
    match target.to {
        To::Pod => {
            nat::frame(pkt, hop.smac, hop.dmac);
            Verdict::Peer(hop.ifindex).into()
        }
        To::Note => Verdict::HandOff(hop.ifindex).into(),
        To::Link => {
            nat::frame(pkt, hop.smac, hop.dmac);
            let back = hop.ifindex == pkt.ifindex();
            if back { Verdict::Transmit.into() } else { Verdict::Redirect(hop.ifindex).into() }
        }
        To::Tunnel if tables.config().features & features::TUNNEL != 0 => match at {
            At::Xdp => tunnel::wrap::<F, P, T>(pkt, tables, headers, hop, vni),
            At::Tc | At::Tunnel => tunnel::enter(pkt, hop, vni),
        },
        To::Neighbour => Verdict::Neighbour(hop.ifindex).into(),
        To::Stack => Verdict::Pass.into(),
        To::NoPod => Verdict::Drop(Reason::NoPod).into(),
        To::Nothing | To::Tunnel => Verdict::Drop(Reason::Unreachable).into(),
    }
}
