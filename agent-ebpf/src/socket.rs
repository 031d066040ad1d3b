//! What the socket hooks share: a call's service address becomes a backend's, a backend's becomes the service's again.
//!
//! The decisions are `pipeline::socket`'s; this file carries them out on a call.

use abi::{
    Ip6, Port, Proto,
    config::features,
    service::flags::LEAST_CONNECTIONS,
    socket::{ReversePair, pair_flags},
};
use pipeline::{
    Common as _, Family, Tables, V4, V6,
    service::Choice,
    socket::{Outcome, balance, kept, lasts, recall, remember, stands_for},
};

use crate::{
    ctx::{ALLOW, SockAddr},
    maps::{Maps, Slot},
};

/// `ECONNREFUSED` (`include/uapi/asm-generic/errno.h`).
const ECONNREFUSED: i32 = 111;
/// `EHOSTUNREACH`.
const EHOSTUNREACH: i32 = 113;

/// What a hook does besides balancing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// `connect`: remembers the peer for `getpeername` if the node wants it.
    Connects,
    /// `sendmsg`: keeps the backend of earlier datagrams, and remembers it for `recvmsg`.
    Sends,
}

/// Balances an IPv4 call.
#[inline(always)]
pub fn four(call: &mut SockAddr, socket: Socket) -> i32 {
    let (addr, port) = (call.ip4(), call.port());
    let frontend = Ip6::mapped(addr);
    if let Some((backend, port)) = before::<V4>(call, socket, frontend, port)
        && let Some(backend) = backend.as_mapped()
    {
        call.set4(backend, port);
        return ALLOW;
    }
    match balance::<V4, _>(Maps, addr, port, call.proto(), call.netns()) {
        Outcome::Leave => ALLOW,
        Outcome::Use(choice) => {
            call.set4(choice.backend.addr, choice.backend.port);
            note(call, socket, pair(&choice, Ip6::mapped(choice.backend.addr), frontend, port));
            ALLOW
        }
        Outcome::Refuse => call.fail(ECONNREFUSED),
        Outcome::Unreachable => call.fail(EHOSTUNREACH),
    }
}

/// Balances an IPv6 call, which may carry a v4-mapped address.
#[inline(always)]
pub fn six(call: &mut SockAddr, socket: Socket) -> i32 {
    let (addr, port) = (call.ip6(), call.port());
    let known = match addr.as_mapped() {
        Some(_) => before::<V4>(call, socket, addr, port),
        None => before::<V6>(call, socket, addr, port),
    };
    if let Some((backend, port)) = known {
        call.set6(backend, port);
        return ALLOW;
    }
    let chosen = match addr.as_mapped() {
        Some(mapped) => match balance::<V4, _>(Maps, mapped, port, call.proto(), call.netns()) {
            Outcome::Leave => return ALLOW,
            Outcome::Use(choice) => pair(&choice, Ip6::mapped(choice.backend.addr), addr, port),
            Outcome::Refuse => return call.fail(ECONNREFUSED),
            Outcome::Unreachable => return call.fail(EHOSTUNREACH),
        },
        None => match balance::<V6, _>(Maps, addr, port, call.proto(), call.netns()) {
            Outcome::Leave => return ALLOW,
            Outcome::Use(choice) => pair(&choice, choice.backend.addr, addr, port),
            Outcome::Refuse => return call.fail(ECONNREFUSED),
            Outcome::Unreachable => return call.fail(EHOSTUNREACH),
        },
    };
    call.set6(chosen.backend, chosen.backend_port);
    note(call, socket, chosen);
    ALLOW
}

/// The backend that the socket's earlier datagrams to the service address went to.
#[inline(always)]
fn before<F: Family>(call: &mut SockAddr, socket: Socket, frontend: Ip6, port: Port) -> Option<(Ip6, Port)>
where
    Maps: Tables<F>,
{
    if socket == Socket::Connects {
        return None;
    }
    if let Some(pair) = Slot::of(call.cookie())?.pair() {
        let known = lasts::<F, _>(Maps, pair, frontend, port);
        if known.is_some() {
            return known;
        }
    }
    kept::<F, _>(Maps, call.reverse()?, frontend, port)
}

