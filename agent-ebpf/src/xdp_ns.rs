//! XDP on an uplink: services for clients outside ("north-south"), and the replies of remote backends.

use aya_ebpf::{macros::xdp, programs::XdpContext};
use pipeline::forward::At;

use crate::{ctx::Xdp, maps::Maps};

/// For native mode: takes packets in several buffers, too.
#[xdp(frags)]
fn xdp_ns(ctx: XdpContext) -> u32 {
    run(ctx)
}

/// For generic mode: see [`abi::programs::Hook::XdpGeneric`].
#[xdp]
fn xdp_ns_linear(ctx: XdpContext) -> u32 {
    run(ctx)
}

#[inline(always)]
fn run(ctx: XdpContext) -> u32 {
    let mut packet = Xdp::new(ctx);
    let verdict = pipeline::uplink::ingress(&mut packet, Maps, At::Xdp);
    packet.end(verdict)
}
