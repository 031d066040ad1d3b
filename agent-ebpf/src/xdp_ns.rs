//! XDP on an uplink: services for clients outside ("north-south"), and the replies of remote backends.

use aya_ebpf::{macros::xdp, programs::XdpContext};
use pipeline::forward::At;

use crate::{ctx::Xdp, maps::Maps};

#[xdp(frags)]
fn xdp_ns(ctx: XdpContext) -> u32 {
    let mut packet = Xdp::new(ctx);
    let verdict = pipeline::uplink::ingress(&mut packet, Maps, At::Xdp);
    packet.end(verdict)
}
