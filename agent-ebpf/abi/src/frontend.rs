//! Frontends: which (address, port, protocol) belongs to which service port.
//!
//! The value holds an id that practically never changes for a key; all that changes is reached through the id
//! ([`crate::service::Service`]). The reason: preallocated hash elements are reused at once, so a reader of a hash
//! value may see bytes of another key, which for an immutable id is harmless.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Ip6, Port, Proto, sizes};

/// [`FrontendKey4::scope`]: the key's address is the destination itself.
pub const SCOPE_EXACT: u8 = 0;
/// [`FrontendKey4::scope`]: a node port. The key's address is zero; it stands for every address in
/// [`crate::maps::NODEIP4`] flagged [`crate::route::node_flags::NODE_PORT`] (and loopback, at the socket hook).
pub const SCOPE_NODE_PORT: u8 = 1;

/// Bits of [`Frontend::flags`].
pub mod flags {
    /// ExternalIP, load balancer address or node port: clients outside the cluster are judged by
    /// externalTrafficPolicy. Clients on this node (pods, host) always get the cluster run (upstream's short circuit).
    pub const EXTERNAL: u16 = 1 << 0;
    /// Only clients in the service's ranges ([`crate::source::SourceKey4`]) may come in here: an address of a load balancer.
    pub const SOURCE_RANGES: u16 = 1 << 2;
    /// A node port: nothing on the node may be bound to it.
    pub const NODE_PORT: u16 = 1 << 3;
    /// The row of a service address as such, with port zero and the ICMP protocol of its family: it answers echo requests, and its ports
    /// without a row of their own are rejected. The id is unused.
    pub const VIP: u16 = 1 << 4;
}

/// Key of [`crate::maps::FE4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendKey4 {
    /// Destination address; zero with [`SCOPE_NODE_PORT`].
    pub addr: Ip4,
    /// Destination port.
    pub port: Port,
    /// Protocol.
    pub proto: Proto,
    /// [`SCOPE_EXACT`] or [`SCOPE_NODE_PORT`].
    pub scope: u8,
}

/// Key of [`crate::maps::FE6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendKey6 {
    /// Destination address; zero with [`SCOPE_NODE_PORT`].
    pub addr: Ip6,
    /// Destination port.
    pub port: Port,
    /// Protocol.
    pub proto: Proto,
    /// [`SCOPE_EXACT`] or [`SCOPE_NODE_PORT`].
    pub scope: u8,
    /// Zero.
    pub _pad: u32,
}

/// Value of [`crate::maps::FE4`] and [`crate::maps::FE6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    /// Index into [`crate::maps::SVC`].
    pub service: u32,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Zero.
    pub _pad: u16,
}

sizes! { FrontendKey4 = 8, FrontendKey6 = 24, Frontend = 8 }
