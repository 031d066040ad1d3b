//! tcx egress of an uplink: replies of host-network backends.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{ctx::Tc, maps::Maps};

#[classifier]
fn tcx_up_out(ctx: TcContext) -> i32 {
    let mut packet = Tc::new(ctx);
    let verdict = pipeline::egress::egress(&mut packet, Maps);
    packet.end(verdict)
}
