//! What several hooks do with a packet: open a flow for a service's new client, and send a translated packet on.

use abi::{
    Reason, backend,
    config::features,
    flow::{FlowState, KIND_FORWARD, flags},
    frontend::Frontend,
    route::{VNI_PODS, VNI_SERVICES, seen},
    service::flags as service_flags,
};

use crate::{
    affinity::Origin,
    family::{Backend, Family, Place},
    flow::{self, Opening},
    handover, nat,
    packet::Packet,
    parse::{self, Headers},
    pod,
    reject::reject,
    route::{self, Target, To},
    service::{self, Choice, Client, Lookup, Reach},
    size,
    tables::{Scratch, Tables},
    verdict::{Packed, Verdict},
    wire::Wire,
};

/// The hook that a packet is at, as far as delivery differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// XDP: pods are reached by passing the packet on to tcx.
    Xdp,
    /// tcx of a pod's veth or of an uplink.
    Tc,
    /// tcx of the VXLAN device.
    Tunnel,
}

/// Looks for a service at the destination of the scratch room's packet and opens the flow of a new connection to it: the
/// forward entry is then in the scratch room.
///
/// Ends the packet otherwise: with a pass if the address is no service's, a rejection if nothing serves there, a drop
/// if policy or lack of room forbids the connection.
#[inline(always)]
pub fn balance<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    client: Client,
    scratch: &mut Scratch<F>,
    at: At,
) -> Packed {
    let chosen = choose::<F, P, T>(pkt, tables, client, scratch, at);
    // Here and not there: what makes the answer needs most of the stack.
    if let Some(reason) = chosen.rejected() {
        return reject::<F, P, T>(pkt, tables, &scratch.headers, reason);
    }
    if !chosen.continues() {
        return chosen;
    }
    match flow::open::<F, T>(tables, scratch) {
        Ok(()) => {
            if begins(scratch) {
                tables.count(scratch.opening.service, |c| c.flows = c.flows.wrapping_add(1));
            }
            if scratch.opening.flags & flags::COUNTED != 0 {
                tables.count_flow(scratch.opening.backend);
            }
            Packed::CONTINUE
        }
        Err(reason) => Verdict::Drop(reason).into(),
    }
}

/// Whether the packet is to be counted as a new flow. A connection that is handed over is counted when it is opened; its entry comes later.
#[inline(always)]
fn begins<F: Family>(scratch: &Scratch<F>) -> bool {
    let handed_over = scratch.opening.flags & flags::DSR != 0;
    !handed_over || !scratch.headers.connected() || scratch.headers.opens()
}

/// The first half of [`balance`]: fills the scratch room's opening.
#[inline(never)]
fn choose<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &P,
    tables: T,
    client: Client,
    scratch: &mut Scratch<F>,
    at: At,
) -> Packed {
    let Scratch { headers, opening, .. } = scratch;
    let tuple = &headers.tuple;
    let place = F::place(tables.config(), tuple.dst);
    let reach = if client as u8 == Client::HandedOver as u8 { Reach::AnyNode } else { Reach::Own };
    let outcome = match service::lookup::<F, T>(tables, place, tuple.dst, tuple.dport, tuple.proto, reach) {
        Lookup::NotOurs if masquerades::<F, T>(tables, headers, place, client) => {
            masquerade(pkt, tables, headers, opening);
            Ok(())
        }
        Lookup::NotOurs => return Verdict::Pass.into(),
        Lookup::Unserved => Err(Reason::NoService),
        Lookup::Unallocated => return Verdict::Drop(Reason::NoService).into(),
        Lookup::Found(frontend) => select::<F, P, T>(pkt, tables, headers, frontend, client, opening, at),
    };
    match outcome {
        Ok(()) => Packed::CONTINUE,
        Err(reason) if matches!(reason, Reason::NoService | Reason::NoEndpoint) => Packed::reject(reason),
        Err(reason) => Verdict::Drop(reason).into(),
    }
}

