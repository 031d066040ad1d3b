//! tcx ingress of a pod's veth, host end: packets from the pod.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{ctx::Tc, maps::Maps};

#[classifier]
fn tcx_pod_in(ctx: TcContext) -> i32 {
    let mut packet = Tc::new(ctx);
    let verdict = pipeline::pod::ingress(&mut packet, Maps);
    packet.end(verdict)
}
