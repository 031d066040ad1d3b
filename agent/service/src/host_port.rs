//! hostPort: a port of this node that belongs to one container of one pod on it.

use std::net::IpAddr;

use crate::Protocol;

/// One entry of a container's `ports` with a hostPort, and the addresses of its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// hostIP. `None`: every address of the node, both families. An unspecified address (0.0.0.0, ::): every address of its family.
    pub host_ip: Option<IpAddr>,
    /// hostPort.
    pub port: u16,
    /// protocol.
    pub protocol: Protocol,
    /// containerPort.
    pub container_port: u16,
    /// The pod's addresses; the first of each family is used.
    pub pod_ips: Vec<IpAddr>,
}