/// Whether a packet opens a pod's connection to an address outside the cluster. Nodes know the way back to pods and see
/// their addresses. A TCP packet that opens nothing belongs to a flow that is gone: a new source port would not revive it.
#[inline(always)]
fn masquerades<F: Family, T: Tables<F>>(
    tables: T,
    headers: &Headers<F::Addr>,
    place: Place,
    client: Client,
) -> bool {
    let config = tables.config();
    let dst = headers.tuple.dst;
    let opens = !headers.connected() || headers.opens();
    config.features & features::MASQUERADE != 0
        && matches!(client, Client::OnNode)
        && matches!(place, Place::Outside)
        && opens
        && dst != F::hairpin(config)
        && !F::is_loopback(dst)
        && tables.node(dst).is_none()
}

/// A connection to the outside: this node's address instead of the pod's.
#[inline(always)]
fn masquerade<F: Family, P: Packet, T: Tables<F>>(
    pkt: &P,
    tables: T,
    headers: &Headers<F::Addr>,
    opening: &mut Opening<F>,
) {
    opening.client = headers.tuple;
    opening.src = F::snat(tables.config());
    opening.dst = headers.tuple.dst;
    opening.dport = headers.tuple.dport;
    // No service and no backend have these numbers: nothing is counted, and their generation is always zero.
    opening.service = u32::MAX;
    opening.backend = u32::MAX;
    opening.generation = 0;
    opening.flags = flags::SNAT;
    opening.nexthop = 0;
    opening.ifindex = pkt.ifindex();
    opening.mac = nat::frame_source(pkt);
    opening.tcp = headers.tcp;
    opening.mss = 0;
    opening.unrecorded = false;
}

/// A pod's packet that is no service's goes to the stack, or to a node behind a tunnel: routers in between do not know the pod.
#[inline(never)]
pub fn to_node<F: Wire, P: Packet, T: Tables<F>>(pkt: &mut P, tables: T, scratch: &mut Scratch<F>) -> Packed {
    let target = route::to_node::<F, T>(tables, scratch.headers.tuple.dst);
    if target.is(To::Tunnel) && scratch.headers.ttl > 1 {
        pod::untranslated::<F, P, T>(pkt, tables, &scratch.headers, target)
    } else {
        Verdict::Pass.into()
    }
}

/// Chooses a backend and says what the connection to it will look like.
#[inline(always)]
fn select<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &P,
    tables: T,
    headers: &Headers<F::Addr>,
    frontend: Frontend,
    client: Client,
    opening: &mut Opening<F>,
    at: At,
) -> Result<(), Reason> {
    if !service::admits::<F, T>(tables, frontend, headers.tuple.src) {
        return Err(Reason::SourceRange);
    }
    let choice = match service::select::<F, T>(tables, frontend, client, Origin::Packet(headers.tuple)) {
        Ok(choice) => choice,
        Err(reason) => {
            tables.count(frontend.service, |c| c.rejected = c.rejected.wrapping_add(1));
            return Err(reason);
        }
    };
    prepare(pkt, tables, headers, frontend, &choice, opening);
    match client {
        Client::OnNode => from_pod::<F, T>(tables, &choice, opening),
        Client::HandedOver => handover::received::<F, P, T>(pkt, tables, opening, at),
        Client::Outside if handover::hands_over::<F, T>(tables, &choice, headers.opens(), opening) => {}
        Client::Outside => from_outside::<F, T>(tables, &choice, opening, at),
    }
    Ok(())
}

