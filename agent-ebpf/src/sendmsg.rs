//! `sendmsg` and `sendto` on a socket that is not connected: as [`crate::connect`], for one datagram,
//! whose backend the socket keeps for the next ones.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ctx::SockAddr,
    socket::{Socket, four, six},
};

#[cgroup_sock_addr(sendmsg4)]
fn cg_sendmsg4(ctx: SockAddrContext) -> i32 {
    four(&mut SockAddr::new(ctx), Socket::Sends)
}

#[cgroup_sock_addr(sendmsg6)]
fn cg_sendmsg6(ctx: SockAddrContext) -> i32 {
    six(&mut SockAddr::new(ctx), Socket::Sends)
}
