//! What the socket hooks share: a call's service address becomes a backend's, a backend's becomes the service's again.
//!
//! The decisions are `pipeline::socket`'s; this file carries them out on a call.

use abi::{Ip6, Port, config::features, socket::ReversePair};
use pipeline::{
    Common as _, Family, Tables, V4, V6,
    service::Choice,
    socket::{Outcome, balance, kept, recall, remember},
};

use crate::{
    ctx::{ALLOW, SockAddr},
    maps::Maps,
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
    match socket {
        Socket::Connects => None,
        Socket::Sends => kept::<F, _>(Maps, call.reverse()?, frontend, port),
    }
}

#[inline(always)]
fn pair<F: Family>(choice: &Choice<F>, backend: Ip6, frontend: Ip6, frontend_port: Port) -> ReversePair {
    let (backend_port, generation) = (choice.backend.port, choice.backend.generation);
    ReversePair {
        backend,
        frontend,
        backend_port,
        frontend_port,
        index: choice.index,
        generation,
        flags: 0,
        _pad: [0; 2],
    }
}

#[inline(always)]
fn note(call: &mut SockAddr, socket: Socket, pair: ReversePair) {
    let wanted = socket == Socket::Sends || Maps.config().features & features::PEER_NAME != 0;
    if wanted && let Some(reverse) = call.reverse_or_new() {
        remember(reverse, pair);
    }
}

/// Replaces the call's IPv4 address if it is a backend that the socket reached through a service.
#[inline(always)]
pub fn restore4(call: &mut SockAddr) -> i32 {
    let (addr, port) = (Ip6::mapped(call.ip4()), call.port());
    let frontend = call.reverse().and_then(|reverse| recall(reverse, addr, port));
    if let Some((addr, port)) = frontend
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
    if let Some((addr, port)) = call.reverse().and_then(|reverse| recall(reverse, addr, port)) {
        call.set6(addr, port);
    }
    ALLOW
}
