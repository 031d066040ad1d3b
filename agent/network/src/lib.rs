//! Pod interfaces, addresses and routes, by netlink. Knows nothing of Services.
//!
//! A pod's network is a veth pair whose pod end is *born* inside the pod's pinned network namespace (never moved, which would cost
//! a `synchronize_net`), one /32 and one /128 address taken from the node's podCIDRs, and a default route through a link-local
//! gateway that is answered by a permanent neighbour entry instead of ARP or neighbour discovery.
//!
//! # Limits
//! It does not create or pin namespaces (the kubelet does) and does not load programs: what must happen between "the interface
//! exists" and "the interface is up" is the [`Wiring`] given to [`PodNetwork::new`].

pub mod cidr;
pub mod device;
pub mod ipam;
mod link;
pub mod neighbours;
mod netns;
mod pod;
pub mod processes;
pub mod routes;
mod rtnl;
pub mod sockets;
mod sysctl;
pub mod tunnel;

pub use cidr::Cidr;
pub use link::{HOST_MAC, host_ifname, pod_mac};
pub use netns::Netns;
pub use pod::{BoxError, Config, Error, PodIdentity, PodInterface, PodNetwork, Unwired, Wiring};
pub use rtnl::RtnlError;
