//! `sendmsg` and `sendto` on a socket that is not connected: as [`crate::connect`], for one datagram.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    connect::{four, six},
    ctx::SockAddr,
};

#[cgroup_sock_addr(sendmsg4)]
fn cg_sendmsg4(ctx: SockAddrContext) -> i32 {
    four(&mut SockAddr::new(ctx), true)
}

#[cgroup_sock_addr(sendmsg6)]
fn cg_sendmsg6(ctx: SockAddrContext) -> i32 {
    six(&mut SockAddr::new(ctx), true)
}