/// A pod's own connection: only the destination changes, unless the pod is its own backend or the backend is outside the
/// cluster.
#[inline(always)]
fn from_pod<F: Family, T: Tables<F>>(tables: T, choice: &Choice<F>, opening: &mut Opening<F>) {
    let config = tables.config();
    if let Place::Local(index) = F::place(config, opening.client.src) {
        tables.mark_seen(index, seen::STATEFUL);
    }
    if choice.backend.addr == opening.client.src {
        opening.src = F::hairpin(config);
        opening.flags |= flags::HAIRPIN;
    } else if config.features & features::MASQUERADE != 0
        && choice.backend.flags & backend::flags::HOST == 0
        && matches!(F::place(config, choice.backend.addr), Place::Outside)
    {
        opening.src = F::snat(config);
        opening.flags |= flags::SNAT;
    } else if config.features & features::TUNNEL != 0 && is_on_other_node(&choice.backend) {
        // A node's own process: routers in between know the node, but not the pod.
        let tunnel = tables.node(choice.backend.addr).map_or(0, |node| node.tunnel);
        if tunnel != 0 {
            opening.nexthop = tunnel;
        }
    }
}

/// A connection from outside: the client keeps its address towards backends on this node, whose replies pass here
/// anyway; towards others it gets this node's.
#[inline(always)]
fn from_outside<F: Family, T: Tables<F>>(tables: T, choice: &Choice<F>, opening: &mut Opening<F>, at: At) {
    let config = tables.config();
    if !matches!(at, At::Tunnel) {
        opening.flags |= flags::REFLECT;
    }
    match F::place(config, choice.backend.addr) {
        Place::Local(index) => {
            if matches!(F::place(config, opening.client.src), Place::Remote(_) | Place::Local(_)) {
                tables.mark_seen(index, seen::STATEFUL);
            }
        }
        _ if opening.flags & flags::STACK != 0 => {}
        _ => {
            opening.src = F::snat(config);
            opening.flags |= flags::SNAT;
        }
    }
}

/// Whether the backend is in another node's own network namespace.
#[inline(always)]
const fn is_on_other_node<F: Family>(backend: &Backend<F>) -> bool {
    backend.flags & (backend::flags::LOCAL | backend::flags::HOST) == backend::flags::HOST
}

/// Backends in this node's own network namespace are reached through the stack.
#[inline(always)]
fn host_flags<F: Family>(backend: &Backend<F>) -> u16 {
    let both = backend::flags::LOCAL | backend::flags::HOST;
    if backend.flags & both == both { flags::STACK } else { 0 }
}

/// Least connections goes by the number of pairs.
#[inline(always)]
const fn counted(service: u32) -> u16 {
    if service & service_flags::LEAST_CONNECTIONS != 0 { flags::COUNTED } else { 0 }
}

/// What is the same for all clients. Field by field: a whole value would be put together on the stack first.
#[inline(always)]
fn prepare<F: Family, P: Packet, T: Tables<F>>(
    pkt: &P,
    tables: T,
    headers: &Headers<F::Addr>,
    frontend: Frontend,
    choice: &Choice<F>,
    opening: &mut Opening<F>,
) {
    let backend = &choice.backend;
    // Nodes are few and irregular: their next hop is looked up once and kept in the flow.
    let remote_host = is_on_other_node(backend);
    opening.client = headers.tuple;
    opening.src = headers.tuple.src;
    opening.dst = backend.addr;
    opening.dport = backend.port;
    opening.service = frontend.service;
    opening.backend = choice.index;
    opening.generation = backend.generation;
    opening.flags = host_flags(backend) | counted(choice.service_flags);
    opening.nexthop = if remote_host { tables.node(backend.addr).map_or(0, |node| node.nexthop) } else { 0 };
    opening.ifindex = pkt.ifindex();
    opening.mac = nat::frame_source(pkt);
    opening.tcp = headers.tcp;
    opening.mss = 0;
    opening.unrecorded = false;
}

