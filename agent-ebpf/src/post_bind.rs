//! After `bind`: a process of the node that asked for a node port is told that it is in use.

use abi::{Ip6, Port, Proto};
use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use pipeline::{Family as _, V4, V6, bind::allowed};

use crate::{ctx::Sock, maps::Maps};

/// `EADDRINUSE` (`include/uapi/asm-generic/errno.h`).
const EADDRINUSE: i32 = 98;

#[cgroup_sock(post_bind4)]
fn cg_post_bind4(ctx: SockContext) -> i32 {
    let sock = Sock::new(ctx);
    let ok = allowed::<V4, _>(Maps, sock.ip4(), sock.port(), sock.proto(), sock.netns());
    end(&sock, ok)
}

#[cgroup_sock(post_bind6)]
fn cg_post_bind6(ctx: SockContext) -> i32 {
    let sock = Sock::new(ctx);
    let ok = six(sock.ip6(), sock.port(), sock.proto(), sock.netns());
    end(&sock, ok)
}

/// An IPv6 socket has IPv4's ports too, by a v4-mapped address, or by none unless it wants IPv6 only, which cannot be seen from here.
#[inline(always)]
fn six(addr: Ip6, port: Port, proto: Proto, netns: u64) -> bool {
    match addr.as_mapped() {
        Some(mapped) => allowed::<V4, _>(Maps, mapped, port, proto, netns),
        None => {
            allowed::<V6, _>(Maps, addr, port, proto, netns)
                && (addr != V6::UNSPECIFIED || allowed::<V4, _>(Maps, V4::UNSPECIFIED, port, proto, netns))
        }
    }
}

#[inline(always)]
fn end(sock: &Sock, ok: bool) -> i32 {
    if ok { sock.allow() } else { sock.fail(EADDRINUSE) }
}
