//! `getpeername`: the peer's name is the service address that the application connected to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ctx::SockAddr,
    socket::{restore4, restore6},
};

#[cgroup_sock_addr(getpeername4)]
fn cg_getpeername4(ctx: SockAddrContext) -> i32 {
    restore4(&mut SockAddr::new(ctx))
}

#[cgroup_sock_addr(getpeername6)]
fn cg_getpeername6(ctx: SockAddrContext) -> i32 {
    restore6(&mut SockAddr::new(ctx))
}
