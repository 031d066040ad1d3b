//! What several hooks do with a packet: open a flow for a service's new client, and send a translated packet on.

use core::ops::ControlFlow::{Break, Continue};

use abi::{
    Proto, Reason, backend,
    config::features,
    flow::{FlowState, flags},
    frontend::Frontend,
    route::seen,
    service::flags as service_flags,
};

use crate::{
    affinity::Origin,
    family::{Backend, Family, Place},
    flow::{self, Opening},
    nat,
    packet::Packet,
    parse::{self, Headers},
    reject::reject,
    route::{self, Target},
    service::{self, Choice, Client, Lookup, Reach},
    tables::{Scratch, Tables},
    verdict::{Packed, Step, Verdict, drop},
    wire::Wire,
};

/// The hook that a packet is at, as far as delivery differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// XDP: pods are reached by passing the packet on to tcx.
    Xdp,
    /// tcx.
    Tc,
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
) -> Step<()> {
    Step::from(choose::<F, P, T>(pkt, tables, client, scratch))?;
    match flow::open::<F, T>(tables, scratch) {
        Ok(()) => {
            tables.count(scratch.opening.service, |c| c.flows = c.flows.wrapping_add(1));
            if scratch.opening.flags & flags::COUNTED != 0 {
                tables.count_flow(scratch.opening.backend);
            }
            Continue(())
        }
        Err(reason) => drop(reason),
    }
}

/// The first half of [`balance`]: fills the scratch room's opening.
#[inline(never)]
fn choose<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    client: Client,
    scratch: &mut Scratch<F>,
) -> Packed {
    let Scratch { headers, opening, .. } = scratch;
    let tuple = &headers.tuple;
    let place = F::place(tables.config(), tuple.dst);
    let outcome =
        match service::lookup::<F, T>(tables, place, tuple.dst, tuple.dport, tuple.proto, Reach::Own) {
            Lookup::NotOurs if masquerades::<F, T>(tables, headers, place, client) => {
                masquerade(pkt, tables, headers, opening);
                Ok(())
            }
            Lookup::NotOurs => return Verdict::Pass.into(),
            Lookup::Unserved => Err(Reason::NoService),
            Lookup::Unallocated => return Verdict::Drop(Reason::NoService).into(),
            Lookup::Found(frontend) => select::<F, P, T>(pkt, tables, headers, frontend, client, opening),
        };
    let step = match outcome {
        Ok(()) => Continue(()),
        Err(reason) if matches!(reason, Reason::NoService | Reason::NoEndpoint) => {
            Break(reject::<F, P, T>(pkt, tables, headers, reason))
        }
        Err(reason) => Break(Verdict::Drop(reason)),
    };
    step.into()
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
    let opens = headers.tuple.proto != Proto::TCP || headers.opens();
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
}

/// Chooses a backend and says what the connection to it will look like.
#[inline(always)]
fn select<F: Family, P: Packet, T: Tables<F>>(
    pkt: &P,
    tables: T,
    headers: &Headers<F::Addr>,
    frontend: Frontend,
    client: Client,
    opening: &mut Opening<F>,
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
        Client::Outside | Client::HandedOver => from_outside::<F, T>(tables, &choice, opening),
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
    }
}

/// A connection from outside: the client keeps its address towards backends on this node, whose replies pass here
/// anyway; towards others it gets this node's.
#[inline(always)]
fn from_outside<F: Family, T: Tables<F>>(tables: T, choice: &Choice<F>, opening: &mut Opening<F>) {
    let config = tables.config();
    opening.flags |= flags::REFLECT;
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
    let remote_host = backend.flags & (backend::flags::LOCAL | backend::flags::HOST) == backend::flags::HOST;
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
}

/// Sends the scratch room's packet on as its flow entry says: finds the way, writes the frame, translates.
#[inline(never)]
pub fn send<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    scratch: &Scratch<F>,
    at: At,
) -> Packed {
    let Scratch { headers, flow, .. } = scratch;
    parse::remember_fragment::<F, T>(tables, headers);
    let verdict = depart::<F, P, T>(pkt, tables, scratch, at);
    if !verdict.drops() {
        nat::translate::<F, P>(pkt, headers, flow, !verdict.passes());
    }
    verdict
}

/// Finds the way of the scratch room's packet by its flow entry and writes the frame's addresses. A packet that does not
/// go to the stack loses a hop, which it must have.
#[inline(always)]
pub fn depart<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    scratch: &Scratch<F>,
    at: At,
) -> Packed {
    let (_, dst, state) = F::flow_parts(&scratch.flow);
    let verdict: Packed = way::<F, P, T>(pkt, tables, F::place(tables.config(), dst), state, at).into();
    if scratch.headers.ttl <= 1 && !verdict.passes() {
        Verdict::Drop(Reason::HopLimit).into()
    } else {
        verdict
    }
}

/// The verdict for a translated packet whose destination lies at `place`, with the frame's addresses written.
#[inline(always)]
fn way<F: Family, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    place: Place,
    state: &FlowState,
    at: At,
) -> Verdict {
    let forward = state.kind == abi::flow::KIND_FORWARD;
    if forward && state.flags & flags::STACK != 0 {
        return Verdict::Pass;
    }
    let target = if forward && state.nexthop != 0 {
        route::by(tables.nexthop(state.nexthop))
    } else {
        route::to::<F, T>(tables, place)
    };
    match (target, at) {
        // tcx finds the pod by its address, which is final by then; GRO has run in between.
        (Target::Pod(..), At::Xdp) => Verdict::Pass,
        (Target::Stack, At::Xdp) if !forward && state.flags & flags::REFLECT != 0 => {
            nat::frame_answer(pkt, state.peer_mac);
            let back = state.peer_ifindex;
            if back == pkt.ifindex() { Verdict::Transmit } else { Verdict::Redirect(back) }
        }
        (Target::Stack, At::Tc) if state.flags & flags::REFLECT != 0 => {
            Verdict::Neighbour(state.peer_ifindex)
        }
        // The stack would take this node's address in a packet from elsewhere for a forgery.
        (Target::Stack, At::Tc) if forward && state.flags & flags::SNAT != 0 => {
            Verdict::Neighbour(tables.config().uplink)
        }
        _ => route::depart(pkt, target),
    }
}
