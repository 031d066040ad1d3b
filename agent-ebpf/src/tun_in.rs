//! tcx ingress of the VXLAN device: what other nodes send through tunnels.

use aya_ebpf::{macros::classifier, programs::TcContext};
use pipeline::forward::At;

use crate::{ctx::Tc, maps::Maps};

#[classifier]
fn tcx_tun_in(ctx: TcContext) -> i32 {
    let mut packet = Tc::new(ctx);
    // Inner frames have one destination address on all nodes, which no device has.
    packet.accept();
    let verdict = pipeline::uplink::ingress(&mut packet, Maps, At::Tunnel);
    packet.end(verdict)
}