#[inline(always)]
fn pair<F: Family>(choice: &Choice<F>, backend: Ip6, frontend: Ip6, frontend_port: Port) -> ReversePair {
    let (backend_port, generation) = (choice.backend.port, choice.backend.generation);
    let mut flags = if F::IPV6 { pair_flags::IPV6 } else { 0 };
    if choice.service_flags & LEAST_CONNECTIONS != 0 {
        flags |= pair_flags::COUNTED;
    }
    ReversePair {
        backend,
        frontend,
        backend_port,
        frontend_port,
        index: choice.index,
        generation,
        flags,
        _pad: [0; 2],
    }
}

/// Writes down what the socket's new peer stands for, as far as anybody may ask.
#[inline(always)]
fn note(call: &mut SockAddr, socket: Socket, mut pair: ReversePair) {
    if socket == Socket::Sends {
        // Of datagrams nobody knows when they have been the last.
        pair.flags &= !pair_flags::COUNTED;
        note_destination(call, pair);
        return;
    }
    if call.proto() != Proto::TCP {
        pair.flags &= !pair_flags::COUNTED;
    }
    if pair.flags & pair_flags::COUNTED != 0 || Maps.config().features & features::PEER_NAME != 0 {
        note_peer(call, pair);
    }
}

/// The first destination of a socket goes to its slot, others to its storage.
#[inline(always)]
fn note_destination(call: &mut SockAddr, pair: ReversePair) {
    if let Some(slot) = Slot::of(call.cookie()) {
        let claimed = slot.claim();
        if let Some(place) = slot.pair()
            && (claimed || stands_for(place, pair.backend, pair.backend_port).is_some())
        {
            *place = pair;
            return;
        }
    }
    if let Some(reverse) = call.reverse_or_new() {
        remember(reverse, pair);
    }
}

/// A connected socket's pair goes to its slot, or to the socket's storage if the slot is another's.
#[inline(always)]
fn note_peer(call: &mut SockAddr, pair: ReversePair) {
    let Some(slot) = Slot::of(call.cookie()) else { return };
    let claimed = slot.claim();
    let place = match slot.pair() {
        Some(place) => place,
        None => match call.reverse_or_new() {
            Some(reverse) => &mut reverse.pairs[0],
            None => return,
        },
    };
    if !claimed {
        // Connected before, or fresh storage, which is zero.
        uncount(place);
    }
    count(&pair, false);
    *place = pair;
}

/// Takes a counted pair's connection off its backend, unless the index has gone to another backend since.
#[inline(always)]
pub fn uncount(pair: &mut ReversePair) {
    count(pair, true);
    pair.flags &= !pair_flags::COUNTED;
}

#[inline(always)]
fn count(pair: &ReversePair, closed: bool) {
    if pair.flags & pair_flags::COUNTED == 0 {
        return;
    }
    if pair.flags & pair_flags::IPV6 != 0 {
        count_of::<V6>(pair, closed);
    } else {
        count_of::<V4>(pair, closed);
    }
}

#[inline(always)]
fn count_of<F: Family>(pair: &ReversePair, closed: bool)
where
    Maps: Tables<F>,
{
    if <Maps as Tables<F>>::generation(&Maps, pair.index) == pair.generation {
        <Maps as Tables<F>>::count_socket(&Maps, pair.index, closed);
    }
}

/// The service address that the call's address stands for.
#[inline(always)]
fn original(call: &mut SockAddr, addr: Ip6, port: Port) -> Option<(Ip6, Port)> {
    if let Some(pair) = Slot::of(call.cookie())?.pair() {
        let peer = stands_for(pair, addr, port);
        if peer.is_some() {
            return peer;
        }
    }
    call.reverse().and_then(|reverse| recall(reverse, addr, port))
}

/// Replaces the call's IPv4 address if it is a backend that the socket reached through a service.
#[inline(always)]
pub fn restore4(call: &mut SockAddr) -> i32 {
    let (addr, port) = (Ip6::mapped(call.ip4()), call.port());
    if let Some((addr, port)) = original(call, addr, port)
        && let Some(addr) = addr.as_mapped()
    {
        call.set4(addr, port);
    }
    ALLOW
}

/// Replaces the call's IPv6 address if it is a backend that the socket reached through a service.
#[inline(always)]
pub fn restore6(call: &mut SockAddr) -> i32 {
    let (addr, port) = (call.ip6(), call.port());
    if let Some((addr, port)) = original(call, addr, port) {
        call.set6(addr, port);
    }
    ALLOW
}
