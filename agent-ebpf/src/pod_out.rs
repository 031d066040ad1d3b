//! tcx egress of a pod's veth, host end: packets that the host's stack sends to the pod.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{ctx::Tc, maps::Maps};

#[classifier]
fn tcx_pod_out(ctx: TcContext) -> i32 {
    let mut packet = Tc::new(ctx);
    let verdict = pipeline::egress::egress(&mut packet, Maps);
    packet.end(verdict)
}
