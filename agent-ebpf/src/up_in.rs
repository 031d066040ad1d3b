//! tcx ingress of an uplink: delivery to pods; services for clients outside where XDP is absent.

use aya_ebpf::{macros::classifier, programs::TcContext};
use pipeline::forward::At;

use crate::{ctx::Tc, maps::Maps};

#[classifier]
fn tcx_up_in(ctx: TcContext) -> i32 {
    let mut packet = Tc::new(ctx);
    let verdict = pipeline::uplink::ingress(&mut packet, Maps, At::Tc);
    packet.end(verdict)
}
