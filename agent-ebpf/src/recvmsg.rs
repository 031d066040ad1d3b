//! `recvmsg` and `recvfrom`: a datagram from a backend gets the service address back that the application used.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ctx::SockAddr,
    socket::{restore4, restore6},
};

#[cgroup_sock_addr(recvmsg4)]
fn cg_recvmsg4(ctx: SockAddrContext) -> i32 {
    restore4(&mut SockAddr::new(ctx))
}

#[cgroup_sock_addr(recvmsg6)]
fn cg_recvmsg6(ctx: SockAddrContext) -> i32 {
    restore6(&mut SockAddr::new(ctx))
}
