//! `getpeername`: the peer's name is the service address that the application connected to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ctx::SockAddr,
    recvmsg::{four, six},
};

#[cgroup_sock_addr(getpeername4)]
fn cg_getpeername4(ctx: SockAddrContext) -> i32 {
    four(&mut SockAddr::new(ctx))
}

#[cgroup_sock_addr(getpeername6)]
fn cg_getpeername6(ctx: SockAddrContext) -> i32 {
    six(&mut SockAddr::new(ctx))
}
