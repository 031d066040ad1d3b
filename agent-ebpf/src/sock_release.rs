//! A socket is closed: its slot is free again, and its backend has one connection less.

use abi::Proto;
use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

use crate::{ctx::Sock, maps::Slot, socket::uncount};

#[cgroup_sock(sock_release)]
fn cg_sock_release(ctx: SockContext) -> i32 {
    let mut sock = Sock::new(ctx);
    if !matches!(sock.proto(), Proto::TCP | Proto::UDP | Proto::SCTP) {
        return sock.allow();
    }
    if let Some(slot) = Slot::of(sock.cookie())
        && let Some(pair) = slot.pair()
    {
        uncount(pair);
        slot.free();
    }
    // A socket that was connected before while its slot was another's has left a pair here.
    if let Some(reverse) = sock.reverse() {
        uncount(&mut reverse.pairs[0]);
    }
    sock.allow()
}
