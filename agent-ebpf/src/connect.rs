//! `connect`: a service address becomes a backend's; with no endpoint the call is refused at once.

use abi::{Ip6, config::features, socket::ReversePair};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use pipeline::{
    Common as _, V4, V6,
    socket::{Outcome, balance, remember},
};

use crate::{
    ctx::{ALLOW, SockAddr},
    maps::Maps,
};

/// `ECONNREFUSED` (`include/uapi/asm-generic/errno.h`).
const ECONNREFUSED: i32 = 111;
/// `EHOSTUNREACH`.
const EHOSTUNREACH: i32 = 113;

#[cgroup_sock_addr(connect4)]
fn cg_connect4(ctx: SockAddrContext) -> i32 {
    four(&mut SockAddr::new(ctx), Maps.config().features & features::PEER_NAME != 0)
}

#[cgroup_sock_addr(connect6)]
fn cg_connect6(ctx: SockAddrContext) -> i32 {
    six(&mut SockAddr::new(ctx), Maps.config().features & features::PEER_NAME != 0)
}

/// Balances an IPv4 call; remembers what the backend stands for if `reverse`.
#[inline(always)]
pub fn four(call: &mut SockAddr, reverse: bool) -> i32 {
    let (addr, port) = (call.ip4(), call.port());
    match balance::<V4, _>(Maps, addr, port, call.proto(), call.on_host()) {
        Outcome::Leave => ALLOW,
        Outcome::Use(backend, service) => {
            call.set4(backend.addr, backend.port);
            if reverse {
                let (backend, backend_port) = (Ip6::mapped(backend.addr), backend.port);
                note(
                    call,
                    ReversePair {
                        backend,
                        frontend: Ip6::mapped(addr),
                        backend_port,
                        frontend_port: port,
                        service,
                    },
                );
            }
            ALLOW
        }
        Outcome::Refuse => call.fail(ECONNREFUSED),
        Outcome::Unreachable => call.fail(EHOSTUNREACH),
    }
}

/// Balances an IPv6 call, which may carry a v4-mapped address.
#[inline(always)]
pub fn six(call: &mut SockAddr, reverse: bool) -> i32 {
    let (addr, port) = (call.ip6(), call.port());
    let (backend, backend_port, service) = match addr.as_mapped() {
        Some(mapped) => match balance::<V4, _>(Maps, mapped, port, call.proto(), call.on_host()) {
            Outcome::Leave => return ALLOW,
            Outcome::Use(backend, service) => (Ip6::mapped(backend.addr), backend.port, service),
            Outcome::Refuse => return call.fail(ECONNREFUSED),
            Outcome::Unreachable => return call.fail(EHOSTUNREACH),
        },
        None => match balance::<V6, _>(Maps, addr, port, call.proto(), call.on_host()) {
            Outcome::Leave => return ALLOW,
            Outcome::Use(backend, service) => (backend.addr, backend.port, service),
            Outcome::Refuse => return call.fail(ECONNREFUSED),
            Outcome::Unreachable => return call.fail(EHOSTUNREACH),
        },
    };
    call.set6(backend, backend_port);
    if reverse {
        note(call, ReversePair { backend, frontend: addr, backend_port, frontend_port: port, service });
    }
    ALLOW
}

#[inline(always)]
fn note(call: &mut SockAddr, pair: ReversePair) {
    if let Some(reverse) = call.reverse_or_new() {
        remember(reverse, pair);
    }
}
