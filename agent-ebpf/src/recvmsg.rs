//! `recvmsg` and `recvfrom`: a datagram from a backend gets the service address back that the application used.

use abi::Ip6;
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use pipeline::socket::recall;

use crate::ctx::{ALLOW, SockAddr};

#[cgroup_sock_addr(recvmsg4)]
fn cg_recvmsg4(ctx: SockAddrContext) -> i32 {
    four(&mut SockAddr::new(ctx))
}

#[cgroup_sock_addr(recvmsg6)]
fn cg_recvmsg6(ctx: SockAddrContext) -> i32 {
    six(&mut SockAddr::new(ctx))
}

/// Replaces the call's IPv4 address if it is a backend that the socket reached through a service.
#[inline(always)]
pub fn four(call: &mut SockAddr) -> i32 {
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
pub fn six(call: &mut SockAddr) -> i32 {
    let (addr, port) = (call.ip6(), call.port());
    if let Some((addr, port)) = call.reverse().and_then(|reverse| recall(reverse, addr, port)) {
        call.set6(addr, port);
    }
    ALLOW
}
