//! tcx ingress of the VXLAN device: what other nodes send through tunnels.

use aya_ebpf::{macros::classifier, programs::TcContext};
use pipeline::forward::At;

use crate::{ctx::Tc, maps::Maps};

#[classifier]
fn tcx_tun_in(ctx: TcContext) -> i32 {
    let mut packet = Tc::new(ctx);
    let verdict = pipeline::uplink::ingress(&mut packet, Maps, At::Tc);
    packet.end(verdict)
}
