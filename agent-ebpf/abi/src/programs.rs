//! The programs of the object: name, hook, pin name. One row a program; the loader loops over them.

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP on an uplink (the program accepts fragments).
    Xdp,
    /// XDP on an uplink in generic mode: the same program for whole buffers. (After a generic program that accepts fragments, skbs that
    /// had to be copied have no `mac_len`, and tcx sees them from the IP header on: seen on Linux 6.18.)
    XdpGeneric,
    /// tcx ingress of an uplink.
    UplinkIngress,
    /// tcx egress of an uplink.
    UplinkEgress,
    /// tcx ingress of the host end of a pod's veth: packets from the pod.
    PodIngress,
    /// tcx egress of the host end of a pod's veth: packets that the host's stack sends to the pod.
    PodEgress,
    /// tcx ingress of the VXLAN device: packets from nodes on other segments.
    TunnelIngress,
    /// A `cgroup/sock_addr` hook of the node's cgroup.
    SockAddr,
    /// A `cgroup/sock` hook of the node's cgroup, by the program's name.
    Sock,
}

/// One program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSpec {
    /// Name in the object.
    pub name: &'static str,
    /// Where it is attached.
    pub hook: Hook,
    /// What it does there.
    pub does: &'static str,
}

const fn program(name: &'static str, hook: Hook, does: &'static str) -> ProgramSpec {
    ProgramSpec { name, hook, does }
}

/// Programs whose absence leaves the node without services are all but [`Hook::Xdp`] and [`Hook::XdpGeneric`]
/// (their work falls to [`Hook::UplinkIngress`]).
pub const PROGRAMS: &[ProgramSpec] = &[
    program("xdp_ns", Hook::Xdp, "services for clients outside, before the stack sees the packet"),
    program("xdp_ns_linear", Hook::XdpGeneric, "the same where XDP runs in generic mode"),
    program(
        "tcx_up_in",
        Hook::UplinkIngress,
        "delivery to pods; services for clients outside when XDP is absent",
    ),
    program("tcx_up_out", Hook::UplinkEgress, "replies of host-network backends"),
    program("tcx_pod_in", Hook::PodIngress, "packets from a pod: services, replies, delivery"),
    program("tcx_pod_out", Hook::PodEgress, "replies of host-network backends to the pod"),
    program(
        "tcx_tun_in",
        Hook::TunnelIngress,
        "packets out of tunnels: delivery to pods, services handed over",
    ),
    program("cg_connect4", Hook::SockAddr, "replaces a service address at connect"),
    program("cg_connect6", Hook::SockAddr, "replaces a service address at connect"),
    program("cg_sendmsg4", Hook::SockAddr, "replaces a service address at sendmsg"),
    program("cg_sendmsg6", Hook::SockAddr, "replaces a service address at sendmsg"),
    program("cg_recvmsg4", Hook::SockAddr, "gives a datagram its service address back"),
    program("cg_recvmsg6", Hook::SockAddr, "gives a datagram its service address back"),
    program("cg_getpeername4", Hook::SockAddr, "names the service address as the peer"),
    program("cg_getpeername6", Hook::SockAddr, "names the service address as the peer"),
    program("cg_post_bind4", Hook::Sock, "keeps processes of the node off node ports"),
    program("cg_post_bind6", Hook::Sock, "keeps processes of the node off node ports"),
    program("cg_sock_release", Hook::Sock, "frees what a connected socket has in the tables"),
];
