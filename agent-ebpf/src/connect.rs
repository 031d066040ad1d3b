//! `connect`: a service address becomes a backend's; with no endpoint the call is refused at once.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ctx::SockAddr,
    socket::{Socket, four, six},
};

#[cgroup_sock_addr(connect4)]
fn cg_connect4(ctx: SockAddrContext) -> i32 {
    four(&mut SockAddr::new(ctx), Socket::Connects)
}

#[cgroup_sock_addr(connect6)]
fn cg_connect6(ctx: SockAddrContext) -> i32 {
    six(&mut SockAddr::new(ctx), Socket::Connects)
}