/// Sends the scratch room's packet on as its flow entry says: finds the way, translates, writes the frame.
#[inline(never)]
pub fn send<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    scratch: &mut Scratch<F>,
    at: At,
) -> Packed {
    parse::remember_fragment::<F, T>(tables, &scratch.headers);
    let admitted = set_out::<F, P, T>(pkt, tables, scratch, at);
    if !admitted.continues() {
        return admitted;
    }
    let Scratch { headers, flow, target, .. } = scratch;
    let state = F::flow_parts(flow).2;
    if state.flags & flags::DSR == 0 {
        size::clamp::<F, P>(pkt, headers, state.mss);
        nat::translate::<F, P>(pkt, headers, flow, target.forwards());
    }
    route::depart::<F, P, T>(pkt, tables, headers, target, vni(state), at)
}

/// Finds the way of the scratch room's packet by its flow entry, and judges whether it can go there: see [`route::admit`]. A packet
/// that does not go to the stack needs a hop to lose, unless another node will do with it what would be done here.
#[inline(always)]
pub fn set_out<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    scratch: &mut Scratch<F>,
    at: At,
) -> Packed {
    way::<F, P, T>(pkt, tables, scratch, at);
    let Scratch { headers, flow, target, .. } = scratch;
    let ends = headers.ttl <= 1 && F::flow_parts(flow).2.flags & flags::DSR == 0;
    if ends && target.forwards() {
        return Verdict::Drop(Reason::HopLimit).into();
    }
    route::admit::<F, P, T>(pkt, tables, headers, target, at)
}

/// In which of a tunnel's networks the flow's packets travel.
#[inline(always)]
pub const fn vni(state: &FlowState) -> u32 {
    if state.flags & flags::DSR != 0 { VNI_SERVICES } else { VNI_PODS }
}

/// Finds where the scratch room's packet goes by its flow entry, and notes it there.
#[inline(never)]
pub fn way<F: Family, P: Packet, T: Tables<F>>(pkt: &P, tables: T, scratch: &mut Scratch<F>, at: At) {
    scratch.target = find::<F, P, T>(pkt, tables, scratch, at);
}

#[inline(always)]
fn find<F: Family, P: Packet, T: Tables<F>>(pkt: &P, tables: T, scratch: &Scratch<F>, at: At) -> Target {
    let config = tables.config();
    let (_, dst, state) = F::flow_parts(&scratch.flow);
    let forward = state.kind == KIND_FORWARD;
    if forward && state.flags & flags::STACK != 0 {
        return Target::STACK;
    }
    let xdp = matches!(at, At::Xdp);
    let place = F::place(config, dst);
    if let Place::Local(index) = place
        && xdp
    {
        // The frame is made at tcx: GRO runs in between.
        return match tables.endpoint(index) {
            Some(pod) if pod.nexthop == 0 => Target::plain(To::NoPod, 0),
            Some(pod) if config.features & features::METADATA != 0 => Target::plain(To::Note, pod.nexthop),
            _ => Target::STACK,
        };
    }
    let target = if forward && state.nexthop != 0 {
        route::by(tables.nexthop(state.nexthop))
    } else {
        route::to::<F, T>(tables, place)
    };
    if !target.is(To::Stack) {
        return target;
    }
    if state.flags & flags::DSR != 0 {
        // As it is, the packet would come back, or be taken for one to this node.
        Target::plain(To::Nothing, 0)
    } else if xdp {
        reflected(pkt, state, forward)
    } else if state.flags & (flags::REFLECT | flags::HANDED_OVER) != 0 {
        Target::plain(To::Neighbour, state.peer_ifindex)
    } else if forward && state.flags & flags::SNAT != 0 {
        // The stack would take this node's address in a packet from elsewhere for a forgery.
        Target::plain(To::Neighbour, config.uplink)
    } else {
        target
    }
}

/// XDP knows no neighbours, but where a request came from.
#[inline(always)]
fn reflected<P: Packet>(pkt: &P, state: &FlowState, forward: bool) -> Target {
    if forward || state.flags & flags::REFLECT == 0 {
        return Target::STACK;
    }
    let mut target = Target::plain(To::Link, state.peer_ifindex);
    target.hop.smac = nat::frame_destination(pkt);
    target.hop.dmac = state.peer_mac;
    target
}
